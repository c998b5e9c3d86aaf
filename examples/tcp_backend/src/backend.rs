//! The trait: what is refused, what is waited for, and what is shown.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use lock_core::{
    Backend, Capabilities, Claim, Clock, Context, CrashRelease, Cursor, Error, ErrorKind, Event,
    FencingToken, Grant, HolderState, LockName, LockState, Mode, Page, Passed, Reach, Renewal,
    Replaced, Result, Scope, TtlRange, WaitOrder, WaiterState, async_trait,
};
use tokio::sync::mpsc;

use crate::client::{Stand, TcpClient};
use crate::queue::{Standing, queue, queues};

const TTL: TtlRange = TtlRange {
    min: Duration::from_millis(100),
    max: Duration::from_secs(24 * 60 * 60),
    step: Duration::from_millis(1),
};
/// What the server's timer and the way to the next waiter may take.
const EXPIRY_SLACK: Duration = Duration::from_millis(250);
/// How long a waiter that cannot reach the server leaves it alone.
const PAUSE: Duration = Duration::from_millis(100);

/// The backend of one client.
pub(crate) struct TcpBackend {
    client: TcpClient,
    clock: Clock,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

impl TcpBackend {
    /// A backend whose server has answered.
    pub(crate) async fn connect(addr: String, context: Context) -> Result<Self> {
        let (events, receiver) = mpsc::unbounded_channel();
        let clock = context.clock.clone();
        let client = TcpClient::new(addr, context, events);
        client.hello().await?;
        Ok(Self {
            client,
            clock,
            events: Mutex::new(Some(receiver)),
        })
    }
}

#[async_trait]
impl Backend for TcpBackend {
    fn capabilities(&self) -> Capabilities {
        // What is not set here is not promised: no breaking, no sharing, and no exclusion once the
        // server has lost its data.
        let mut capabilities = Capabilities::least("tcp");
        capabilities.wait_order = WaitOrder::Fifo;
        capabilities.crash_release = CrashRelease::Ttl;
        capabilities.scope = Scope::Network;
        capabilities.ttl = Some(TTL);
        capabilities.expiry_slack = EXPIRY_SLACK;
        capabilities.list = true;
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        check(claim, "try_acquire")?;
        self.client.try_take(claim).await
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        check(claim, "acquire")?;
        loop {
            let waited = match self.client.look(claim).await {
                Ok(Stand::Granted(grant)) => return Ok(grant),
                Ok(Stand::Behind(front)) => {
                    self.client.refuse_foreign(claim, &front).await?;
                    claim.progress.report(Reach::Queued);
                    self.client.until_gone(front).await
                }
                Ok(Stand::Nowhere) => Ok(()),
                Err(error) => Err(error),
            };
            match waited {
                // Whoever has stood in the queue comes back to it.
                Err(error) if error.is_retryable() && has_queued(claim) => {
                    claim.progress.report(Reach::Adrift);
                    self.clock.sleep(PAUSE).await;
                }
                waited => waited?,
            }
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        // Each is judged alone.
        join_all(grants.iter().map(|grant| self.client.extend(grant))).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        self.client.leave(claim).await
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        check(next, "pass")?;
        self.client.pass(held, next).await
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        check(next, "replace")?;
        self.client.replace(waiting, next).await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        match events.take() {
            Some(events) => stream::unfold(events, |mut events| async move {
                events.recv().await.map(|event| (event, events))
            })
            .boxed(),
            None => stream::pending().boxed(),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let mut state = LockState {
            name: name.clone(),
            holders: Vec::new(),
            waiters: Vec::new(),
            last_token: None,
        };
        for entry in self.client.list("inspect", queue(name)).await? {
            let standing = Standing::read(&entry, "inspect")?;
            let age = Duration::from_millis(entry.age_ms);
            if !standing.granted {
                state.waiters.push(WaiterState {
                    nonce: standing.nonce,
                    identity: standing.identity,
                    age,
                });
                continue;
            }
            let token = FencingToken::new(entry.modified)?;
            state.last_token = Some(token);
            state.holders.push(HolderState {
                nonce: standing.nonce,
                token,
                identity: standing.identity,
                age,
                remaining: Some(Duration::from_millis(entry.left_ms)),
                provisional: false,
            });
        }
        Ok(state)
    }

    async fn list(&self, prefix: &str, _: Cursor) -> Result<Page> {
        let listed = self.client.list("list", queues(prefix)).await?;
        // What is no claim's is nobody's lock.
        let standings = listed
            .iter()
            .flat_map(|entry| Standing::read(entry, "list"));
        let mut names: Vec<_> = standings.map(|standing| standing.name).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Page { names, next: None })
    }

    async fn break_hold(&self, name: &LockName, _: FencingToken) -> Result<bool> {
        Err(Error::new(ErrorKind::Unsupported, "break").with_name(name))
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await;
        Ok(())
    }
}

impl fmt::Debug for TcpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpBackend")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Refuses what this backend does not serve. Core has checked the TTL against the capabilities.
fn check(claim: &Claim, op: &'static str) -> Result<()> {
    match claim.mode {
        Mode::Exclusive => Ok(()),
        _ => Err(Error::new(ErrorKind::Unsupported, op).with_name(&claim.name)),
    }
}

fn has_queued(claim: &Claim) -> bool {
    matches!(claim.progress.reach(), Reach::Queued | Reach::Adrift)
}
