//! The backend: each request is one script, and what it answers goes through the inbox.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use lock_core::{
    Backend, Capabilities, Claim, Context, CrashRelease, Cursor, Error, ErrorKind, Event,
    FenceStrength, FencingToken, Grant, LockName, LockState, Mode, Page, Passed, Renewal, Replaced,
    Result, Scope, TtlRange, WaitOrder, async_trait,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::client::Client;
use crate::config::RedisConfig;
use crate::connection::Connection;
use crate::error::{invalid, protocol, stopped_half_way};
use crate::inbox::{Inbox, Outcome, TOMBSTONE};
use crate::key::{Keys, partition};
use crate::place;
use crate::reply::{self, LARGEST_TOKEN, Reply};
use crate::scripts::{self};

const TTL: TtlRange = TtlRange {
    min: Duration::from_millis(100),
    max: Duration::from_secs(24 * 3600),
    step: Duration::from_millis(1),
};
/// Waiters notice the end of a lease within some milliseconds, as long as their process is not
/// starved; a head of the queue that has not heard of a changed lease yet, within half a second.
const EXPIRY_SLACK: Duration = Duration::from_secs(1);
/// How many locks one script renews at most: it blocks the server while it runs.
const LARGEST_BATCH: usize = 256;
/// How many keys one step of a listing looks at.
const LIST_STEP: usize = 256;

/// One client's connection to a Redis or Valkey server.
///
/// Made by [`RedisConfig`]; what it promises is in [`capabilities`](Backend::capabilities).
pub struct RedisBackend {
    client: Arc<Client>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
    tasks: [AbortHandle; 2],
}

impl RedisBackend {
    /// Connects, on the current tokio runtime, where the connection's tasks stay.
    ///
    /// On `Ok`, this client is subscribed to its inbox and has verified that the namespace has its
    /// layout. [`RedisConfig`], as a [`Connect`](lock_core::Connect), does the same for core.
    ///
    /// # Errors
    /// * [`ErrorKind::Unavailable`]: no answer within nine tenths of the operation timeout.
    /// * [`ErrorKind::Denied`]: wrong credentials, a missing right, a certificate that is not trusted.
    /// * [`ErrorKind::Invalid`]: a configuration that cannot work, or a namespace of another layout.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future closes the connection; nothing else was asked for.
    pub async fn connect(config: RedisConfig, context: Context) -> Result<Self> {
        config.validate()?;
        if context.fence_base >= LARGEST_TOKEN {
            return Err(invalid(
                "connect",
                format!("fence_base has to be below {LARGEST_TOKEN} on Redis"),
            ));
        }
        let (claim, fence_retention) = (config.claim, config.fence_retention);
        let channel = Keys::new(&config.prefix).inbox(Uuid::new_v4());
        let inbox = Arc::new(Inbox::default());
        let (sender, events) = mpsc::unbounded_channel();
        let connection = Connection::open(
            config,
            context.clock,
            // Core's own timeout is the net under ours.
            context.op_timeout - context.op_timeout / 10,
            channel,
            Arc::clone(&inbox),
            sender,
        )
        .await?;
        let client = Arc::new(Client {
            connection,
            inbox,
            claim,
            fence_retention,
            fence_base: context.fence_base,
        });
        let tasks = [
            tokio::spawn(Arc::clone(&client.connection).supervise()).abort_handle(),
            tokio::spawn(place::keep(Arc::clone(&client))).abort_handle(),
        ];
        Ok(Self {
            client,
            events: Mutex::new(Some(events)),
            tasks,
        })
    }

    /// How many claims are registered with this client: under way, waiting, or not cleaned up yet.
    #[must_use]
    pub fn registered_claims(&self) -> usize {
        self.client.inbox.len()
    }

    /// Refuses what is not promised, before anything is sent.
    fn admit(op: &'static str, claim: &Claim) -> Result<()> {
        if claim.mode != Mode::Exclusive {
            return Err(Error::new(ErrorKind::Unsupported, op)
                .with_name(&claim.name)
                .with_detail("the Redis backend has exclusive locks only"));
        }
        match TTL.refusal(claim.ttl) {
            Some(why) => Err(invalid(op, why).with_name(&claim.name)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::least("redis");
        capabilities.fence = FenceStrength::TimeSeeded;
        capabilities.largest_token = LARGEST_TOKEN;
        capabilities.wait_order = WaitOrder::Fifo;
        capabilities.crash_release = CrashRelease::Ttl;
        capabilities.scope = Scope::Network;
        capabilities.ttl = Some(TTL);
        capabilities.expiry_slack = EXPIRY_SLACK;
        capabilities.claim_window = Some(self.client.claim);
        capabilities.list = true;
        capabilities.break_hold = true;
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        Self::admit("try_acquire", claim)?;
        let client = &self.client;
        let call = client.acquire_call(claim, "try");
        let answered = client.claim_call("try_acquire", claim, &call).await;
        let granted =
            answered.and_then(|answer| match Reply::read("try_acquire", &answer.value)? {
                Reply::Busy => Ok(None),
                Reply::Dead => Err(invalid("try_acquire", "this claim was released")),
                reply => client.grant(claim, reply, &answer).map(Some),
            });
        // Stays only if it was not answered.
        client
            .inbox
            .taken(claim.nonce, client.connection.clock.now());
        match granted {
            Ok(granted) => Ok(granted),
            Err(error) => Err(self.refusal(claim, error.with_name(&claim.name)).await),
        }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        Self::admit("acquire", claim)?;
        let client = &self.client;
        if !client.inbox.expects(claim.nonce) {
            let call = client.acquire_call(claim, "wait");
            let answered = client.claim_call("acquire", claim, &call).await;
            let settled = answered.and_then(|answer| {
                let reply = Reply::read("acquire", &answer.value)?;
                client.settle(claim, reply, &answer)
            });
            if let Err(error) = settled {
                client
                    .inbox
                    .taken(claim.nonce, client.connection.clock.now());
                return Err(self.refusal(claim, error.with_name(&claim.name)).await);
            }
        }
        loop {
            match client
                .inbox
                .outcome(claim.nonce, client.connection.clock.now())
            {
                Outcome::Ready(result) => {
                    return result.map_err(|error| error.with_name(&claim.name));
                }
                Outcome::NotYet(heard) => heard.notified().await,
            }
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut partitions: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, grant) in grants.iter().enumerate() {
            partitions
                .entry(partition(&grant.claim().name))
                .or_default()
                .push(at);
        }
        let batches: Vec<&[usize]> = partitions
            .values()
            .flat_map(|places| places.chunks(LARGEST_BATCH))
            .collect();
        let renewals = batches.iter().map(|batch| {
            let batch: Vec<&Grant> = batch.iter().map(|at| grants[*at]).collect();
            async move { self.client.renew_batch(&batch).await }
        });
        let mut answers: Vec<Option<Result<Renewal>>> = vec![None; grants.len()];
        for (batch, results) in batches.iter().zip(join_all(renewals).await) {
            for (at, result) in batch.iter().zip(results) {
                answers[*at] = Some(result);
            }
        }
        answers
            .into_iter()
            .map(|answer| {
                answer.unwrap_or_else(|| Err(protocol("renew", "no answer for this lock")))
            })
            .collect()
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let client = &self.client;
        let bury = client
            .inbox
            .leaving(claim.nonce, client.connection.clock.now());
        let call = client
            .script(&scripts::RELEASE)
            .keys(client.lock_keys(&claim.name))
            .keys([client.tombstone(claim)])
            .arg(claim.nonce)
            .arg(burial(bury));
        let named = |error: Error| error.with_name(&claim.name);
        let answer = client.call("release", &call).await.map_err(named)?;
        let held = reply::whole("release", &answer.value).map_err(named)? == 1;
        client.inbox.left(claim.nonce);
        Ok(held)
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        Self::admit("pass", next)?;
        let client = &self.client;
        let bury = client
            .inbox
            .leaving(held.nonce, client.connection.clock.now());
        let call = client
            .script(&scripts::PASS)
            .keys(client.lock_keys(&next.name))
            .keys([client.tombstone(next), client.tombstone(held)])
            .arg(held.nonce)
            .arg(burial(bury))
            .arg(next.nonce)
            .arg(next.ttl.as_millis())
            .arg(&client.connection.channel)
            .arg(&next.identity);
        let passed = client
            .claim_call("pass", next, &call)
            .await
            .and_then(|answer| {
                let [released, reply] = reply::list("pass", &answer.value)? else {
                    return Err(reply::odd("pass", &answer.value));
                };
                client.inbox.left(held.nonce);
                Ok(Passed {
                    released: reply::whole("pass", released)? == 1,
                    next: client.standing(next, Reply::read("pass", reply)?, &answer)?,
                })
            });
        passed.map_err(|error| error.with_name(&next.name))
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        Self::admit("replace", next)?;
        let client = &self.client;
        client
            .inbox
            .leaving(waiting.nonce, client.connection.clock.now());
        let call = client
            .script(&scripts::REPLACE)
            .keys(client.lock_keys(&next.name))
            .keys([client.tombstone(waiting), client.tombstone(next)])
            .arg(waiting.nonce)
            .arg(burial(true))
            .arg(next.nonce)
            .arg(next.ttl.as_millis())
            .arg(&client.connection.channel)
            .arg(&next.identity);
        let replaced = client
            .claim_call("replace", next, &call)
            .await
            .and_then(|answer| {
                let reply = Reply::read("replace", &answer.value)?;
                client.inbox.left(waiting.nonce);
                if reply == Reply::Gone {
                    client
                        .inbox
                        .taken(next.nonce, client.connection.clock.now());
                    return Ok(Replaced::Gone);
                }
                client.standing(next, reply, &answer).map(Replaced::Now)
            });
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
        let client = &self.client;
        let call = client
            .script(&scripts::INSPECT)
            .keys(client.lock_keys(name));
        let looked = client.call("inspect", &call).await;
        looked
            .and_then(|answer| reply::state(name, &answer.value))
            .map_err(|error| error.with_name(name))
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        let client = &self.client;
        let by = client.connection.clock.now() + client.connection.command_timeout;
        let live = client.connection.ready("list", by).await?;
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor.place().unwrap_or("0"))
            .arg("MATCH")
            .arg(client.connection.keys.holders_glob(prefix))
            .arg("COUNT")
            .arg(LIST_STEP);
        let found = client.connection.command("list", &live, &scan, by).await?;
        let [next, keys] = reply::list("list", &found)? else {
            return Err(reply::odd("list", &found));
        };
        let mut partitions: BTreeMap<u64, Vec<LockName>> = BTreeMap::new();
        for key in reply::list("list", keys)? {
            // A key that is no name of ours was put there by somebody else.
            let name = reply::text("list", key)
                .ok()
                .and_then(|key| client.connection.keys.name_of(key));
            if let Some(name) = name {
                partitions.entry(partition(&name)).or_default().push(name);
            }
        }
        let pages = join_all(partitions.into_values().map(|names| client.in_use(names))).await;
        let mut names = Vec::new();
        for page in pages {
            names.extend(page?);
        }
        Ok(Page {
            names,
            next: match reply::text("list", next)? {
                "0" => None,
                place => Some(Cursor::at(place)),
            },
        })
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        let client = &self.client;
        let call = client
            .script(&scripts::BREAK)
            .keys(client.lock_keys(name))
            .arg(token);
        let named = |error: Error| error.with_name(name);
        let answer = client.call("break_hold", &call).await.map_err(named)?;
        Ok(reply::whole("break_hold", &answer.value).map_err(named)? == 1)
    }

    async fn close(&self) -> Result<()> {
        self.client.connection.close();
        self.stop();
        Ok(())
    }
}

impl RedisBackend {
    /// What a claim that failed with `error` is answered. A refusal leaves nothing behind: while that is
    /// not certain, it is none.
    async fn refusal(&self, claim: &Claim, error: Error) -> Error {
        if !stopped_half_way(&error) || self.release(claim).await.is_ok() {
            return error;
        }
        Error::new(ErrorKind::Indeterminate, "acquire")
            .with_name(&claim.name)
            .with_detail(error.to_string())
            .with_source(error)
    }

    fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        self.client.connection.close();
        self.stop();
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("connection", &self.client.connection)
            .finish_non_exhaustive()
    }
}

/// How long a tombstone stays, in ms, as the scripts are told.
fn burial(bury: bool) -> u128 {
    if bury { TOMBSTONE.as_millis() } else { 0 }
}
