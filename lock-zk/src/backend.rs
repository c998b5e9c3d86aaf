//! The backend: what core asks for, as requests for nodes.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use lock_core::{
    Backend, Capabilities, Claim, Context, CrashRelease, Cursor, Error, ErrorKind, Event,
    FenceStrength, FencingToken, Grant, LockName, LockState, Mode, Page, Passed, Reach, Renewal,
    Replaced, Result, Scope, TtlRange, WaitOrder, async_trait,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use zookeeper_client as zk;

use crate::book::Standing as Booked;
use crate::client::{Client, Joined, Position};
use crate::config::ZkConfig;
use crate::error::{Failure, foreign, invalid};
use crate::fence::Fence;
use crate::keeper;
use crate::name::queue;
use crate::node::{LOCKS, Node, queue_path};
use crate::open::{open, own_path};
use crate::queue::Turn;
use crate::record::Record;
use crate::session::Session;

/// The shortest lease that nobody renews, and how finely leases are told apart.
const SHORTEST: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(1);
/// The longest time that a hold may go without a renewal while its client lives.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// One client of a ZooKeeper ensemble.
///
/// Made by [`ZkConfig`]; what it promises is in [`capabilities`](Backend::capabilities).
pub struct ZkBackend {
    client: Arc<Client>,
    capabilities: Capabilities,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
    tasks: Vec<AbortHandle>,
}

impl ZkBackend {
    /// Connects, on the current tokio runtime, where the client's tasks stay.
    ///
    /// On `Ok` there is a session, and in it the client's own node. [`ZkConfig`], as a
    /// [`Connect`](lock_core::Connect), does the same for core.
    ///
    /// # Errors
    /// * [`ErrorKind::Unavailable`]: no answer within nine tenths of the operation timeout.
    /// * [`ErrorKind::Denied`]: wrong credentials, or a missing right.
    /// * [`ErrorKind::Invalid`]: a configuration that cannot work.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future closes the connection; a session that the server has opened
    /// already owns at most the client's own node, and ends with its timeout.
    pub async fn connect(config: ZkConfig, context: Context) -> Result<Self> {
        config.validate()?;
        let until = context.clock.now() + (context.op_timeout - context.op_timeout / 10);
        let session = open(&config, &context, until).await?;
        let capabilities = capabilities(&session);
        let (sender, events) = mpsc::unbounded_channel();
        let client = Arc::new(Client::new(config, context, session, sender));
        let tasks = vec![
            tokio::spawn(keeper::keep(Arc::clone(&client))).abort_handle(),
            tokio::spawn(keeper::end_holds(Arc::clone(&client))).abort_handle(),
            tokio::spawn(keeper::tidy(Arc::clone(&client))).abort_handle(),
        ];
        Ok(Self {
            client,
            capabilities,
            events: Mutex::new(Some(events)),
            tasks,
        })
    }

    /// How many claims are registered with this client: under way, waiting, held, or not cleaned up yet.
    #[must_use]
    pub fn registered_claims(&self) -> usize {
        self.client.book.len()
    }

    /// The id of the session there is now, as the servers show it.
    #[must_use]
    pub fn session_id(&self) -> i64 {
        self.client.session.borrow().id()
    }

    /// Refuses what is not promised, before anything is sent.
    fn admit(&self, op: &'static str, claim: &Claim) -> Result<()> {
        if claim.mode != Mode::Exclusive {
            return Err(Error::new(ErrorKind::Unsupported, op)
                .with_name(&claim.name)
                .with_detail("the ZooKeeper backend has exclusive locks only"));
        }
        match self.capabilities.ttl_refusal(claim.lease, claim.ttl) {
            Some(why) => Err(invalid(op, why).with_name(&claim.name)),
            None => Ok(()),
        }
    }

    /// One attempt: asks only when nobody is in the queue, and takes back what was too late.
    async fn attempt(&self, claim: &Claim) -> Result<Option<Grant>> {
        let op = "try_acquire";
        let client = &self.client;
        let until = client.patience();
        let failed = |failure: Failure| failure.into_error(op);
        let session = client.session(until).await.map_err(failed)?;
        let path = queue_path(&claim.name);
        let nodes = client.existing_children(&session, &path, until).await;
        // Nothing that could hold has been asked for yet.
        let nodes = nodes.map_err(|failure| match failure {
            Failure::Unknown(_) => Failure::Unsent.into_error(op),
            failure => failure.into_error(op),
        })?;
        if let Some(nodes) = nodes {
            if !queue(&nodes).ok_or_else(|| foreign(op))?.is_empty() {
                return Ok(None);
            }
            client.tidy.shared(&path);
        }
        let joined = client.join(op, &session, claim, None, until).await?;
        let sent = joined.node.sent;
        match joined.position {
            Some(Position::First) => {
                let granted = client.grant(op, claim, &joined.node, sent, until).await;
                if granted.is_err() {
                    self.forget(claim);
                }
                granted.map(Some)
            }
            Some(Position::Behind { .. } | Position::Absent) => {
                if client.give_up(claim.nonce, until).await.is_err() {
                    self.forget(claim);
                }
                Ok(None)
            }
            None => Err(Failure::Unknown(None).into_error(op)),
        }
    }

    /// Gives a claim up in the background.
    fn forget(&self, claim: &Claim) {
        self.client.book.leaving(claim.nonce);
        tokio::spawn(keeper::insist(Arc::clone(&self.client), claim.nonce));
    }

    /// Stands in the queue until it is this claim's turn, through any number of sessions.
    async fn stand(&self, claim: &Claim) -> Result<Grant> {
        let op = "acquire";
        let client = &self.client;
        let (mut node, mut position) = match client.book.get(claim.nonce) {
            Some(booked) => (booked.node, None),
            None => {
                let until = client.patience();
                let session = client.session(until).await.map_err(|e| e.into_error(op))?;
                let Joined { node, position, .. } =
                    client.join(op, &session, claim, None, until).await?;
                (node, position)
            }
        };
        let at_once = position == Some(Position::First);
        let mut since = at_once.then_some(node.sent);
        loop {
            if since.is_none() {
                client.book.queued(claim.nonce);
                match client.wait(claim, &node, position.take()).await? {
                    Turn::Ours => since = Some(client.now()),
                    Turn::Lost => {
                        (node, position) = self.join_again(claim, &node).await?;
                        if position == Some(Position::First) {
                            since = Some(node.sent);
                        }
                        continue;
                    }
                }
            }
            if let Some(since) = since {
                return client
                    .grant(op, claim, &node, since, client.patience())
                    .await;
            }
        }
    }

    /// Joins the queue again, at its end, for a claim whose node the servers have forgotten.
    async fn join_again(
        &self,
        claim: &Claim,
        before: &Arc<Node>,
    ) -> Result<(Arc<Node>, Option<Position>)> {
        const PAUSE: Duration = Duration::from_millis(50);
        let client = &self.client;
        let mut node = Arc::clone(before);
        loop {
            claim.progress.report(Reach::Adrift);
            // Whatever is left of the request before must be gone before there is another one.
            let gone = client.withdraw(&node, client.patience()).await;
            let joined = match gone {
                Ok(_) => match client.session(client.patience()).await {
                    Ok(session) => {
                        let joined = client
                            .join("acquire", &session, claim, None, client.patience())
                            .await;
                        if let Some(booked) = client.book.get(claim.nonce) {
                            node = booked.node;
                        }
                        joined
                    }
                    Err(failure) => Err(failure.into_error("acquire")),
                },
                Err(failure) => Err(failure.into_error("acquire")),
            };
            match joined {
                Ok(Joined { node, position, .. }) => return Ok((node, position)),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(_) => client.context.clock.sleep(PAUSE).await,
            }
        }
    }

    /// Where a claim stands that has just joined by another way than waiting.
    async fn standing(
        &self,
        op: &'static str,
        claim: &Claim,
        joined: Joined,
    ) -> Result<lock_core::Standing> {
        let client = &self.client;
        if joined.position == Some(Position::First) {
            let (node, sent) = (&joined.node, joined.node.sent);
            let granted = client.grant(op, claim, node, sent, client.patience()).await;
            return granted.map(lock_core::Standing::Granted);
        }
        client.book.queued(claim.nonce);
        claim.progress.report(Reach::Queued);
        Ok(lock_core::Standing::Queued)
    }

    /// Gives up `held` and queues `next`, in one round trip.
    async fn hand_on(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        let op = "pass";
        let client = &self.client;
        let until = client.patience();
        let session = client.session(until).await.map_err(|e| e.into_error(op))?;
        let leaving = client.book.leaving(held.nonce);
        let was_held = leaving
            .as_ref()
            .is_some_and(|booked| booked.standing == Booked::Leaving { held: true });
        let here = leaving
            .as_ref()
            .filter(|booked| Arc::ptr_eq(&booked.node.session, &session))
            .and_then(|booked| booked.node.place());
        let mut released = false;
        if here.is_none() && leaving.is_some() {
            let gave_up = client.give_up(held.nonce, until).await;
            released = gave_up.map_err(|e| e.into_error(op))?;
        }
        let joined = client
            .join(op, &session, next, here.as_ref(), until)
            .await?;
        match &joined.left {
            None => {}
            Some(Ok(())) => {
                released = was_held;
                client.book.remove(held.nonce);
            }
            Some(Err(Failure::Refused(zk::Error::NoNode))) => client.book.remove(held.nonce),
            Some(Err(failure)) => return Err(failure.clone().into_error(op)),
        }
        let next = self.standing(op, next, joined).await?;
        Ok(Passed { released, next })
    }

    /// Gives the node of `waiting` to `next`: which acquisition it serves is this client's own affair.
    async fn take_place(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let op = "replace";
        let client = &self.client;
        let until = client.patience();
        let failed = |failure: Failure| failure.into_error(op);
        let Some(booked) = client.book.get(waiting.nonce) else {
            return Ok(Replaced::Gone);
        };
        if booked.standing == Booked::Held {
            let Passed { next, .. } = self.hand_on(waiting, next).await?;
            return Ok(Replaced::Now(next));
        }
        let clock = &client.context.clock;
        let answered = clock.timeout_at(until, booked.node.answered()).await;
        answered.ok_or_else(|| failed(Failure::Unknown(None)))?;
        let (Some(place), false) = (booked.node.place(), booked.node.session.is_over()) else {
            client.give_up(waiting.nonce, until).await.map_err(failed)?;
            return Ok(Replaced::Gone);
        };
        let Some(node) = client.book.renamed(waiting.nonce, next.nonce) else {
            return Ok(Replaced::Gone);
        };
        // For operators: the record names the acquisition that waits now.
        let session = &node.session;
        let data = Record::new(next, session.name(), session.timeout()).encode();
        let written = match session.handle(until).await {
            Ok(handle) => session
                .answer(until, handle.set_data(&place.path, &data, None))
                .await
                .map(drop),
            Err(failure) => Err(failure),
        };
        if let Err(Failure::Refused(zk::Error::NoNode)) = written {
            client.book.remove(next.nonce);
            client.tidy.left(&node.queue, client.now());
            return Ok(Replaced::Gone);
        }
        next.progress.report(Reach::Queued);
        Ok(Replaced::Now(lock_core::Standing::Queued))
    }

    /// Asks whether these nodes are still there, in one request.
    async fn still_there(
        &self,
        session: &Arc<Session>,
        nodes: &[&Arc<Node>],
    ) -> Result<Vec<bool>, Failure> {
        let client = &self.client;
        let until = client.patience();
        let handle = session.handle(until).await?;
        if let [node] = nodes {
            let Some(place) = node.place() else {
                return Ok(vec![false]);
            };
            return match session.answer(until, handle.get_data(&place.path)).await {
                Ok((_, stat)) => Ok(vec![
                    stat.ephemeral_owner == session.id() && stat.czxid == place.czxid,
                ]),
                Err(Failure::Refused(zk::Error::NoNode)) => Ok(vec![false]),
                Err(failure) => Err(failure),
            };
        }
        let owned = session.answer(until, handle.list_ephemerals(LOCKS)).await?;
        let there: HashSet<&str> = owned.iter().map(String::as_str).collect();
        let answers = nodes
            .iter()
            .map(|node| {
                node.place()
                    .is_some_and(|place| there.contains(&*place.path))
            })
            .collect();
        keeper::remove_strays(client, session, &handle, &owned, until).await;
        Ok(answers)
    }

    /// Takes the lock from the holder with this token.
    async fn take_by_force(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        let op = "break_hold";
        let client = &self.client;
        let until = client.patience();
        let failed = |failure: Failure| failure.into_error(op);
        let session = client.session(until).await.map_err(failed)?;
        let path = queue_path(name);
        let nodes = client
            .children(&session, &path, until)
            .await
            .map_err(failed)?;
        let members = queue(&nodes).ok_or_else(|| foreign(op))?;
        let Some(first) = members.first() else {
            return Ok(false);
        };
        let handle = session.handle(until).await.map_err(failed)?;
        let holder = format!("{path}/{}", first.node);
        let (data, stat) = match session.answer(until, handle.get_data(&holder)).await {
            Ok(seen) => seen,
            Err(Failure::Refused(zk::Error::NoNode)) => return Ok(false),
            Err(failure) => return Err(failed(failure)),
        };
        session.quiet(until).await.map_err(failed)?;
        if client.token(op, &session, stat.czxid)? != token {
            return Ok(false);
        }
        let record = Record::decode(&data).ok_or_else(|| foreign(op))?;
        // In one transaction, so that the victim's client is told of every break.
        let mut both = handle.new_multi_writer();
        let note = format!("broke {} of {name}", record.nonce);
        let added = both
            .add_delete(&holder, None)
            .and_then(|()| both.add_set_data(&own_path(record.client), note.as_bytes(), None));
        added.map_err(|error| failed(Failure::of(error)))?;
        let broken = session
            .answer(until, async {
                both.commit().await.map_err(zk::Error::from)
            })
            .await;
        let broken = match broken {
            // The holder has gone, or its client's own node has: only the lock's node counts.
            Err(Failure::Refused(zk::Error::NoNode)) => {
                session.answer(until, handle.delete(&holder, None)).await
            }
            broken => broken.map(drop),
        };
        match broken {
            Ok(()) => Ok(true),
            Err(Failure::Refused(zk::Error::NoNode)) => Ok(false),
            Err(failure) => Err(failed(failure)),
        }
    }
}

/// What a client with this session promises.
fn capabilities(session: &Session) -> Capabilities {
    let timeout = session.timeout();
    let mut capabilities = Capabilities::least("zk");
    capabilities.linearizable = true;
    capabilities.fence = FenceStrength::Linearizable;
    capabilities.wait_order = WaitOrder::Fifo;
    capabilities.crash_release = CrashRelease::Session;
    capabilities.scope = Scope::Network;
    capabilities.ttl = Some(TtlRange {
        min: timeout,
        max: LONGEST.max(timeout),
        step: STEP,
    });
    capabilities.fixed_ttl = Some(TtlRange {
        min: SHORTEST,
        max: timeout,
        step: STEP,
    });
    capabilities.ttl_option = Some("session_timeout");
    // The servers end sessions at whole ticks, and a new leader gives every session its whole timeout.
    capabilities.expiry_slack = timeout + session.tick() * 2;
    capabilities.list = true;
    capabilities.break_hold = true;
    capabilities
}

#[async_trait]
impl Backend for ZkBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        self.admit("try_acquire", claim)?;
        self.attempt(claim)
            .await
            .map_err(|error| error.with_name(&claim.name))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        self.admit("acquire", claim)?;
        self.stand(claim)
            .await
            .map_err(|error| error.with_name(&claim.name))
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let client = &self.client;
        let sent = client.now();
        let session = Arc::clone(&client.session.borrow());
        let held: Vec<Option<Arc<Node>>> = grants
            .iter()
            .map(|grant| {
                let claim = grant.claim();
                let node = client.book.renewed(claim.nonce, sent + claim.ttl)?;
                let same = node.place().zip(grant.record::<Fence>());
                let same = same.is_some_and(|(place, fence)| place.czxid == fence.czxid());
                (same && Arc::ptr_eq(&node.session, &session)).then_some(node)
            })
            .collect();
        let nodes: Vec<&Arc<Node>> = held.iter().flatten().collect();
        if nodes.is_empty() {
            return held.iter().map(|_| Ok(Renewal::Gone)).collect();
        }
        let answer = self.still_there(&session, &nodes).await;
        if answer.is_ok() {
            session.fresh(client.patience()).await;
        }
        let mut answers = match answer {
            Ok(answers) => answers.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(failure) => nodes.iter().map(|_| Err(failure.clone())).collect(),
        }
        .into_iter();
        let mut renewals = Vec::with_capacity(grants.len());
        for (grant, node) in grants.iter().zip(&held) {
            let claim = grant.claim();
            renewals.push(match node.as_ref().map(|node| (node, answers.next())) {
                None => Ok(Renewal::Gone),
                Some((_, Some(Ok(true)))) if !session.is_over() => {
                    Ok(Renewal::Extended(session.validity(claim, sent)))
                }
                Some((node, Some(Ok(_)))) => {
                    client.lost(claim.nonce, node);
                    Ok(Renewal::Gone)
                }
                Some((_, Some(Err(failure)))) => {
                    Err(failure.into_error("renew").with_name(&claim.name))
                }
                Some((_, None)) => Err(Failure::Unknown(None).into_error("renew")),
            });
        }
        renewals
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let client = &self.client;
        let released = client.give_up(claim.nonce, client.patience()).await;
        released.map_err(|failure| failure.into_error("release").with_name(&claim.name))
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        self.admit("pass", next)?;
        self.hand_on(held, next)
            .await
            .map_err(|error| error.with_name(&next.name))
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        self.admit("replace", next)?;
        self.take_place(waiting, next)
            .await
            .map_err(|error| error.with_name(&next.name))
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
        self.client.inspect(name).await
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        self.client.list(prefix, cursor).await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        self.take_by_force(name, token)
            .await
            .map_err(|error| error.with_name(name))
    }

    async fn close(&self) -> Result<()> {
        let client = &self.client;
        client.close();
        let until = client.patience();
        let session = Arc::clone(&client.session.borrow());
        if !session.is_over() {
            keeper::remove_parents(client, true, client.now() + client.context.op_timeout / 2)
                .await;
        }
        for task in &self.tasks {
            task.abort();
        }
        session.end();
        match session.closed(until).await {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Indeterminate, "close")
                .with_detail("the session ends with its timeout")),
        }
    }
}

impl Drop for ZkBackend {
    fn drop(&mut self) {
        self.client.close();
        for task in &self.tasks {
            task.abort();
        }
        self.client.session.borrow().end();
    }
}

impl fmt::Debug for ZkBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkBackend")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
