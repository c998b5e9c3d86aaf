//! Locks in the memory of one process: the reference model of the contract, and what doctests,
//! examples and tests run on.
//!
//! `memory/table.rs` is the whole behaviour, without waiting: time goes in, answers come out. This
//! file is the backend around it. There is no task in the background: whoever uses the store ends
//! the leases that are over, and every waiter sleeps until the lease in front of it ends.

mod spent;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use self::table::{Client, Outlook, Table};
use crate::backend::{Backend, Connect, Context, Event};
use crate::capability::{Capabilities, CrashRelease, FenceStrength, Scope, TtlRange, WaitOrder};
use crate::claim::{Claim, Mode, Reach};
use crate::clock::{BootInstant, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::grant::{Grant, Passed, Renewal, Replaced};
use crate::name::LockName;
use crate::registry::Registry;
use crate::state::{Cursor, LockState, Page};
use crate::token::FencingToken;
use crate::url::LockUrl;

const SCHEME: &str = "memory";
const TTL: TtlRange = TtlRange {
    min: Duration::from_millis(10),
    max: Duration::from_secs(24 * 60 * 60),
    step: Duration::from_nanos(1),
};
/// What the runtime may take to wake a waiter whose time has come.
const EXPIRY_SLACK: Duration = Duration::from_millis(50);
/// Above the largest base there is room for more grants than a machine can make.
const LARGEST_BASE: u64 = 1 << 62;

/// Locks in memory, shared by everybody who has a clone.
///
/// Clients that are connected to clones of one store exclude each other; two stores have nothing to
/// do with each other, and `memory://` makes a new one for each client. All clients of one store
/// must be given the same clock.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Table>>);

impl MemoryStore {
    /// A store without locks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `memory://` to a registry. Each connect by URL has a store of its own.
    #[must_use]
    pub fn register(registry: Registry) -> Registry {
        registry.with(SCHEME, Self::read)
    }

    fn read(url: &mut LockUrl) -> Result<Box<dyn Connect>> {
        let bare = url.hosts().is_empty() && matches!(url.path(), "" | "/");
        if !bare || url.username().is_some() || url.password().is_some() {
            return Err(Error::new(ErrorKind::Invalid, "connect").with_detail(
                "memory:// has no user, host or path: it is private to its client; \
                 clients that share locks share a MemoryStore",
            ));
        }
        Ok(Box::new(Self::new()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between statements that can panic, and there are none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for MemoryStore {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(MemoryBackend::new(self.clone(), context)?))
    }
}

/// One client of a store.
struct MemoryBackend {
    store: MemoryStore,
    clock: Clock,
    client: Client,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

impl MemoryBackend {
    fn new(store: MemoryStore, context: Context) -> Result<Self> {
        if context.fence_base > LARGEST_BASE {
            return Err(Error::new(ErrorKind::Invalid, "connect")
                .with_detail(format!("fence_base has to be at most {LARGEST_BASE}")));
        }
        let (client, events) = Client::new(context.fence_base);
        Ok(Self {
            store,
            clock: context.clock,
            client,
            events: Mutex::new(Some(events)),
        })
    }

    /// The table as it is now: leases that are over have ended.
    ///
    /// The clock is read under the mutex, so that the table sees time in order.
    fn now(&self) -> (MutexGuard<'_, Table>, BootInstant) {
        let mut table = self.store.table();
        let now = self.clock.now();
        table.settle(now);
        (table, now)
    }
}

/// Refuses what this backend does not serve.
fn check(claim: &Claim, op: &'static str) -> Result<()> {
    let refuse = |kind, why| Err(Error::new(kind, op).with_name(&claim.name).with_detail(why));
    match (claim.mode, TTL.refusal(claim.ttl)) {
        (Mode::Exclusive, None) => Ok(()),
        (Mode::Exclusive, Some(why)) => refuse(ErrorKind::Invalid, why),
        (Mode::Shared | Mode::Permit { .. }, _) => refuse(
            ErrorKind::Unsupported,
            "the memory backend has exclusive locks only".to_owned(),
        ),
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::least(SCHEME);
        capabilities.linearizable = true;
        capabilities.fence = FenceStrength::Linearizable;
        capabilities.wait_order = WaitOrder::Fifo;
        capabilities.crash_release = CrashRelease::Ttl;
        capabilities.scope = Scope::Process;
        capabilities.ttl = Some(TTL);
        capabilities.expiry_slack = EXPIRY_SLACK;
        capabilities.list = true;
        capabilities.break_hold = true;
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        check(claim, "try_acquire")?;
        claim.progress.report(Reach::Sent);
        let (mut table, now) = self.now();
        table.try_grant(claim, &self.client, now)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        check(claim, "acquire")?;
        if claim.progress.reach() == Reach::Unsent {
            claim.progress.report(Reach::Sent);
        }
        loop {
            let outlook = {
                let (mut table, now) = self.now();
                table.stand(claim, &self.client, now)?
            };
            let (mut alarm, until) = match outlook {
                Outlook::Granted(grant) => return Ok(grant),
                Outlook::Waiting { alarm, until } => (alarm, until),
            };
            claim.progress.report(Reach::Queued);
            tokio::select! {
                biased;
                // An error says that the place is gone: granted, or given up. Both are looked up.
                _ = alarm.changed() => {}
                () = self.clock.sleep_until(until) => {}
            }
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let (mut table, now) = self.now();
        grants
            .iter()
            .map(|grant| Ok(table.renew(grant.claim(), now)))
            .collect()
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let (mut table, now) = self.now();
        Ok(table.remove(claim, now))
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        check(next, "pass")?;
        let (mut table, now) = self.now();
        table.pass(held, next, &self.client, now)
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        check(next, "replace")?;
        let (mut table, now) = self.now();
        table.replace(waiting, next, now)
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let events = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match events {
            Some(events) => futures_util::stream::unfold(events, |mut events| async move {
                events.recv().await.map(|event| (event, events))
            })
            .boxed(),
            None => futures_util::stream::pending().boxed(),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let (table, now) = self.now();
        Ok(table.inspect(name, now))
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        let (table, _) = self.now();
        Ok(table.list(prefix, &cursor))
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        let (mut table, now) = self.now();
        Ok(table.break_hold(name, token, now))
    }

    /// Takes this client's waiters out of the queues. Its holds end with their leases, as they would
    /// on a server.
    async fn close(&self) -> Result<()> {
        self.store.table().leave(&self.client);
        Ok(())
    }
}

impl Drop for MemoryBackend {
    /// A client that vanished without a word does not wait any more.
    fn drop(&mut self) {
        self.store.table().leave(&self.client);
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
