//! What a case stands on: its arena, its clients, its history, and how it waits.

use std::fmt::Debug;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use lock_core::{
    Backend, Capabilities, Claim, ClientOptions, Clock, Connect, Context, Error, FencingToken,
    Guard, Identity, Lease, LockName, LockState, Locks, Released, Result as LockResult, Stats,
};

use crate::case::{Case, Failure, Fault, Outcome};
use crate::faketime::WallClocks;
use crate::harness::{Arena, Faults, Harness, Pace};
use crate::history::{Left, Recorder, Refusal, What};
use crate::missing::missing_is_allowed;
use crate::worker::{Worker, Workers};

/// Long enough for anything that is not broken, and far below [`LONG`].
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// A TTL that no case waits for: whatever happens sooner did not happen because of it.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Where one run of one case happens. Clones share it.
#[derive(Clone)]
pub struct Stand(Arc<Inner>);

impl Debug for Stand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stand").field(&self.0.case).finish()
    }
}

struct Inner {
    case: Case,
    harness: Arc<dyn Harness>,
    arena: Arena,
    capabilities: Capabilities,
    recorder: Recorder,
    clients: AtomicUsize,
}

impl Stand {
    pub(crate) fn new(
        case: Case,
        harness: Arc<dyn Harness>,
        arena: Arena,
        capabilities: Capabilities,
        recorder: Recorder,
    ) -> Self {
        Self(Arc::new(Inner {
            case,
            harness,
            arena,
            capabilities,
            recorder,
            clients: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn pace(&self) -> Pace {
        self.0.harness.pace()
    }

    /// The shortest comfortable TTL.
    pub(crate) fn ttl(&self) -> Duration {
        self.pace().ttl
    }

    /// A TTL that a keeper keeps up with on a machine that is also compiling something.
    pub(crate) fn kept_ttl(&self) -> Duration {
        self.pace().ttl * 3
    }

    /// A lease of `ttl` that nobody renews, or the longest there is. Where a session carries every hold
    /// it ends no later than the session, and a case that wants more of it gets that.
    pub(crate) fn fixed(&self, ttl: Duration) -> Duration {
        let range = self.capabilities().ttl_of(Lease::Fixed);
        range.map_or(ttl, |range| ttl.min(range.max))
    }

    pub(crate) fn slack(&self) -> Duration {
        self.pace().slack
    }

    /// When a holder that died is replaced at the latest, as far as the machine is quick.
    pub(crate) fn replaced_within(&self, ttl: Duration) -> Duration {
        ttl + self.capabilities().expiry_slack + self.slack() + Duration::from_secs(2)
    }

    pub(crate) fn claim_window(&self) -> Duration {
        self.capabilities().claim_window.unwrap_or_default()
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// A lock name of this case.
    pub(crate) fn name(&self, label: &str) -> String {
        format!("{}/{label}", self.0.case.id)
    }

    pub(crate) fn faults(&self) -> &dyn Faults {
        self.0
            .arena
            .faults
            .as_deref()
            .expect("the runner gives a case that needs a fault an arena that has it")
    }

    pub(crate) fn supports(&self, fault: Fault) -> bool {
        self.0.harness.supports(fault)
    }

    /// Whether its arena was made for this fault.
    pub(crate) fn injects(&self, fault: Fault) -> bool {
        self.0.case.injects(fault)
    }

    /// Whether there can be worker processes here.
    pub(crate) fn crosses_processes(&self) -> bool {
        self.0.harness.crosses_processes() && self.0.arena.spec.is_some()
    }

    /// Whether something stands in the middle of proxied connections.
    pub(crate) fn is_proxied(&self) -> bool {
        self.0.arena.proxied.is_some()
    }

    pub(crate) fn options(&self) -> ClientOptions {
        self.0
            .arena
            .options
            .clone()
            .with_op_timeout(self.pace().op_timeout)
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> LockResult<Client> {
        self.client_with(self.options()).await
    }

    pub(crate) async fn client_with(&self, options: ClientOptions) -> LockResult<Client> {
        self.open((self.0.arena.connector)(), options).await
    }

    /// A client whose connection the arena's faults act on.
    pub(crate) async fn proxied_client(&self) -> LockResult<Client> {
        self.proxied_client_with(self.options()).await
    }

    pub(crate) async fn proxied_client_with(&self, options: ClientOptions) -> LockResult<Client> {
        let client = self.open(self.proxied_connector(), options).await?;
        // What a backend uploads on first use is there before a fault hits: otherwise the request
        // that a case catches would be an upload, and the case would prove nothing.
        let guard = client.mutex(self.name("warm")).ttl(LONG).acquire().await?;
        guard.renew().await?;
        guard.release().await?;
        Ok(client)
    }

    pub(crate) fn connector(&self) -> Box<dyn Connect> {
        (self.0.arena.connector)()
    }

    pub(crate) fn proxied_connector(&self) -> Box<dyn Connect> {
        let proxied = self.0.arena.proxied.as_ref();
        proxied.expect("an arena with faults of the connection has a proxied connector")()
    }

    async fn open(&self, connect: Box<dyn Connect>, options: ClientOptions) -> LockResult<Client> {
        let number = self.0.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Client {
            locks: Locks::open(connect, options).await?,
            who: format!("client {number}"),
            stand: self.clone(),
        })
    }

    /// The backend without core around it.
    pub(crate) async fn backend(&self) -> LockResult<Arc<dyn Backend>> {
        self.connector().connect(self.context()).await
    }

    pub(crate) fn context(&self) -> Context {
        let mut context = Context::new(self.identity());
        context.op_timeout = self.pace().op_timeout;
        context
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::of_this_process(self.0.case.id)
    }

    /// A claim for the backend without core around it.
    pub(crate) fn claim(&self, label: &str, ttl: Duration) -> Claim {
        let name = LockName::new(&self.name(label)).expect("case names are good names");
        Claim::new(name, self.identity(), ttl)
    }

    /// Starts so many worker processes.
    pub(crate) async fn workers(&self, count: usize) -> Result<Vec<Worker>, Failure> {
        self.starting()?.start(count).await
    }

    fn starting(&self) -> Result<Workers, Failure> {
        let spec = self.0.arena.spec.as_deref();
        let spec = spec.ok_or_else(|| {
            Failure::new("the harness crosses processes, but this arena has no spec")
        })?;
        Ok(Workers::new(spec, self.pace(), self.recorder().clone()))
    }

    /// Starts so many worker processes, each with a wall clock of its own. When that is impossible here and
    /// was allowed to be, what the case answers.
    pub(crate) async fn workers_with_clocks(
        &self,
        count: usize,
    ) -> Result<Result<Vec<Worker>, Outcome>, Failure> {
        let clocks = match WallClocks::new()? {
            Some(clocks) => clocks,
            None if missing_is_allowed(WallClocks::NAME) => {
                return Ok(Err(Outcome::Skipped(WallClocks::missing())));
            }
            None => return Err(Failure::new(WallClocks::missing())),
        };
        let starting = self.starting()?.with_wall_clocks(clocks);
        starting.start(count).await.map(Ok)
    }

    /// Looks until `probe` answers something.
    pub(crate) async fn eventually<T, F: Future<Output = LockResult<Option<T>>>>(
        &self,
        what: &str,
        within: Duration,
        mut probe: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let clock = Clock::system();
        let deadline = clock.now() + within;
        let mut last = String::new();
        loop {
            match probe().await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => last = format!("; last error: {error:?}"),
            }
            if clock.now() >= deadline {
                return Err(Failure::new(format!("not within {within:?}: {what}{last}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks until `client` sees a state of the lock that `wanted` accepts.
    pub(crate) async fn until_state(
        &self,
        client: &Locks,
        name: &str,
        what: &str,
        wanted: impl Fn(&LockState) -> bool,
    ) -> Result<LockState, Failure> {
        let seen = std::sync::Mutex::new(None);
        let found = self
            .eventually(what, SOON, || async {
                let state = client.inspect(name).await?;
                *seen.lock().expect("not poisoned") = Some(state.clone());
                Ok(Some(state).filter(|state| wanted(state)))
            })
            .await;
        found.map_err(|failure| {
            let seen = seen.into_inner().expect("not poisoned");
            Failure::new(format!("{failure}; last seen: {seen:#?}"))
        })
    }

    /// Looks until so many waiters stand in the backend's queue.
    pub(crate) async fn until_queued(
        &self,
        client: &Locks,
        name: &str,
        waiters: usize,
    ) -> Result<LockState, Failure> {
        let what = format!("{waiters} waiters in the queue of {name:?}");
        self.until_state(client, name, &what, |state| state.waiters.len() == waiters)
            .await
    }

    /// Waits until `client` has heard what it was answered before this, such as that it stands in the queue for
    /// `name`. The server knows that earlier; who is cut off in between does not know what became of its
    /// request, and rightly gives it up.
    pub(crate) async fn until_heard(&self, client: &Locks, name: &str) -> LockResult<()> {
        client.inspect(name).await.map(drop)
    }

    /// **P6**: nobody holds, nobody waits, and the lock can be had at once.
    pub(crate) async fn at_rest(&self, name: &str) -> Result<(), Failure> {
        let witness = self.client().await?;
        self.until_state(&witness, name, &format!("{name:?} at rest"), |state| {
            state.holders.is_empty() && state.waiters.is_empty()
        })
        .await?;
        let guard = witness.mutex(name).ttl(LONG).try_acquire().await?;
        let guard = guard
            .ok_or_else(|| Failure::new(format!("{name:?} shows no holder, and yet is refused")))?;
        released_clean(guard.release().await?)?;
        witness.shutdown(SOON).await?;
        Ok(())
    }

    /// Looks until the client has nothing going on but what `idle` had.
    pub(crate) async fn until_idle(&self, locks: &Locks) -> Result<(), Failure> {
        self.eventually("a client with nothing going on", SOON, || async {
            let Stats {
                lines,
                holds,
                cleanups,
                ..
            } = locks.stats();
            Ok((lines == 0 && holds == 0 && cleanups == 0).then_some(()))
        })
        .await
        .map_err(|failure| Failure::new(format!("{failure}: {:?}", locks.stats())))
    }
}

/// A client that writes down what it sees.
#[derive(Clone)]
pub(crate) struct Client {
    locks: Locks,
    pub(crate) who: String,
    stand: Stand,
}

impl Deref for Client {
    type Target = Locks;

    fn deref(&self) -> &Locks {
        &self.locks
    }
}

impl Client {
    /// Waits for the lock, with a kept lease of `ttl`.
    pub(crate) async fn hold_for(&self, name: &str, ttl: Duration) -> LockResult<Guard> {
        let asked = self.stand.recorder().now();
        let guard = self.locks.mutex(name).ttl(ttl).acquire().await;
        self.saw(name, asked, guard.map(Some))
            .map(|guard| guard.expect("there was one"))
    }

    /// Waits for the lock, with a kept lease that no case waits for.
    pub(crate) async fn hold(&self, name: &str) -> LockResult<Guard> {
        self.hold_for(name, LONG).await
    }

    /// Waits for the lock, with a lease of `ttl` that nobody renews.
    pub(crate) async fn hold_fixed(&self, name: &str, ttl: Duration) -> LockResult<Guard> {
        let asked = self.stand.recorder().now();
        let guard = self.locks.mutex(name).ttl(ttl).fixed().acquire().await;
        self.saw(name, asked, guard.map(Some))
            .map(|guard| guard.expect("there was one"))
    }

    /// Tries once.
    pub(crate) async fn attempt(&self, name: &str) -> LockResult<Option<Guard>> {
        let asked = self.stand.recorder().now();
        let guard = self.locks.mutex(name).ttl(LONG).try_acquire().await;
        self.saw(name, asked, guard)
    }

    /// Waits for the lock for at most `within`.
    pub(crate) async fn hold_within(
        &self,
        name: &str,
        within: Duration,
    ) -> LockResult<Option<Guard>> {
        let asked = self.stand.recorder().now();
        let guard = self
            .locks
            .mutex(name)
            .ttl(LONG)
            .acquire_within(within)
            .await;
        self.saw(name, asked, guard)
    }

    /// Gives the lock up, and writes down both ends of that.
    pub(crate) async fn give_up(&self, guard: Guard) -> LockResult<Released> {
        let token = guard.token().get();
        let name = guard.name().as_str().to_owned();
        self.note(&name, What::Releasing { token });
        let released = guard.release().await;
        let how = Left::from(&released);
        self.note(&name, What::Released { token, how });
        released
    }

    /// Asks whether the guard is still good, and writes the answer down.
    pub(crate) fn still_held(&self, guard: &Guard) -> bool {
        let began = self.stand.recorder().now();
        let valid = guard.check().is_ok();
        let token = guard.token().get();
        self.note(
            guard.name().as_str(),
            What::Checked {
                began,
                token,
                valid,
            },
        );
        valid
    }

    pub(crate) fn note(&self, name: &str, what: What) {
        self.stand.recorder().record(&self.who, name, what);
    }

    fn saw(
        &self,
        name: &str,
        asked: Duration,
        guard: LockResult<Option<Guard>>,
    ) -> LockResult<Option<Guard>> {
        self.note(
            name,
            match &guard {
                Ok(Some(guard)) => What::Granted {
                    asked,
                    token: guard.token().get(),
                },
                Ok(None) => What::Refused {
                    asked,
                    why: Refusal::Busy,
                },
                Err(error) => What::Refused {
                    asked,
                    why: error.into(),
                },
            },
        );
        guard
    }
}

/// Fails unless `held`, with what it means.
#[track_caller]
pub(crate) fn ensure(held: bool, what: impl Into<String>) -> Result<(), Failure> {
    if held {
        return Ok(());
    }
    let at = std::panic::Location::caller();
    Err(Failure::new(format!("{} ({at})", what.into())))
}

/// Fails unless both are equal.
#[track_caller]
pub(crate) fn ensure_eq<T: Debug + PartialEq>(
    seen: T,
    wanted: T,
    what: &str,
) -> Result<(), Failure> {
    ensure(
        seen == wanted,
        format!("{what}: seen {seen:?}, wanted {wanted:?}"),
    )
}

/// Fails unless the error is of one of these kinds.
#[track_caller]
pub(crate) fn ensure_kind<T: Debug>(
    result: LockResult<T>,
    wanted: &[lock_core::ErrorKind],
    what: &str,
) -> Result<Error, Failure> {
    match result {
        Err(error) if wanted.contains(&error.kind()) => Ok(error),
        other => {
            let at = std::panic::Location::caller();
            Err(Failure::new(format!(
                "{what}: seen {other:?}, wanted an error of {wanted:?} ({at})"
            )))
        }
    }
}

/// Fails unless the lock was given up by its holder.
#[track_caller]
pub(crate) fn released_clean(released: Released) -> Result<(), Failure> {
    ensure(
        matches!(released, Released::Clean),
        format!("a clean release: seen {released:?}"),
    )
}

/// Runs `work`, for at most `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Failure::new(format!("not within {limit:?}: {what}")))
}

/// How long `work` takes.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let clock = Clock::system();
    let began = clock.now();
    let output = work.await;
    (output, clock.now().saturating_since(began))
}

/// Fails if the future is ready.
#[track_caller]
pub(crate) fn ensure_pending<T: Debug>(
    future: &mut (impl Future<Output = T> + Unpin),
    what: &str,
) -> Result<(), Failure> {
    match future.now_or_never() {
        None => Ok(()),
        Some(output) => {
            let at = std::panic::Location::caller();
            Err(Failure::new(format!(
                "{what}: it ended already, with {output:?} ({at})"
            )))
        }
    }
}

/// What a spawned task answered; its panic is this one's.
pub(crate) async fn joined<T>(
    task: tokio::task::JoinHandle<Result<T, Failure>>,
) -> Result<T, Failure> {
    match task.await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Failure::new(format!("a task of the case: {error}"))),
        },
    }
}

/// Fails unless the tokens grow from one to the next.
#[track_caller]
pub(crate) fn ensure_growing(tokens: &[FencingToken]) -> Result<(), Failure> {
    ensure(
        tokens.windows(2).all(|pair| pair[0] < pair[1]),
        format!("tokens grow: seen {tokens:?}"),
    )
}
