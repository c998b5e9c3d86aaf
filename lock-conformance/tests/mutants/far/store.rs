//! What the server has stored: the memory backend, asked one thing after the other, so that what it decides
//! can be written down.
//!
//! Memory hands a lock off for its whole lease. A server whose clients are somewhere else does so for a claim
//! window: who has not confirmed by a renewal in that time is as good as dead. That is added here, where a
//! case asks for it.

use std::future::poll_fn;

use lock_conformance::Standing as Record;
use lock_conformance::history;
use lock_core::HolderState;

use crate::prelude::*;

/// The locks, and the ledger that is kept beside them.
#[derive(Clone, Debug)]
pub(super) struct Store {
    memory: MemoryStore,
    ledger: Arc<Ledger>,
}

impl Store {
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            memory: MemoryStore::new(),
            ledger,
        }
    }
}

#[async_trait]
impl Connect for Store {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Stored {
            clock: context.clock.clone(),
            memory: self.memory.connect(context).await?,
            ledger: Arc::clone(&self.ledger),
        }))
    }
}

/// What a server writes down beside its locks. It outlives a store that is lost.
#[derive(Debug)]
pub(super) struct Ledger {
    /// For how long a lock is handed off.
    window: Option<Duration>,
    pages: Shared<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    /// Those who came into the queue and have not confirmed since.
    unconfirmed: HashMap<Nonce, Claim>,
    /// Who has held what, once a witness is called.
    record: Option<Record>,
}

impl Pages {
    /// Whatever this claim is granted from now on is handed to it.
    fn queue(&mut self, claim: &Claim) {
        self.unconfirmed.insert(claim.nonce, claim.clone());
    }
}

impl Ledger {
    pub(super) fn new(window: Option<Duration>) -> Self {
        Self {
            window,
            pages: Shared::default(),
        }
    }

    pub(super) fn call_witness(&self) {
        self.pages.lock().record = Some(Record::default());
    }

    /// What the witness has seen; it goes with that.
    pub(super) fn records(&self) -> Vec<history::Record> {
        let record = self.pages.lock().record.take();
        record.map(Record::into_records).unwrap_or_default()
    }
}

/// One connection to the store.
#[derive(Debug)]
struct Stored {
    clock: Clock,
    memory: Arc<dyn Backend>,
    ledger: Arc<Ledger>,
}

impl Stored {
    /// Does one thing with a lock: nothing comes between it and the looks before and after.
    fn step<T>(&self, name: &LockName, work: impl FnOnce(&mut Pages) -> T) -> T {
        self.step_with(&[name], work)
    }

    fn step_with<T>(&self, names: &[&LockName], work: impl FnOnce(&mut Pages) -> T) -> T {
        let mut pages = self.ledger.pages.lock();
        names.iter().for_each(|name| self.look(name, &mut pages));
        let answer = work(&mut pages);
        names.iter().for_each(|name| self.look(name, &mut pages));
        answer
    }

    /// Ends hand-offs that are overdue, and writes down who holds.
    fn look(&self, name: &LockName, pages: &mut Pages) {
        if self.ledger.window.is_none() && pages.record.is_none() {
            // A thousand locks are renewed at once, on a machine that has other things to do.
            return;
        }
        while let Some(dead) = self.overdue(name, pages) {
            pages.unconfirmed.remove(&dead.nonce);
            drop(at_once(self.memory.release(&dead)));
        }
        let holder = self.holder(name);
        if let Some(record) = &mut pages.record {
            record.set(name.as_str(), holder.map(|holder| holder.token.get()));
        }
    }

    fn holder(&self, name: &LockName) -> Option<HolderState> {
        let state = at_once(self.memory.inspect(name)).expect("memory shows what it has");
        state.holders.into_iter().next()
    }

    /// Who was handed the lock and has let the claim window pass.
    fn overdue(&self, name: &LockName, pages: &Pages) -> Option<Claim> {
        let (window, holder) = (self.ledger.window?, self.holder(name)?);
        let claim = pages.unconfirmed.get(&holder.nonce)?;
        (holder.age >= window).then(|| claim.clone())
    }

    /// The grant as it is told: less than it looks like if it was handed off.
    fn handed(&self, grant: Grant, pages: &Pages) -> Grant {
        let claim = grant.claim();
        let waited = pages.unconfirmed.contains_key(&claim.nonce);
        match (self.ledger.window, self.holder(&claim.name)) {
            (Some(window), Some(holder)) if waited && window < claim.ttl => {
                let now = self.clock.now();
                let left = window.saturating_sub(holder.age);
                let validity = Validity::new(now, now, left);
                Grant::new(claim, grant.token(), validity).provisional()
            }
            _ => grant,
        }
    }
}

/// Memory has nothing to wait for but a lock.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("memory answers at once")
}

#[async_trait]
impl Backend for Stored {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        self.step(&claim.name, |_| at_once(self.memory.try_acquire(claim)))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        let mut acquiring = self.memory.acquire(claim);
        poll_fn(|cx| {
            self.step(&claim.name, |pages| {
                let polled = acquiring.poll_unpin(cx);
                if polled.is_pending() {
                    pages.queue(claim);
                }
                polled.map_ok(|grant| self.handed(grant, pages))
            })
        })
        .await
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let names: Vec<_> = grants.iter().map(|grant| &grant.claim().name).collect();
        self.step_with(&names, |pages| {
            for grant in grants {
                pages.unconfirmed.remove(&grant.claim().nonce);
            }
            at_once(self.memory.renew(grants))
        })
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        self.step(&claim.name, |pages| {
            pages.unconfirmed.remove(&claim.nonce);
            at_once(self.memory.release(claim))
        })
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        self.step(&held.name, |pages| {
            pages.unconfirmed.remove(&held.nonce);
            let passed = at_once(self.memory.pass(held, next))?;
            if matches!(passed.next, Standing::Queued) {
                pages.queue(next);
            }
            Ok(passed)
        })
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        self.step(&waiting.name, |pages| {
            pages.unconfirmed.remove(&waiting.nonce);
            let replaced = at_once(self.memory.replace(waiting, next))?;
            if matches!(replaced, Replaced::Now(Standing::Queued)) {
                pages.queue(next);
            }
            Ok(replaced)
        })
    }

    fn events(&self) -> BoxStream<'static, Event> {
        self.memory.events()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        self.step(name, |_| at_once(self.memory.inspect(name)))
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        self.memory.list(prefix, cursor).await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        self.step(name, |_| at_once(self.memory.break_hold(name, token)))
    }

    async fn close(&self) -> Result<()> {
        self.memory.close().await
    }
}
