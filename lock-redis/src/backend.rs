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
    Backend, BootInstant, Capabilities, Claim, Context, CrashRelease, Cursor, Error, ErrorKind,
    Event, FenceStrength, FencingToken, Grant, LockName, LockState, Mode, Nonce, Page, Passed,
    Reach, Renewal, Replaced, Result, Scope, Standing, TtlRange, Validity, WaitOrder, async_trait,
};
use redis::Value;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::config::RedisConfig;
use crate::connection::Connection;
use crate::error::{invalid, protocol};
use crate::inbox::{Inbox, Outcome, Reference, TOMBSTONE};
use crate::key::{Keys, partition};
use crate::place;
use crate::reply::{self, LARGEST_TOKEN, Reply};
use crate::scripts::{self, Call, Script};

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

/// What the backend and its tasks share.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) connection: Arc<Connection>,
    pub(crate) inbox: Arc<Inbox>,
    claim: Duration,
    fence_retention: Duration,
    fence_base: u64,
}

/// An answer, and what a lease in it is counted from.
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// Taken before the request was sent.
    pub(crate) sent: BootInstant,
    /// The connection it was sent on.
    pub(crate) connection: u64,
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
            context.op_timeout * 9 / 10,
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

impl Client {
    /// A call that begins as all scripts expect it.
    pub(crate) fn script(&self, script: &'static Script) -> Call {
        Call::new(script)
            .arg(self.inbox.seen().max(self.fence_base))
            .arg(self.fence_retention.as_millis())
            .arg(self.claim.as_millis())
    }

    pub(crate) fn lock_keys(&self, name: &LockName) -> [String; 3] {
        self.connection.keys.of_lock(name)
    }

    fn tombstone(&self, claim: &Claim) -> String {
        self.connection.keys.tombstone(&claim.name, claim.nonce)
    }

    /// One attempt to get the lock, or a place in its queue.
    pub(crate) fn acquire_call(&self, claim: &Claim, mode: &str) -> Call {
        self.script(&scripts::ACQUIRE)
            .keys(self.lock_keys(&claim.name))
            .keys([self.tombstone(claim)])
            .arg(mode)
            .arg(claim.nonce)
            .arg(claim.ttl.as_millis())
            .arg(&self.connection.channel)
            .arg(&claim.identity)
    }

    /// Runs a script that does nothing to a claim if it is run late.
    pub(crate) async fn call(&self, op: &'static str, call: &Call) -> Result<Answer> {
        self.call_after(op, call, || true).await
    }

    /// Runs a script that can make `claim` hold or wait. Until it is answered, a copy of it may be
    /// under way; that is noted before it is sent, and stays noted when this future is dropped.
    async fn claim_call(&self, op: &'static str, claim: &Claim, call: &Call) -> Result<Answer> {
        let note = || {
            self.inbox.sending(claim, self.connection.clock.now());
            claim.progress.report(Reach::Sent);
            true
        };
        self.noted_call(op, claim.nonce, call, note).await
    }

    /// As [`claim_call`](Self::claim_call), for a waiting claim that the server has forgotten.
    pub(crate) async fn claim_again(&self, claim: &Claim) -> Result<Answer> {
        let call = self.acquire_call(claim, "wait");
        let note = || self.inbox.sending_again(claim.nonce);
        self.noted_call("acquire", claim.nonce, &call, note).await
    }

    async fn noted_call(
        &self,
        op: &'static str,
        nonce: Nonce,
        call: &Call,
        note: impl FnOnce() -> bool + Send,
    ) -> Result<Answer> {
        let mut noted = false;
        let note = || {
            noted = note();
            noted
        };
        let answer = self.call_after(op, call, note).await;
        let silent = matches!(&answer, Err(error) if error.kind() == ErrorKind::Indeterminate);
        // One that was not sent is no answer to an earlier one, a copy of which may be under way.
        if noted && !silent {
            self.inbox.answered(nonce);
        }
        answer
    }

    /// `note` is called when there is a connection, before anything is sent; it may call it off.
    async fn call_after(
        &self,
        op: &'static str,
        call: &Call,
        note: impl FnOnce() -> bool + Send,
    ) -> Result<Answer> {
        let by = self.connection.clock.now() + self.connection.command_timeout;
        let live = self.connection.ready(op, by).await?;
        if !note() {
            return Err(invalid(op, "this claim was released"));
        }
        let sent = self.connection.clock.now();
        let value = self.connection.run(op, &live, call, by).await?;
        Ok(Answer {
            value,
            sent,
            connection: live.id,
        })
    }

    /// Puts what was answered about a waiting claim into the inbox.
    pub(crate) fn settle(&self, claim: &Claim, reply: Reply, answer: &Answer) -> Result<()> {
        match reply {
            Reply::Granted { .. } => {
                let grant = self.grant(claim, reply, answer)?;
                self.inbox.granted(grant, self.connection.clock.now());
                Ok(())
            }
            Reply::Queued { server, again } => {
                let reference = Reference {
                    connection: answer.connection,
                    sent: answer.sent,
                    server,
                };
                // From now, not from the sending: a slow server is not to be asked more often.
                let due = self.connection.clock.now() + again;
                self.inbox.queued(claim.nonce, reference, due);
                Ok(())
            }
            Reply::Dead => Err(invalid("acquire", "this claim was released")),
            Reply::Foreign => Err(Error::new(ErrorKind::WrongType, "acquire")),
            Reply::Busy | Reply::Gone => Err(protocol("acquire", format!("answer {reply:?}"))),
        }
        .map_err(|error| error.with_name(&claim.name))
    }

    fn grant(&self, claim: &Claim, reply: Reply, answer: &Answer) -> Result<Grant> {
        let Reply::Granted {
            token,
            left,
            provisional,
        } = reply
        else {
            return Err(protocol("acquire", format!("answer {reply:?}")).with_name(&claim.name));
        };
        self.inbox.saw(token);
        let validity = Validity::new(answer.sent, self.connection.clock.now(), left);
        let grant = Grant::new(claim, token, validity);
        Ok(if provisional {
            grant.provisional()
        } else {
            grant
        })
    }

    /// What became of a claim that was put in the place of another, from the script's answer.
    fn standing(&self, next: &Claim, reply: Reply, answer: &Answer) -> Result<Standing> {
        if matches!(reply, Reply::Granted { .. }) {
            let grant = self.grant(next, reply, answer)?;
            self.inbox.taken(next.nonce, self.connection.clock.now());
            return Ok(Standing::Granted(grant));
        }
        let settled = self.settle(next, reply, answer);
        if settled.is_err() {
            self.inbox.taken(next.nonce, self.connection.clock.now());
        }
        settled.map(|()| Standing::Queued)
    }

    /// Renews locks of one partition.
    async fn renew_batch(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut call = self.script(&scripts::RENEW);
        for grant in grants {
            let claim = grant.claim();
            call = call
                .keys(self.lock_keys(&claim.name))
                .arg(claim.nonce)
                .arg(claim.ttl.as_millis());
        }
        let impatience = self.connection.watch_renewal();
        let answer = self.call("renew", &call).await;
        impatience.answered();
        let renewed = answer.and_then(|answer| {
            let received = self.connection.clock.now();
            let left = reply::list("renew", &answer.value)?;
            if left.len() != grants.len() {
                return Err(reply::odd("renew", &answer.value));
            }
            Ok(left
                .iter()
                .map(|left| match left {
                    Value::Int(0) => Ok(Renewal::Gone),
                    Value::Int(-1) => Err(Error::new(ErrorKind::WrongType, "renew")),
                    left => {
                        let left = Duration::from_micros(reply::whole("renew", left)?);
                        Ok(Renewal::Extended(Validity::new(
                            answer.sent,
                            received,
                            left,
                        )))
                    }
                })
                .collect())
        });
        let results: Vec<Result<Renewal>> = match renewed {
            Ok(results) => results,
            Err(error) => grants.iter().map(|_| Err(error.clone())).collect(),
        };
        let named = |(result, grant): (Result<Renewal>, &&Grant)| {
            result.map_err(|error| error.with_name(&grant.claim().name))
        };
        results.into_iter().zip(grants).map(named).collect()
    }

    /// Which of these locks have a holder or a queue; all are of one partition.
    async fn in_use(&self, names: Vec<LockName>) -> Result<Vec<LockName>> {
        let mut call = self.script(&scripts::USED);
        for name in &names {
            let [holder, queue, _] = self.lock_keys(name);
            call = call.keys([holder, queue]);
        }
        let answer = self.call("list", &call).await?;
        let used = reply::list("list", &answer.value)?;
        Ok(names
            .into_iter()
            .zip(used)
            .filter(|(_, used)| **used == Value::Int(1))
            .map(|(name, _)| name)
            .collect())
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
        granted.map_err(|error| error.with_name(&claim.name))
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
                return Err(error.with_name(&claim.name));
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
