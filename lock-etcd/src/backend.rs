//! The backend: the trait, and what it promises.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use lock_core::{
    Backend, Capabilities, Claim, Context, CrashRelease, Cursor, Error, ErrorKind, Event,
    FenceStrength, FencingToken, Grant, LockName, LockState, Mode, Page, Passed, Renewal, Replaced,
    Result, Scope, Standing, TtlRange, WaitOrder, async_trait,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::book::{Book, Outcome};
use crate::client::{Ask, Client};
use crate::config::EtcdConfig;
use crate::connection::{Change, Connection};
use crate::error::{invalid, protocol};
use crate::key::Keys;
use crate::lease::Leases;
use crate::{place, renew, watch};

/// The server keeps leases in whole seconds; with its default timers it grants 2 s for 1 s.
const TTL: TtlRange = TtlRange {
    min: Duration::from_secs(1),
    max: Duration::from_secs(24 * 3600),
    step: Duration::from_secs(1),
};
/// The server looks for leases that have ended every 500 ms, and revokes them through its log.
const EXPIRY_SLACK: Duration = Duration::from_millis(1500);

/// One client's connection to an etcd cluster.
///
/// Made by [`EtcdConfig`]; what it promises is in [`capabilities`](Backend::capabilities).
pub struct EtcdBackend {
    client: Arc<Client>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
    tasks: Vec<AbortHandle>,
}

impl EtcdBackend {
    /// Connects, on the current tokio runtime, where the connection's tasks stay.
    ///
    /// On `Ok`, a quorum has answered this client, and the watch of its inbox is open. Nothing was
    /// written. [`EtcdConfig`], as a [`Connect`](lock_core::Connect), does the same for core.
    ///
    /// # Errors
    /// * [`ErrorKind::Unavailable`]: no member that can talk to a quorum within nine tenths of the
    ///   operation timeout.
    /// * [`ErrorKind::Denied`]: wrong credentials, a missing right, a certificate that is not trusted.
    /// * [`ErrorKind::Invalid`]: a configuration that cannot work.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future closes the connection; nothing else was asked for.
    pub async fn connect(config: EtcdConfig, context: Context) -> Result<Self> {
        config.validate()?;
        if context.fence_base > FencingToken::MAX.get() / 2 {
            return Err(invalid(
                "connect",
                "fence_base leaves no room for the revisions that are added to it",
            ));
        }
        let client_id = Uuid::new_v4().as_u64_pair().0;
        let keys = Keys::new(&config.prefix, &format!("{client_id:016x}"));
        let (tell, events) = mpsc::unbounded_channel();
        let (tell_changes, changes) = mpsc::unbounded_channel();
        let (order, orders) = mpsc::unbounded_channel();
        let (done, revoke) = mpsc::unbounded_channel();
        // Core's own timeout is the net under ours.
        let call_timeout = context.op_timeout - context.op_timeout / 10;
        let clock = context.clock;
        let connection = Connection::open(
            config,
            clock.clone(),
            call_timeout,
            keys.inbox(),
            tell_changes,
        )
        .await?;
        let client = Arc::new(Client::new(
            Arc::clone(&connection),
            keys.clone(),
            Book::new(keys, order),
            Arc::new(Leases::new(clock, done)),
            tell,
        ));
        client.learn_base(context.fence_base).await?;
        let live = connection.ready("connect", client.by()).await?;
        let stream = watch::open(&client, live).await?;
        let spawn =
            |work: futures_core::future::BoxFuture<'static, ()>| tokio::spawn(work).abort_handle();
        let tasks = vec![
            spawn(Box::pin(connection.supervise())),
            spawn(Box::pin(follow(Arc::clone(&client), changes))),
            spawn(Box::pin(watch::keep(Arc::clone(&client), stream, orders))),
            spawn(Box::pin(place::keep(Arc::clone(&client)))),
            spawn(Box::pin(renew::keep(Arc::clone(&client)))),
            spawn(Box::pin(renew::revoke(Arc::clone(&client), revoke))),
        ];
        Ok(Self {
            client,
            events: Mutex::new(Some(events)),
            tasks,
        })
    }

    /// How many claims are registered with this client: under way, waiting, held, or not cleaned up yet.
    #[must_use]
    pub fn registered_claims(&self) -> usize {
        self.client.book.len().0
    }

    /// How many watches this client has on its stream, beside that of its inbox.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.client.book.len().1
    }

    /// Refuses what is not promised, before anything is sent.
    fn admit(op: &'static str, claim: &Claim) -> Result<()> {
        if claim.mode != Mode::Exclusive {
            return Err(Error::new(ErrorKind::Unsupported, op)
                .with_name(&claim.name)
                .with_detail("the etcd backend has exclusive locks only"));
        }
        match TTL.refusal(claim.ttl) {
            Some(why) => Err(invalid(op, why).with_name(&claim.name)),
            None => Ok(()),
        }
    }

    /// A claim that is asked for once more, after it was not answered: its first request is settled
    /// before another one is sent.
    async fn settle(&self, claim: &Claim) -> Result<()> {
        if self.client.book.is_unresolved(claim.nonce) {
            self.client.release(claim).await?;
        }
        Ok(())
    }

    /// Where `next` stands after a request on its behalf.
    async fn standing(&self, next: &Claim) -> Result<Standing> {
        match self.client.answered(next.nonce).await {
            Outcome::Granted(grant) => Ok(Standing::Granted(grant)),
            Outcome::Queued(_) => Ok(Standing::Queued),
            Outcome::Failed(error) => Err(error),
            Outcome::Busy | Outcome::NotYet(_) => Err(protocol("acquire", "no standing")),
        }
    }
}

/// Tells those who wait how far the cluster is.
async fn follow(client: Arc<Client>, mut changes: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Lost => client.book.adrift(),
            Change::Up => client.book.look_all(client.now()),
        }
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::least("etcd");
        capabilities.linearizable = true;
        capabilities.fence = FenceStrength::Linearizable;
        capabilities.wait_order = WaitOrder::Fifo;
        capabilities.crash_release = CrashRelease::Ttl;
        capabilities.scope = Scope::Network;
        capabilities.ttl = Some(TTL);
        capabilities.expiry_slack = EXPIRY_SLACK;
        capabilities.list = true;
        capabilities.break_hold = true;
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        Self::admit("try_acquire", claim)?;
        let named = |error: Error| error.with_name(&claim.name);
        self.settle(claim).await.map_err(named)?;
        let lease = self.client.lease_for(claim).await.map_err(named)?;
        self.client.ask(claim, lease, Ask::Try).map_err(named)?;
        match self.client.answered(claim.nonce).await {
            Outcome::Granted(grant) => Ok(Some(grant)),
            Outcome::Busy => Ok(None),
            Outcome::Failed(error) => Err(error),
            Outcome::Queued(_) | Outcome::NotYet(_) => {
                Err(named(protocol("try_acquire", "a try that waits")))
            }
        }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        Self::admit("acquire", claim)?;
        let named = |error: Error| error.with_name(&claim.name);
        if !self.client.book.expects(claim.nonce) {
            self.settle(claim).await.map_err(named)?;
            let lease = self.client.lease_for(claim).await.map_err(named)?;
            self.client.ask(claim, lease, Ask::Join).map_err(named)?;
        }
        loop {
            match self.client.answered(claim.nonce).await {
                Outcome::Granted(grant) => return Ok(grant),
                Outcome::Failed(error) => return Err(error),
                Outcome::Queued(mut heard) => {
                    // An error says that the entry is gone; so does the next look.
                    let _ = heard.changed().await;
                }
                Outcome::Busy | Outcome::NotYet(_) => {
                    return Err(named(protocol("acquire", "an acquire that tried")));
                }
            }
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        self.client.renew(grants).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let released = self.client.release(claim).await;
        released.map_err(|error| error.with_name(&claim.name))
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        Self::admit("pass", next)?;
        let client = &self.client;
        let named = |error: Error| error.with_name(&next.name);
        let lease = client.lease_for(next).await.map_err(named)?;
        let released = Arc::new(OnceLock::new());
        match client.book.held(held.nonce) {
            Some((key, _)) => {
                let ask = Ask::Pass {
                    held: key,
                    released: Arc::clone(&released),
                };
                client.book.leaving(held.nonce, client.now());
                client.ask(next, lease, ask).map_err(named)?;
            }
            // Not held, as far as this client knows: then there is nothing to be done in one step.
            None => {
                let was_held = client.release(held).await.map_err(named)?;
                let _ = released.set(was_held);
                client.ask(next, lease, Ask::Join).map_err(named)?;
            }
        }
        let standing = self.standing(next).await.map_err(named)?;
        client.book.left(held.nonce);
        Ok(Passed {
            released: released.get().copied().unwrap_or(false),
            next: standing,
        })
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        Self::admit("replace", next)?;
        let replaced = self.put_in_place(waiting, next).await;
        replaced.map_err(|error| error.with_name(&next.name))
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let events = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match events {
            Some(events) => stream::unfold(events, |mut events| async move {
                let event = events.recv().await?;
                Some((event, events))
            })
            .boxed(),
            None => stream::empty().boxed(),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let looked = self.client.inspect(name).await;
        looked.map_err(|error| error.with_name(name))
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        self.client.list(prefix, &cursor).await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        let broken = self.client.break_hold(name, token).await;
        broken.map_err(|error| error.with_name(name))
    }

    async fn close(&self) -> Result<()> {
        let client = &self.client;
        let by = client.by();
        let unused = client.leases.end_unused();
        let revoked = join_all(unused.iter().map(|lease| client.revoke_now(*lease))).await;
        // Those of claims that were released just now.
        let others = client.leases.all_revoked();
        client.connection.clock.timeout_at(by, others).await;
        self.stop();
        revoked.into_iter().collect()
    }
}

impl EtcdBackend {
    async fn put_in_place(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let client = &self.client;
        // A request under way is answered first: then it is known where the claim stands.
        while let Some(mut heard) = client.book.under_way(waiting.nonce) {
            // An error says that the entry is gone; so does the next look.
            let _ = heard.changed().await;
        }
        if client.book.holds(waiting.nonce) {
            let passed = self.pass(waiting, next).await?;
            return Ok(Replaced::Now(passed.next));
        }
        if client.book.waiting(waiting.nonce).is_none() {
            client.release(waiting).await?;
            return Ok(Replaced::Gone);
        }
        let lease = client.lease_for(next).await?;
        if client.replace(waiting, next, lease).await? {
            return Ok(Replaced::Now(self.standing(next).await?));
        }
        // Its key was not there: its lease has ended, or somebody has deleted it.
        client.release(waiting).await?;
        Ok(Replaced::Gone)
    }

    fn stop(&self) {
        self.client.connection.close();
        let closed = Error::new(ErrorKind::Closed, "acquire");
        self.client.book.fail_all(&closed, self.client.now());
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for EtcdBackend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend")
            .field("connection", &self.client.connection)
            .finish_non_exhaustive()
    }
}
