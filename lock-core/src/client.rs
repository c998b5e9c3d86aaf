//! One client: its background thread, and what the parts that run there share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::backend::{Backend, Connect, Context, Event};
use crate::capability::Capabilities;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::hold::Hold;
use crate::keeper::{self, Keeper};
use crate::lease::{LeaseEvent, LossReason};
use crate::line::{Line, Message};
use crate::name::LockName;
use crate::options::ClientOptions;
use crate::owner::{Identity, Nonce};
use crate::reaper::Reaper;

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
    pub(crate) keeper: Keeper,
    pub(crate) reaper: Reaper,
    /// One clone for every waiter there is.
    pub(crate) waiting: Arc<()>,
    lines: Mutex<HashMap<LockName, mpsc::UnboundedSender<Message>>>,
    /// How many lines there are, to wait for the last one.
    line_count: watch::Sender<usize>,
    closing: AtomicBool,
    /// The process that connected. In a forked child nothing of the background thread exists.
    pid: u32,
}

impl Shared {
    /// Hands `message` to the line of `name`, and makes the line when there is none.
    pub(crate) fn submit(self: &Arc<Self>, name: &LockName, message: Message) {
        let mut lines = self.lines();
        let message = match lines.get(name) {
            Some(line) => match line.send(message) {
                Ok(()) => return,
                // The line died in a panic of its backend; a new one takes over.
                Err(mpsc::error::SendError(message)) => message,
            },
            None => message,
        };
        let (sender, inbox) = mpsc::unbounded_channel();
        // Cannot fail: the receiver is right here.
        let _ = sender.send(message);
        if lines.insert(name.clone(), sender).is_none() {
            self.line_count.send_modify(|count| *count += 1);
        }
        drop(lines);
        self.runtime
            .spawn(Line::new(Arc::clone(self), name.clone(), inbox).run());
    }

    /// Hands `message` to the line of `name` if there is one.
    pub(crate) fn notify(&self, name: &LockName, message: Message) -> Result<(), Message> {
        match self.lines().get(name) {
            Some(line) => line.send(message).map_err(|unsent| unsent.0),
            None => Err(message),
        }
    }

    /// Takes the line of `name` off the list if nothing has been sent to it meanwhile.
    pub(crate) fn retire(&self, name: &LockName, inbox: &mpsc::UnboundedReceiver<Message>) -> bool {
        let mut lines = self.lines();
        // Messages are sent under this same mutex, so what is empty now stays empty.
        if !inbox.is_empty() {
            return false;
        }
        if lines.remove(name).is_some() {
            self.line_count.send_modify(|count| *count -= 1);
        }
        true
    }

    /// Takes the line of `name` off the list if it is dead.
    pub(crate) fn forget(&self, name: &LockName) {
        let mut lines = self.lines();
        if lines
            .get(name)
            .is_some_and(mpsc::UnboundedSender::is_closed)
        {
            lines.remove(name);
            self.line_count.send_modify(|count| *count -= 1);
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
        self.keeper.remove(&claim.nonce);
        let reason = hold.apply(LeaseEvent::Tick).1.unwrap_or(LossReason::Closed);
        if reason == LossReason::Released {
            // The line did it itself.
            return;
        }
        warn!(name = %claim.name, token = %hold.token(), %reason, "lock lost");
        // No line means that it has gone already, and with it the interest in this hold.
        let _ = self.notify(&claim.name, Message::Ended { nonce: claim.nonce });
    }

    fn end_by_nonce(&self, nonce: &Nonce, reason: LossReason) {
        if let Some(hold) = self.keeper.get(nonce) {
            self.end(&hold, reason);
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

    pub(crate) fn line_count(&self) -> usize {
        *self.line_count.borrow()
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
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, op)))
    }

    fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
        for line in self.lines().values() {
            // A line that has just ended has nobody to tell.
            let _ = line.send(Message::Close);
        }
    }

    async fn lines_drained(&self) {
        // The sender lives in `self`, so this cannot fail while we are here.
        let _ = self
            .line_count
            .subscribe()
            .wait_for(|count| *count == 0)
            .await;
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<LockName, mpsc::UnboundedSender<Message>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What users hold: the last of them to go closes the client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    close: mpsc::UnboundedSender<Close>,
    /// Whether somebody has asked for that.
    closed: AtomicBool,
}

/// Asks the background thread to end.
#[derive(Debug)]
struct Close {
    within: Duration,
    report: oneshot::Sender<ShutdownReport>,
}

/// What [`Locks::shutdown`](crate::Locks::shutdown) left behind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Locks that were still held when the time was up. Their guards were told that they are lost;
    /// on the backend they end with their TTL.
    pub still_held: usize,
    /// Releases and cleanups that the backend did not confirm in time; they end with their TTL.
    pub unconfirmed: usize,
}

impl ShutdownReport {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl Client {
    /// Starts a background thread and connects on it.
    pub(crate) async fn open(
        connect: Box<dyn Connect>,
        options: ClientOptions,
    ) -> Result<Arc<Self>> {
        options.validate()?;
        let (opened, outcome) = oneshot::channel();
        thread::Builder::new()
            .name("distlock".into())
            .spawn(move || background(&*connect, options, opened))
            .map_err(|source| {
                Error::new(ErrorKind::Unavailable, "connect")
                    .with_detail("cannot start the background thread")
                    .with_source(source)
            })?;
        outcome.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, "connect").with_detail("the background thread died"))
        })
    }

    pub(crate) async fn shutdown(&self, within: Duration) -> Result<ShutdownReport> {
        if self.shared.is_forked() {
            return self
                .shared
                .usable("shutdown")
                .map(|()| ShutdownReport::default());
        }
        let (report, outcome) = oneshot::channel();
        let closed = || Error::new(ErrorKind::Closed, "shutdown");
        // Who comes second must not wait for as long as the first allows.
        if self.closed.swap(true, Ordering::AcqRel) {
            return Err(closed());
        }
        self.shared.begin_closing();
        self.close
            .send(Close { within, report })
            .map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())
    }
}

/// The life of the background thread.
fn background(
    connect: &dyn Connect,
    options: ClientOptions,
    opened: oneshot::Sender<Result<Arc<Client>>>,
) {
    // One thread, for I/O and timers only: user code never runs here, so nothing a user does can
    // keep a lease from being renewed.
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = Error::new(ErrorKind::Unavailable, "connect")
                .with_detail("cannot start the background runtime")
                .with_source(source);
            // The opener may have given up; the thread ends either way.
            let _ = opened.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let (close, mut closed) = mpsc::unbounded_channel();
        let shared = match connect_backend(connect, options, runtime.handle().clone()).await {
            Ok(shared) => shared,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        let keeper = tokio::spawn(keeper::keep(Arc::clone(&shared)));
        // Before anybody can send a request.
        let events = shared.backend.events();
        tokio::spawn(listen(Arc::clone(&shared), events));
        let client = Arc::new(Client {
            shared: Arc::clone(&shared),
            close,
            closed: AtomicBool::new(false),
        });
        // When the opener gave up, the client is dropped right here, and so closed.
        let _ = opened.send(Ok(client));
        let request = tokio::select! {
            request = closed.recv() => request,
            _ = keeper => {
                // Its guards have been told; without a keeper there can be no new ones either.
                shared.begin_closing();
                closed.recv().await
            }
        };
        close_down(&shared, request).await;
    });
}

async fn connect_backend(
    connect: &dyn Connect,
    options: ClientOptions,
    runtime: Handle,
) -> Result<Arc<Shared>> {
    let identity = Identity::of_this_process(&options.label);
    let mut context = Context::new(identity.clone());
    context.clock = options.clock.clone();
    context.op_timeout = options.op_timeout;
    context.fence_base = options.fence_base;
    let connecting = options
        .clock
        .timeout(options.op_timeout, connect.connect(context))
        .await;
    let backend = connecting.unwrap_or_else(|| {
        Err(
            Error::new(ErrorKind::Unavailable, "connect").with_detail(format!(
                "nobody answered within {}",
                humantime::format_duration(options.op_timeout)
            )),
        )
    })?;
    let capabilities = backend.capabilities();
    info!(backend = capabilities.backend, "connected");
    Ok(Arc::new(Shared {
        backend,
        capabilities,
        clock: options.clock,
        identity,
        runtime,
        op_timeout: options.op_timeout,
        outage_limit: options.outage_limit,
        max_hold: options.max_hold,
        default_ttl: options.ttl,
        keeper: Keeper::default(),
        reaper: Reaper::default(),
        waiting: Arc::default(),
        lines: Mutex::default(),
        line_count: watch::Sender::new(0),
        closing: AtomicBool::new(false),
        pid: std::process::id(),
    }))
}

/// Hears what the backend pushes.
async fn listen(shared: Arc<Shared>, mut events: BoxStream<'static, Event>) {
    while let Some(event) = events.next().await {
        debug!(?event, "pushed");
        match event {
            Event::Gone { nonce } => shared.end_by_nonce(&nonce, LossReason::NotHeld),
            Event::Broken { nonce } => shared.end_by_nonce(&nonce, LossReason::Broken),
            Event::SessionEnded { nonces } => {
                for nonce in nonces {
                    shared.end_by_nonce(&nonce, LossReason::SessionEnded);
                }
            }
            Event::Reconnected => shared.keeper.verify_all(&shared),
        }
    }
}

/// Lets what is under way come to its end, for as long as the request allows.
async fn close_down(shared: &Arc<Shared>, request: Option<Close>) {
    // Without a request the last handle was dropped: then there are no guards left, and what they
    // handed over deserves one operation's time and one for the cleanup.
    let within = request
        .as_ref()
        .map_or(shared.op_timeout.saturating_mul(2), |close| close.within);
    shared.begin_closing();
    let draining = async {
        shared.lines_drained().await;
        shared.reaper.drained().await;
    };
    let drained = shared.clock.timeout(within, draining).await;
    let report = match drained {
        Some(()) => ShutdownReport::default(),
        None => {
            let still_held = shared.keeper.len();
            // A line that holds nothing is still there because of a request without an answer.
            let asking = shared.line_count().saturating_sub(still_held);
            ShutdownReport {
                still_held,
                unconfirmed: shared.reaper.len() + asking,
            }
        }
    };
    for hold in shared.keeper.close() {
        warn!(name = %hold.claim().name, token = %hold.token(), "client closed while the lock was held");
    }
    match shared
        .clock
        .timeout(shared.op_timeout, shared.backend.close())
        .await
    {
        Some(Ok(())) => debug!("disconnected"),
        Some(Err(error)) => warn!(%error, "closing the backend failed"),
        None => warn!("closing the backend took too long"),
    }
    if let Some(close) = request {
        // The caller may have stopped waiting.
        let _ = close.report.send(report);
    }
}
