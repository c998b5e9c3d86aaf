//! The memory backend behind a layer that loses requests and replies on demand, and counts.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::stream::BoxStream;
use lock_core::{
    Backend, Capabilities, Claim, ClientOptions, Connect, Context, Cursor, Error, ErrorKind, Event,
    FencingToken, Grant, LockName, LockState, Locks, MemoryStore, Page, Passed, Reach, Renewal,
    Replaced, Result, Validity, async_trait,
};
use tokio::sync::Notify;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is refused before it is sent.
    Unsent,
    /// It is executed, and the connection breaks before the answer.
    ReplyLost,
    /// It never arrives, and no answer comes.
    BlackHole,
    /// It is executed, and no answer comes.
    Silent,
    /// Somebody else has given it up: an operator broke what it was about to get.
    GivenUp,
    /// The backend's own code panics.
    Panic,
    /// It takes this long to arrive.
    Slow(Duration),
    /// It is executed, and the answer stays away until [`Plan::deliver`].
    Late,
}

/// What each operation is to suffer next, and how often it was called.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    faults: Mutex<HashMap<&'static str, VecDeque<Fault>>>,
    calls: Mutex<HashMap<&'static str, usize>>,
    delivery: Notify,
}

impl Plan {
    /// Lets the answer of a request that is [`Fault::Late`] through.
    pub(crate) fn deliver(&self) {
        self.delivery.notify_one();
    }

    pub(crate) fn next(&self, op: &'static str, faults: &[Fault]) {
        self.faults
            .lock()
            .expect("no test panics while it holds this")
            .entry(op)
            .or_default()
            .extend(faults);
    }

    pub(crate) fn calls(&self, op: &'static str) -> usize {
        self.calls
            .lock()
            .expect("no test panics while it holds this")
            .get(op)
            .copied()
            .unwrap_or(0)
    }

    fn called(&self, op: &'static str) -> Option<Fault> {
        *self
            .calls
            .lock()
            .expect("no test panics while it holds this")
            .entry(op)
            .or_default() += 1;
        self.faults
            .lock()
            .expect("no test panics while it holds this")
            .get_mut(op)?
            .pop_front()
    }

    /// Runs `real` as the plan says.
    async fn through<T>(
        &self,
        op: &'static str,
        claim: Option<&Claim>,
        real: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fault = self.called(op);
        if matches!(fault, Some(Fault::Unsent)) {
            return Err(Error::new(ErrorKind::Unavailable, op));
        }
        if let Some(claim) = claim {
            claim.progress.report(Reach::Sent);
        }
        match fault {
            None | Some(Fault::Unsent) => real.await,
            Some(Fault::ReplyLost) => {
                real.await?;
                Err(Error::new(ErrorKind::Indeterminate, op))
            }
            Some(Fault::BlackHole) => pending().await,
            Some(Fault::Silent) => {
                real.await?;
                pending().await
            }
            Some(Fault::GivenUp) => Err(Error::new(ErrorKind::Lost, op)),
            Some(Fault::Panic) => panic!("a panic that the test planned"),
            Some(Fault::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                real.await
            }
            Some(Fault::Late) => {
                let answer = real.await;
                self.called("deliver");
                self.delivery.notified().await;
                answer
            }
        }
    }
}

/// A way to connect through the plan to a store.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    pub(crate) store: MemoryStore,
    pub(crate) plan: Arc<Plan>,
    ttl: bool,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            plan: Arc::default(),
            ttl: true,
        }
    }

    /// Takes any TTL, and keeps the longest that memory can.
    pub(crate) fn without_ttl(self) -> Self {
        Self { ttl: false, ..self }
    }

    pub(crate) async fn open(&self) -> Locks {
        self.open_with(ClientOptions::default().with_op_timeout(Duration::from_millis(300)))
            .await
    }

    pub(crate) async fn open_with(&self, options: ClientOptions) -> Locks {
        Locks::open(self.clone(), options)
            .await
            .expect("memory is always there")
    }

    /// A client of the same store with nothing in between.
    pub(crate) async fn open_plain(&self) -> Locks {
        Locks::open(self.store.clone(), ClientOptions::default())
            .await
            .expect("memory is always there")
    }
}

#[async_trait]
impl Connect for Faulty {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        let inner = self.store.connect(context).await?;
        Ok(Arc::new(FaultyBackend {
            inner,
            plan: Arc::clone(&self.plan),
            ttl: self.ttl,
        }))
    }
}

#[derive(Debug)]
struct FaultyBackend {
    inner: Arc<dyn Backend>,
    plan: Arc<Plan>,
    ttl: bool,
}

impl FaultyBackend {
    fn kept(&self, claim: &Claim) -> Claim {
        let mut claim = claim.clone();
        if !self.ttl {
            claim.ttl = claim.ttl.min(Duration::from_secs(3600));
        }
        claim
    }
}

#[async_trait]
impl Backend for FaultyBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.ttl = capabilities.ttl.filter(|_| self.ttl);
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        let trying = self.inner.try_acquire(claim);
        let grant = self
            .plan
            .through("try_acquire", Some(claim), trying)
            .await?;
        // A record of its own, as a backend with tools of its own keeps one.
        Ok(grant.map(|grant| grant.with_record(Arc::new(claim.nonce))))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        let kept = self.kept(claim);
        let acquiring = self.inner.acquire(&kept);
        let grant = self.plan.through("acquire", Some(claim), acquiring).await?;
        if self.ttl {
            return Ok(grant);
        }
        Ok(Grant::new(claim, grant.token(), Validity::unlimited()))
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let answers = self
            .plan
            .through("renew", None, async { Ok(self.inner.renew(grants).await) });
        match answers.await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); grants.len()],
        }
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        self.plan
            .through("release", None, self.inner.release(claim))
            .await
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        let next = self.kept(next);
        self.plan
            .through("pass", None, self.inner.pass(held, &next))
            .await
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        self.plan
            .through("replace", None, self.inner.replace(waiting, next))
            .await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        self.inner.events()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        self.plan
            .through("inspect", None, self.inner.inspect(name))
            .await
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        self.plan
            .through("list", None, self.inner.list(prefix, cursor))
            .await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        self.plan
            .through("break_hold", None, self.inner.break_hold(name, token))
            .await
    }

    async fn close(&self) -> Result<()> {
        self.plan.through("close", None, self.inner.close()).await
    }
}

/// Waits for `condition`, for a generous while.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Duration::from_secs(20);
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(deadline, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {deadline:?}"));
}

/// Nobody holds or waits for `name`, and the client has nothing left to do.
pub(crate) async fn at_rest(locks: &Locks, observer: &Locks, name: &str) {
    until("at rest", || async {
        let state = observer.inspect(name).await.expect("memory answers");
        let stats = locks.stats();
        state.holders.is_empty()
            && state.waiters.is_empty()
            && (stats.lines, stats.holds, stats.cleanups) == (0, 0, 0)
    })
    .await;
}
