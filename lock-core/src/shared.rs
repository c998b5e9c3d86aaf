//! What every part of a client reaches: its backend, its clock, its books.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::backend::Backend;
use crate::book::Book;
use crate::capability::Capabilities;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::gauge::{Counted, Gauge};
use crate::hold::Hold;
use crate::lease::{LeaseEvent, LossReason};
use crate::message::Message;
use crate::name::LockName;
use crate::options::ClientOptions;
use crate::owner::{Identity, Nonce};

/// What every part of a client reaches. Lives as long as any of them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) capabilities: Capabilities,
    pub(crate) clock: Clock,
    pub(crate) identity: Identity,
    pub(crate) runtime: Handle,
    pub(crate) op_timeout: Duration,
    pub(crate) outage_limit: Duration,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) default_ttl: Duration,
    pub(crate) book: Book,
    pub(crate) waiting: Gauge,
    pub(crate) cleanups: Gauge,
    lines: Mutex<BTreeMap<LockName, LineHandle>>,
    pub(crate) line_gauge: Gauge,
    closing: AtomicBool,
    /// The process that connected. In a forked child nothing of the background thread exists.
    pid: u32,
}

impl Shared {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        identity: Identity,
        runtime: Handle,
        options: ClientOptions,
    ) -> Self {
        Self {
            capabilities: backend.capabilities(),
            backend,
            clock: options.clock,
            identity,
            runtime,
            op_timeout: options.op_timeout,
            outage_limit: options.outage_limit,
            max_hold: options.max_hold,
            default_ttl: options.ttl,
            book: Book::default(),
            waiting: Gauge::default(),
            cleanups: Gauge::default(),
            lines: Mutex::default(),
            line_gauge: Gauge::default(),
            closing: AtomicBool::new(false),
            pid: std::process::id(),
        }
    }

    /// Hands `message` to the line of `name`, and takes note of a new one when there is none; what
    /// is answered then is to be started.
    pub(crate) fn submit(&self, name: &LockName, message: Message) -> Option<NewLine> {
        let mut lines = self.lines();
        let message = match lines.get(name) {
            Some(line) => match line.outbox.send(message) {
                Ok(()) => return None,
                // The line died in a panic of its backend; a new one takes over.
                Err(mpsc::error::SendError(message)) => message,
            },
            None => message,
        };
        let (outbox, inbox) = mpsc::unbounded_channel();
        // Cannot fail: the receiver is right here.
        let _ = outbox.send(message);
        let handle = LineHandle {
            outbox: outbox.clone(),
            _counted: self.line_gauge.count(),
        };
        lines.insert(name.clone(), handle);
        Some(NewLine { outbox, inbox })
    }

    /// Hands `message` to the line of `name` if there is one.
    pub(crate) fn notify(&self, name: &LockName, message: Message) -> Result<(), Message> {
        match self.lines().get(name) {
            Some(line) => line.outbox.send(message).map_err(|unsent| unsent.0),
            None => Err(message),
        }
    }

    /// Takes the line of `name` off the list if nothing has been sent to it meanwhile.
    pub(crate) fn retire(&self, name: &LockName, inbox: &mpsc::UnboundedReceiver<Message>) -> bool {
        let mut lines = self.lines();
        // Whoever asks or withdraws does so under this same mutex, so what is empty now stays empty. A
        // level goes straight to its line; one that comes now is of a hold that has ended, and its
        // guard knows why by itself.
        if !inbox.is_empty() {
            return false;
        }
        lines.remove(name);
        true
    }

    /// Takes the line of `name` off the list if it is dead.
    pub(crate) fn forget(&self, name: &LockName) {
        let mut lines = self.lines();
        if lines.get(name).is_some_and(|line| line.outbox.is_closed()) {
            lines.remove(name);
        }
    }

    /// Why `hold` has ended, if it has, looking at the clock as well.
    pub(crate) fn ended(&self, hold: &Arc<Hold>) -> Option<LossReason> {
        let (ended_now, ended) = hold.apply(LeaseEvent::Tick);
        if ended_now {
            self.hold_ended(hold);
        }
        ended
    }

    /// Ends `hold` for `reason`, unless it has ended already.
    pub(crate) fn end(&self, hold: &Arc<Hold>, reason: LossReason) {
        if hold.apply(LeaseEvent::End(reason)).0 {
            self.hold_ended(hold);
        }
    }

    /// Tells everybody concerned that `hold`, which has just ended, did.
    pub(crate) fn hold_ended(&self, hold: &Arc<Hold>) {
        let claim = hold.claim();
        self.book.remove(&claim.nonce);
        let reason = hold.apply(LeaseEvent::Tick).1.unwrap_or(LossReason::Closed);
        if reason == LossReason::Released {
            // The line did it itself.
            return;
        }
        warn!(name = %claim.name, token = %hold.token(), %reason, "lock lost");
        // No line means that it has gone already, and with it the interest in this hold.
        let _ = self.notify(&claim.name, Message::Ended { nonce: claim.nonce });
    }

    pub(crate) fn end_by_nonce(&self, nonce: &Nonce, reason: LossReason) {
        match self.book.get(nonce) {
            Some(hold) => self.end(&hold, reason),
            None => self.book.ended_early(*nonce, reason),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether this process is a copy of the one that connected.
    pub(crate) fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }

    /// Refuses work on a client that cannot do it any more.
    pub(crate) fn usable(&self, op: &'static str) -> Result<()> {
        if self.is_forked() {
            return Err(Error::new(ErrorKind::Closed, op)
                .with_detail("this process is a forked copy of the one that connected"));
        }
        if self.is_closing() {
            return Err(Error::new(ErrorKind::Closed, op));
        }
        Ok(())
    }

    /// Runs one backend call on the client's runtime, within the operation timeout; no answer by then
    /// is an error of the kind `unanswered`.
    pub(crate) async fn call<T, F>(
        self: &Arc<Self>,
        op: &'static str,
        unanswered: ErrorKind,
        call: impl FnOnce(Arc<dyn Backend>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.usable(op)?;
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let call = call(Arc::clone(&shared.backend));
            let outcome = shared.clock.timeout(shared.op_timeout, call).await;
            let outcome = outcome.unwrap_or_else(|| {
                Err(Error::new(unanswered, op).with_detail("no answer in time"))
            });
            // The caller may be gone; then nobody wants to know.
            let _ = reply.send(outcome);
        });
        answer
            .await
            .unwrap_or_else(|_| Err(Error::new(self.unheard(unanswered), op)))
    }

    /// What a call ends with that was dropped without a word: the client has ended, or the backend has
    /// panicked and may have done it or not.
    pub(crate) fn unheard(&self, unanswered: ErrorKind) -> ErrorKind {
        if self.is_closing() {
            ErrorKind::Closed
        } else {
            unanswered
        }
    }

    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
        for line in self.lines().values() {
            // A line that has just ended has nobody to tell.
            let _ = line.outbox.send(Message::Close);
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<LockName, LineHandle>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to a line that runs.
#[derive(Debug)]
struct LineHandle {
    outbox: mpsc::UnboundedSender<Message>,
    _counted: Counted,
}

/// Both ends of a line that nobody runs yet.
#[derive(Debug)]
pub(crate) struct NewLine {
    pub(crate) outbox: mpsc::UnboundedSender<Message>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Message>,
}
