//! One session with the ensemble: what is asked in it, and until when it is certainly alive.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::{BootInstant, Claim, Clock, Validity};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;
use zookeeper_client as zk;

use crate::alarm::Alarm;
use crate::error::Failure;
use crate::heartbeat::Heartbeats;

/// So many bytes of paths are watched at most. On a new connection the client library sets all watches
/// again, in requests of 128 KiB; the answer to a second one it takes for an answer to nothing, and gives
/// the connection up, again and again.
const WATCHED: usize = 96 * 1024;

/// Whether a session can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Connected to a server, as far as is known.
    Up,
    /// Between two connections.
    Away,
    /// Over: nothing that it owned is held any more, whatever the servers still show.
    Ended,
}

/// A session. The client library keeps one session for each of its clients, and so do we.
pub(crate) struct Session {
    clock: Clock,
    /// What the session is called in the owner field of its nodes.
    id: i64,
    /// What this client's node below `c` is called.
    name: Uuid,
    timeout: Duration,
    tick: Duration,
    /// `None` once it has ended: the last handle that is dropped closes the session at the server.
    handle: Mutex<Option<zk::Client>>,
    state: zk::StateWatcher,
    phase: watch::Sender<Phase>,
    heartbeats: Mutex<Heartbeats>,
    confirmed: watch::Sender<BootInstant>,
    /// Rings when somebody has broken a lock of this client, or removed the client's node.
    pub(crate) own_node: Alarm,
    /// Rings when the fence base has changed.
    pub(crate) base_node: Alarm,
    base: AtomicU64,
    /// How long the client library's root is, and how many bytes of paths may still be watched.
    root: usize,
    watched: Arc<Semaphore>,
    /// How often the alarms have been set again.
    pub(crate) settled: watch::Sender<u64>,
}

impl Session {
    /// The session of `client`, which was asked for at `opened`.
    pub(crate) fn new(
        client: zk::Client,
        name: Uuid,
        opened: BootInstant,
        tick: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            clock,
            id: client.session_id().0,
            name,
            timeout: client.session_timeout(),
            tick,
            state: client.state_watcher(),
            root: client.path().len(),
            watched: Arc::new(Semaphore::new(WATCHED)),
            handle: Mutex::new(Some(client)),
            phase: watch::Sender::new(Phase::Up),
            heartbeats: Mutex::new(Heartbeats::new(opened, tick)),
            confirmed: watch::Sender::new(opened),
            own_node: Alarm::default(),
            base_node: Alarm::default(),
            base: AtomicU64::new(0),
            settled: watch::Sender::new(0),
        }
    }

    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    pub(crate) fn name(&self) -> Uuid {
        self.name
    }

    /// As the server granted it.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn states(&self) -> zk::StateWatcher {
        self.state.clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase() == Phase::Ended
    }

    /// Takes note of a change of the connection. What has ended stays ended.
    pub(crate) fn moved_to(&self, phase: Phase) {
        self.lock_heartbeats().disconnected();
        self.phase
            .send_if_modified(|now| *now != Phase::Ended && std::mem::replace(now, phase) != phase);
    }

    /// Ends it here, and at the server as soon as that hears of it.
    pub(crate) fn end(&self) {
        self.moved_to(Phase::Ended);
        let handle = self
            .handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(handle);
    }

    /// Waits until it has ended here.
    pub(crate) async fn ended(&self) {
        let mut phases = self.phases();
        // The sender lives in `self`.
        let _ = phases.wait_for(|phase| *phase == Phase::Ended).await;
    }

    /// Waits until the client library has closed it, after [`end`](Self::end).
    pub(crate) async fn closed(&self, until: BootInstant) -> bool {
        let mut states = self.state.clone();
        let closed = async {
            let mut state = states.state();
            while !is_terminal(state) {
                state = states.changed().await;
            }
        };
        self.clock.timeout_at(until, closed).await.is_some()
    }

    /// The handle to ask with, as soon as there is a connection.
    ///
    /// What is asked without one waits in the client library without a limit, and is sent after its
    /// caller has given up.
    pub(crate) async fn handle(&self, until: BootInstant) -> Result<zk::Client, Failure> {
        let mut phases = self.phases();
        let connected = phases.wait_for(|phase| *phase != Phase::Away);
        if self.clock.timeout_at(until, connected).await.is_none() {
            return Err(Failure::Unsent);
        }
        self.handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(Failure::Unsent)
    }

    /// The answer to what was asked, if it comes in time.
    pub(crate) async fn answer<T>(
        &self,
        until: BootInstant,
        reply: impl Future<Output = zk_result::Result<T>>,
    ) -> Result<T, Failure> {
        let bounded = self.clock.timeout_at(until, reply);
        tokio::select! {
            biased;
            answer = bounded => match answer {
                Some(answer) => answer.map_err(Failure::of),
                None => Err(Failure::Unknown(None)),
            },
            () = self.ended() => Err(Failure::Unknown(Some(zk::Error::SessionExpired))),
        }
    }

    /// When the heartbeat is to be sent that is planned for `planned`.
    pub(crate) fn heartbeat_due(&self, planned: BootInstant) -> BootInstant {
        self.lock_heartbeats().due(planned)
    }

    /// Takes note that the heartbeat of `sent` was answered.
    pub(crate) fn heartbeat_answered(&self, sent: BootInstant) {
        let heard = self.clock.now();
        let mut heartbeats = self.lock_heartbeats();
        if heartbeats.answered(sent, heard) {
            self.confirmed.send_replace(heartbeats.confirmed());
        }
    }

    /// When the servers can end it at the earliest, as far as is known.
    pub(crate) fn deadline(&self) -> BootInstant {
        *self.confirmed.borrow() + self.timeout
    }

    /// Until when a hold of `claim` is valid whose own time counts from `since`.
    pub(crate) fn validity(&self, claim: &Claim, since: BootInstant) -> Validity {
        let now = self.clock.now();
        let session = Validity::new(*self.confirmed.borrow(), now, self.timeout);
        let own = Validity::new(since, now, claim.ttl);
        if own.expires_at() < session.expires_at() {
            own.freed_by(session.free_by())
        } else {
            session.freed_by(own.free_by())
        }
    }

    /// Waits until at least a third of its timeout is left, or until `until`.
    pub(crate) async fn fresh(&self, until: BootInstant) {
        let mut confirmed = self.confirmed.subscribe();
        let fresh = confirmed.wait_for(|confirmed| {
            let left = (*confirmed + self.timeout).saturating_since(self.clock.now());
            left >= self.timeout / 3
        });
        // Too late is told by the validity itself.
        let _ = self.clock.timeout_at(until, fresh).await;
    }

    /// Whether nobody has meddled with this client or the fence base, up to the last answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.own_node.is_quiet() && self.base_node.is_quiet()
    }

    /// Waits until what rang an alarm has been looked into.
    pub(crate) async fn quiet(&self, until: BootInstant) -> Result<(), Failure> {
        let mut settled = self.settled.subscribe();
        let quiet = async {
            while !self.is_quiet() {
                // The sender lives in `self`.
                let _ = settled.changed().await;
            }
        };
        tokio::select! {
            biased;
            quiet = self.clock.timeout_at(until, quiet) => quiet.ok_or(Failure::Unknown(None)),
            () = self.ended() => Err(Failure::Unknown(Some(zk::Error::SessionExpired))),
        }
    }

    /// Room for a watch on `path`, for as long as that is watched; `None` when there is none.
    pub(crate) fn room_to_watch(&self, path: &str) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(self.root + path.len()).ok()?;
        Arc::clone(&self.watched).try_acquire_many_owned(bytes).ok()
    }

    /// What is added to a node's transaction id to make a token. Good while the session is quiet.
    pub(crate) fn base(&self) -> u64 {
        self.base.load(Ordering::Acquire)
    }

    pub(crate) fn set_base(&self, base: u64) {
        self.base.fetch_max(base, Ordering::AcqRel);
    }

    fn lock_heartbeats(&self) -> MutexGuard<'_, Heartbeats> {
        self.heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the client library will never leave this state.
pub(crate) fn is_terminal(state: zk::SessionState) -> bool {
    matches!(
        state,
        zk::SessionState::Expired | zk::SessionState::AuthFailed | zk::SessionState::Closed
    )
}

/// The client library's results.
pub(crate) mod zk_result {
    pub(crate) type Result<T> = std::result::Result<T, zookeeper_client::Error>;
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &format_args!("{:#x}", self.id))
            .field("timeout", &self.timeout)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}
