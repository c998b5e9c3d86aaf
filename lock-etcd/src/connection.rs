//! The connection to one member at a time, and the supervisor that replaces it.
//!
//! The client's own balancing spreads calls over all endpoints, dead ones included, and has no
//! deadlines. Here there is one connection; a call on it that is not answered for a while has it
//! looked at, and one that is of no more use is replaced by the first member that proves, by a
//! linearizable read, that it can talk to a quorum. What was sent and not answered is not repeated.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::GetOptions;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lock_core::{BootInstant, Clock, Error, ErrorKind, Result};
use tokio::sync::{mpsc, watch};

use crate::config::EtcdConfig;
use crate::endpoint::{Calls, Member};
use crate::error::{Failure, Meaning, unavailable};

/// The pause before the first attempt to reconnect, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A connection that ended sooner than this counts as a failed attempt.
const STABLE: Duration = Duration::from_secs(1);
/// The pause after an answer that no retry changes: an operator may, though.
const DENIED_PAUSE: Duration = Duration::from_secs(5);
/// While one member is being tried, the next one is tried as well after this.
const STAGGER: Duration = Duration::from_millis(200);
/// After so long without an answer a connection is looked at. Core gives renewals of the shortest leases
/// up after a third of a second: sooner than that.
const PATIENCE: Duration = Duration::from_millis(250);
/// A connection that does not answer for so long when it is looked at is given up.
const PROOF: Duration = Duration::from_millis(400);

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(crate) struct Live {
    /// Counts the connections of this client.
    pub(crate) id: u64,
    pub(crate) calls: Calls,
    member: usize,
}

enum State {
    Up(Live),
    /// With the reason why the last attempt failed.
    Away(Option<Error>),
    Closed,
}

/// What has become of the connection, for those who follow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Lost,
    Up,
}

/// One client's way to the cluster.
pub(crate) struct Connection {
    config: EtcdConfig,
    members: Vec<Member>,
    /// Read to find out whether a member works. The least role covers it.
    probe: Vec<u8>,
    pub(crate) clock: Clock,
    /// One call, its wait for a connection included.
    pub(crate) call_timeout: Duration,
    state: watch::Sender<State>,
    changes: mpsc::UnboundedSender<Change>,
    last_id: AtomicU64,
    /// The member to try first.
    first: AtomicUsize,
    suspected: AtomicBool,
}

impl Connection {
    /// Connects for the first time. Nothing is retried: whoever starts a program wants to know.
    pub(crate) async fn open(
        config: EtcdConfig,
        clock: Clock,
        call_timeout: Duration,
        probe: Vec<u8>,
        changes: mpsc::UnboundedSender<Change>,
    ) -> Result<Arc<Self>> {
        let members = Member::of(&config)?;
        let connection = Arc::new(Self {
            // The clients of a cluster spread over its members.
            first: AtomicUsize::new(fastrand::usize(..members.len())),
            config,
            members,
            probe,
            clock,
            call_timeout,
            state: watch::Sender::new(State::Away(None)),
            changes,
            last_id: AtomicU64::new(0),
            suspected: AtomicBool::new(false),
        });
        let live = connection.establish().await?;
        connection.state.send_replace(State::Up(live));
        Ok(connection)
    }

    /// A connection, as soon as there is one; `by` is when the call has to be answered.
    pub(crate) async fn ready(&self, op: &'static str, by: BootInstant) -> Result<Live> {
        // What is left of the time is for the answer.
        let until = by.saturating_sub(self.call_timeout / 4);
        let mut state = self.state.subscribe();
        loop {
            let why = match &*state.borrow_and_update() {
                State::Up(live) => return Ok(live.clone()),
                State::Closed => return Err(closed(op)),
                State::Away(why) => why.clone(),
            };
            if let Some(why) = &why
                && is_permanent(why)
            {
                return Err(away(why.kind(), op, Some(why)));
            }
            let changed = self.clock.timeout_at(until, state.changed()).await;
            if changed.is_none() {
                return Err(away(ErrorKind::Unavailable, op, why.as_ref()));
            }
        }
    }

    /// Waits for a connection without an end; `None` when there will be none.
    pub(crate) async fn up(&self) -> Option<Live> {
        let mut state = self.state.subscribe();
        let up = state
            .wait_for(|state| !matches!(state, State::Away(_)))
            .await;
        match &*up.ok()? {
            State::Up(live) => Some(live.clone()),
            State::Away(_) | State::Closed => None,
        }
    }

    /// Resolves when the connection `id` is not the one in use any more.
    pub(crate) async fn replaced(&self, id: u64) {
        let mut state = self.state.subscribe();
        let replaced = |state: &State| !matches!(state, State::Up(live) if live.id == id);
        // The sender lives as long as `self`.
        let _ = state.wait_for(replaced).await;
    }

    /// Makes a call and waits for its answer until `by`.
    ///
    /// A call that was certainly not executed because of this one member is made on another.
    /// Otherwise the failure's meaning tells whether it may have been executed.
    pub(crate) async fn call<T, F: Future<Output = Result<T, etcd_client::Error>> + Send>(
        &self,
        op: &'static str,
        by: BootInstant,
        make: impl Fn(&Calls) -> F + Send + Sync,
    ) -> Result<T, Stopped> {
        let mut fresh_token = false;
        loop {
            let live = self.ready(op, by).await.map_err(Stopped::Early)?;
            let failure = match self.answered(&live, by, make(&live.calls)).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => Failure::from(error),
                None => {
                    self.lost(live.id, "no answer in time");
                    return Err(Stopped::Silent);
                }
            };
            match failure.meaning {
                Meaning::Elsewhere => self.lost(live.id, "this member cannot serve"),
                Meaning::StaleToken if !fresh_token => {
                    fresh_token = true;
                    let again = self.clock.timeout_at(by, live.calls.log_in_again()).await;
                    if let Some(Err(failure)) = again {
                        return Err(Stopped::Failed(failure));
                    }
                }
                _ => {
                    if failure.meaning == Meaning::Unknown {
                        self.suspect(&live);
                    }
                    return Err(Stopped::Failed(failure));
                }
            }
        }
    }

    /// Awaits an answer; one that is slow has the connection looked at meanwhile.
    async fn answered<F: Future>(
        &self,
        live: &Live,
        by: BootInstant,
        answer: F,
    ) -> Option<F::Output> {
        let mut answer = std::pin::pin!(answer);
        let patience = by.min(self.clock.now() + PATIENCE);
        if let Some(answer) = self.clock.timeout_at(patience, &mut answer).await {
            return Some(answer);
        }
        self.suspect(live);
        self.clock.timeout_at(by, answer).await
    }

    /// Has the connection looked at, if it is the one in use and is not being looked at already.
    fn suspect(&self, live: &Live) {
        let current = matches!(&*self.state.borrow(), State::Up(now) if now.id == live.id);
        if current && !self.suspected.swap(true, Ordering::AcqRel) {
            // Wakes the supervisor; the state is what it was.
            self.state.send_modify(|_| ());
        }
    }

    /// Gives up the connection `id`, if it is still the one in use.
    pub(crate) fn lost(&self, id: u64, why: &'static str) {
        let mut member = None;
        self.state.send_if_modified(|state| match state {
            State::Up(live) if live.id == id => {
                member = Some(live.member);
                *state = State::Away(None);
                true
            }
            _ => false,
        });
        if let Some(member) = member {
            tracing::info!(
                member = self.members[member].address(),
                why,
                "connection lost"
            );
            // Another member is tried first.
            self.first
                .store((member + 1) % self.members.len(), Ordering::Relaxed);
            self.tell(Change::Lost);
        }
    }

    /// Ends everything. What is waited for fails.
    pub(crate) fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    /// Replaces the connection whenever it is lost, until [`close`](Self::close).
    pub(crate) async fn supervise(self: Arc<Self>) {
        let mut pause = BACKOFF.0;
        loop {
            let since = self.clock.now();
            let Some(live) = self.up().await else { return };
            self.watch_over(&live).await;
            if self.clock.now().saturating_since(since) >= STABLE {
                pause = BACKOFF.0;
            }
            loop {
                if matches!(&*self.state.borrow(), State::Closed) {
                    return;
                }
                // Not all clients of a server that comes back at the same instant.
                self.clock.sleep(jittered(pause)).await;
                pause = (pause * 2).min(BACKOFF.1);
                match self.establish().await {
                    Ok(live) => {
                        let member = self.members[live.member].address();
                        tracing::info!(member, "connected again");
                        if !self.replace_away(State::Up(live)) {
                            return;
                        }
                        self.tell(Change::Up);
                        break;
                    }
                    Err(error) => {
                        let permanent = is_permanent(&error);
                        tracing::debug!(%error, "still away");
                        if !self.replace_away(State::Away(Some(error))) {
                            return;
                        }
                        if permanent {
                            self.clock.sleep(jittered(DENIED_PAUSE)).await;
                        }
                    }
                }
            }
        }
    }

    /// Whether the client is still open.
    fn replace_away(&self, next: State) -> bool {
        self.state.send_if_modified(|state| {
            let open = !matches!(state, State::Closed);
            if open {
                *state = next;
            }
            open
        })
    }

    /// Returns when the connection is lost; has a look at it whenever somebody suspects it.
    async fn watch_over(&self, live: &Live) {
        let mut state = self.state.subscribe();
        loop {
            if !matches!(&*state.borrow_and_update(), State::Up(now) if now.id == live.id) {
                return;
            }
            if self.suspected.load(Ordering::Acquire) {
                let looked = self
                    .clock
                    .timeout(PROOF, self.prove(live.member, &live.calls))
                    .await;
                self.suspected.store(false, Ordering::Release);
                match looked {
                    Some(Ok(())) => {}
                    Some(Err(_)) => self.lost(live.id, "broken"),
                    None => self.lost(live.id, "silent"),
                }
                continue;
            }
            // The sender lives as long as `self`.
            let _ = state.changed().await;
        }
    }

    /// Connects to the first member that works, within the call timeout.
    async fn establish(&self) -> Result<Live> {
        let by = self.clock.now() + self.call_timeout;
        let first = self.first.load(Ordering::Relaxed);
        let count = self.members.len();
        let mut waiting = (0..count).map(|offset| (first + offset) % count);
        let mut trying = FuturesUnordered::new();
        let mut failed: Option<Error> = None;
        trying.extend(waiting.next().map(|member| self.attempt(member)));
        while !trying.is_empty() {
            let next_one = self.clock.now() + STAGGER;
            let until = if waiting.len() > 0 {
                next_one.min(by)
            } else {
                by
            };
            match self.clock.timeout_at(until, trying.next()).await {
                Some(Some(Ok(live))) => return Ok(live),
                Some(Some(Err(error))) => {
                    tracing::debug!(%error, "a member cannot be used");
                    // What an operator has to put right says more than who else did not answer.
                    if failed.as_ref().is_none_or(|before| !is_permanent(before)) {
                        failed = Some(error);
                    }
                }
                Some(None) => {}
                None if self.clock.now() >= by => break,
                None => {}
            }
            trying.extend(waiting.next().map(|member| self.attempt(member)));
        }
        Err(failed.unwrap_or_else(|| {
            let members: Vec<_> = self.members.iter().map(Member::address).collect();
            unavailable(
                "connect",
                format!(
                    "no answer within {:?} from {}",
                    self.call_timeout,
                    members.join(", ")
                ),
            )
        }))
    }

    async fn attempt(&self, member: usize) -> Result<Live> {
        let calls = self.members[member].dial().await?;
        self.prove(member, &calls).await?;
        Ok(Live {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            calls,
            member,
        })
    }

    /// Proves that the member can talk to a quorum, and that our rights reach that far.
    async fn prove(&self, member: usize, calls: &Calls) -> Result<()> {
        let mut kv = calls.kv();
        let options = GetOptions::new().with_count_only();
        let answer = kv
            .get(self.probe.clone(), Some(options))
            .await
            .map_err(|source| Failure::from(source).of_member(self.members[member].address()))?;
        calls.heard(answer.header());
        Ok(())
    }

    fn tell(&self, change: Change) {
        // Nobody follows any more when the client is being closed.
        let _ = self.changes.send(change);
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// There was no connection: nothing was sent.
    Early(Error),
    /// By an error that the server or the client library reported.
    Failed(Failure),
    /// By silence.
    Silent,
}

impl Stopped {
    /// Whether the request was certainly not executed, and will not be.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Early(_) => true,
            Self::Failed(failure) => failure.meaning != Meaning::Unknown,
            Self::Silent => false,
        }
    }

    /// Whether it failed because its lease does not exist.
    pub(crate) fn is_lease_gone(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.meaning == Meaning::LeaseGone)
    }

    pub(crate) fn into_error(self, op: &'static str) -> Error {
        match self {
            Self::Early(error) => error,
            Self::Failed(failure) => failure.into_error(op),
            Self::Silent => {
                Error::new(ErrorKind::Indeterminate, op).with_detail("no answer in time")
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op)
}

fn away(kind: ErrorKind, op: &'static str, why: Option<&Error>) -> Error {
    let error = Error::new(kind, op);
    match why {
        Some(why) => error.with_detail(why.to_string()).with_source(why.clone()),
        None => error.with_detail("no connection"),
    }
}

/// Whether only an operator can change it.
fn is_permanent(error: &Error) -> bool {
    !error.is_retryable()
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
