//! The memory backend, bent in one place.
//!
//! A [`Bend`] answers every operation as the honest backend does, unless it overrides it. So a mutant is
//! written as the one thing that is wrong with it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use lock_conformance::async_trait;
use lock_core::{
    Backend, Capabilities, Claim, Clock, Connect, Context, Cursor, ErrorKind, Event, FencingToken,
    Grant, LockName, LockState, MemoryStore, Page, Passed, Renewal, Replaced, Result, Standing,
};

/// The claim window that is declared where there is one. A keeper on a busy machine keeps up with it.
pub(crate) const CLAIM_WINDOW: Duration = Duration::from_millis(600);

/// What a server goes through with all that it has, if it is honest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Upheaval {
    /// It is killed and comes back, or another one takes its place.
    Restart,
    /// Another member leads, in good order.
    MoveOfTheLeader,
    /// Its settings are changed.
    Reconfiguration,
}

/// What a mutant does instead of the honest thing. One serves all connections that a process has in an arena.
#[async_trait]
pub(crate) trait Bend: fmt::Debug + Send + Sync + 'static {
    /// The clock that clients are given instead of the system's.
    fn client_clock(&self) -> Option<Clock> {
        None
    }

    /// What the honest backend is connected with.
    fn context(&self, context: Context) -> Context {
        context
    }

    /// Whether a connection counts only once the server has answered.
    fn greets(&self) -> bool {
        true
    }

    /// What a client is told that has the wrong credentials.
    fn refusal(&self) -> ErrorKind {
        ErrorKind::Denied
    }

    /// Whether a server still has its data afterwards.
    fn survives(&self, _upheaval: Upheaval) -> bool {
        true
    }

    /// Whether a script that the server has forgotten is sent to it again.
    fn sends_scripts_again(&self) -> bool {
        true
    }

    /// For how long a lock is handed off where a claim window is declared.
    fn claim_window(&self) -> Duration {
        CLAIM_WINDOW
    }

    /// The clock on which the store measures leases.
    fn store_clock(&self) -> Clock {
        Clock::system()
    }

    /// Hears that the server's wall clock is so many seconds off from now on.
    fn wall_clock_set(&self, _seconds: i64) {}

    /// Hears that the server has forgotten its history.
    fn compacted(&self) {}

    /// What is stored beside the locks, without an end.
    fn keeps(&self) -> Vec<String> {
        Vec::new()
    }

    /// Hears of every connection that is made.
    fn connected(&self, _backend: &Arc<dyn Backend>) {}

    fn capabilities(&self, real: &Real) -> Capabilities {
        real.capabilities()
    }

    /// The name that is asked for instead.
    fn name(&self, name: &LockName) -> LockName {
        name.clone()
    }

    /// What is asked for instead.
    fn asked(&self, claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.name = self.name(&claim.name);
        asked
    }

    /// What the client is told of a grant.
    async fn told(&self, _real: &Real, claim: &Claim, grant: Grant) -> Grant {
        passed_on(claim, &grant)
    }

    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        Ok(match real.try_acquire(&self.asked(claim)).await? {
            Some(grant) => Some(self.told(real, claim, grant).await),
            None => None,
        })
    }

    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let grant = real.acquire(&self.asked(claim)).await?;
        Ok(self.told(real, claim, grant).await)
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let asked: Vec<Grant> = grants
            .iter()
            .map(|grant| Grant::new(&self.asked(grant.claim()), grant.token(), grant.validity()))
            .collect();
        let asked: Vec<&Grant> = asked.iter().collect();
        real.renew(&asked).await
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        real.release(&self.asked(claim)).await
    }

    async fn pass(&self, real: &Real, held: &Claim, next: &Claim) -> Result<Passed> {
        let passed = real.pass(&self.asked(held), &self.asked(next)).await?;
        let standing = self.told_standing(real, next, passed.next).await;
        Ok(Passed {
            released: passed.released,
            next: standing,
        })
    }

    async fn replace(&self, real: &Real, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let (waiting, asked) = (self.asked(waiting), self.asked(next));
        Ok(match real.replace(&waiting, &asked).await? {
            Replaced::Now(standing) => {
                Replaced::Now(self.told_standing(real, next, standing).await)
            }
            Replaced::Gone => Replaced::Gone,
        })
    }

    async fn told_standing(&self, real: &Real, claim: &Claim, standing: Standing) -> Standing {
        match standing {
            Standing::Granted(grant) => Standing::Granted(self.told(real, claim, grant).await),
            Standing::Queued => Standing::Queued,
        }
    }

    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        real.events()
    }

    async fn inspect(&self, real: &Real, name: &LockName) -> Result<LockState> {
        let mut state = real.inspect(&self.name(name)).await?;
        state.name = name.clone();
        Ok(state)
    }

    async fn list(&self, real: &Real, prefix: &str, cursor: Cursor) -> Result<Page> {
        real.list(prefix, cursor).await
    }

    async fn break_hold(&self, real: &Real, name: &LockName, token: FencingToken) -> Result<bool> {
        real.break_hold(&self.name(name), token).await
    }

    async fn close(&self, real: &Real) -> Result<()> {
        real.close().await
    }
}

/// The grant of what was asked for instead of `claim`, as one of `claim`.
pub(crate) fn passed_on(claim: &Claim, grant: &Grant) -> Grant {
    let same = Grant::new(claim, grant.token(), grant.validity());
    match grant.is_provisional() {
        true => same.provisional(),
        false => same,
    }
}

/// Bends nothing: what every case has to pass on.
#[derive(Debug, Default)]
pub(crate) struct Honest;

impl Bend for Honest {}

/// One connection to the honest backend.
#[derive(Debug)]
pub(crate) struct Real {
    backend: Arc<dyn Backend>,
    /// Which connection of its arena it is.
    pub(crate) number: usize,
    /// What shows the true time.
    pub(crate) clock: Clock,
    origin: Arc<dyn Connect>,
    context: Context,
}

impl Real {
    /// A further connection to the same place.
    pub(crate) async fn another(&self) -> Result<Arc<dyn Backend>> {
        self.origin.connect(self.context.clone()).await
    }
}

impl Deref for Real {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.backend
    }
}

/// Connects through a bend.
#[derive(Clone, Debug)]
pub(crate) struct ConnectBent {
    origin: Arc<dyn Connect>,
    bend: Arc<dyn Bend>,
    connections: Arc<AtomicUsize>,
}

impl ConnectBent {
    pub(crate) fn new(origin: Arc<dyn Connect>, bend: Arc<dyn Bend>) -> Self {
        Self {
            origin,
            bend,
            connections: Arc::default(),
        }
    }

    pub(crate) fn to_memory(bend: Arc<dyn Bend>) -> Self {
        Self::new(Arc::new(MemoryStore::new()), bend)
    }
}

#[async_trait]
impl Connect for ConnectBent {
    async fn connect(&self, mut context: Context) -> Result<Arc<dyn Backend>> {
        // Whatever the client's clock does: the store has one.
        context.clock = self.bend.store_clock();
        let context = self.bend.context(context);
        let bent: Arc<dyn Backend> = Arc::new(Bent {
            bend: Arc::clone(&self.bend),
            real: Real {
                backend: self.origin.connect(context.clone()).await?,
                number: self.connections.fetch_add(1, Ordering::Relaxed),
                clock: Clock::system(),
                origin: Arc::clone(&self.origin),
                context,
            },
        });
        self.bend.connected(&bent);
        Ok(bent)
    }
}

/// What core is given.
#[derive(Debug)]
struct Bent {
    bend: Arc<dyn Bend>,
    real: Real,
}

#[async_trait]
impl Backend for Bent {
    fn capabilities(&self) -> Capabilities {
        self.bend.capabilities(&self.real)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        self.bend.try_acquire(&self.real, claim).await
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        self.bend.acquire(&self.real, claim).await
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        self.bend.renew(&self.real, grants).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        self.bend.release(&self.real, claim).await
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        self.bend.pass(&self.real, held, next).await
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        self.bend.replace(&self.real, waiting, next).await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        self.bend.events(&self.real)
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        self.bend.inspect(&self.real, name).await
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        self.bend.list(&self.real, prefix, cursor).await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        self.bend.break_hold(&self.real, name, token).await
    }

    async fn close(&self) -> Result<()> {
        self.bend.close(&self.real).await
    }
}
