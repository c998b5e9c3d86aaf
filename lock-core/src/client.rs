//! One client: its background thread, from connecting to closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::backend::{Connect, Context, Event};
use crate::error::{Error, ErrorKind, Result};
use crate::keeper;
use crate::lease::LossReason;
use crate::line::Line;
use crate::message::Message;
use crate::name::LockName;
use crate::options::ClientOptions;
use crate::owner::Identity;
use crate::shared::Shared;

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

    /// Hands `message` to the line of `name`, and starts one when there is none.
    pub(crate) fn submit(&self, name: &LockName, message: Message) {
        if let Some(new) = self.shared.submit(name, message) {
            let line = Line::new(Arc::clone(&self.shared), name.clone(), new);
            self.shared.runtime.spawn(line.run());
        }
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
    runtime.block_on(live(connect, options, runtime.handle().clone(), opened));
}

/// The life of a client, from connecting to closing, on `runtime`; what is still going on there
/// when it ends must not go on.
pub(crate) async fn live(
    connect: &dyn Connect,
    options: ClientOptions,
    runtime: Handle,
    opened: oneshot::Sender<Result<Arc<Client>>>,
) {
    let (close, mut closed) = mpsc::unbounded_channel();
    let shared = match connect_backend(connect, options, runtime).await {
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
        biased;
        request = closed.recv() => request,
        _ = keeper => {
            // Its guards have been told; without a keeper there can be no new ones either.
            shared.begin_closing();
            closed.recv().await
        }
    };
    close_down(&shared, request).await;
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
    info!(backend = backend.capabilities().backend, "connected");
    Ok(Arc::new(Shared::new(backend, identity, runtime, options)))
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
            Event::Reconnected => keeper::verify_all(&shared),
        }
    }
    // Without pushes a loss is noticed at the next renewal.
    warn!("the backend pushes no events any more");
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
        shared.line_gauge.drained().await;
        shared.cleanups.drained().await;
    };
    let drained = shared.clock.timeout(within, draining).await;
    let report = match drained {
        Some(()) => ShutdownReport::default(),
        None => {
            let still_held = shared.book.len();
            // A line that holds nothing is still there because of a request without an answer.
            let asking = shared.line_gauge.now().saturating_sub(still_held);
            ShutdownReport {
                still_held,
                unconfirmed: asking + shared.cleanups.now(),
            }
        }
    };
    for hold in shared.book.close() {
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
