//! What one client does in its sessions: asking for nodes, giving them up, and making grants of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::{
    BootInstant, Claim, Context, Error, ErrorKind, Event, FencingToken, Grant, Reach, Result,
};
use tokio::sync::{mpsc, watch};
use zookeeper_client as zk;

use crate::book::{Book, Booked, Standing};
use crate::config::{NodeAcl, ZkConfig};
use crate::error::{Failure, foreign};
use crate::fence::Fence;
use crate::name::{Member, queue};
use crate::node::{LOCKS, Made, Node, Place, queue_path};
use crate::open::make_container;
use crate::record::Record;
use crate::session::{Phase, Session};
use crate::tidy::Tidy;

/// How often a parent is made again for a node before something else is said to be wrong.
const PARENT_TRIES: usize = 8;
/// One client of the ensemble, through all of its sessions.
pub(crate) struct Client {
    pub(crate) config: ZkConfig,
    pub(crate) context: Context,
    pub(crate) book: Book,
    pub(crate) tidy: Tidy,
    pub(crate) session: watch::Sender<Arc<Session>>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// The servers' wall clock minus our clock, in milliseconds, for the ages that operators see: this
    /// machine's until a node that was made just now has told theirs.
    wall: AtomicI64,
    closing: AtomicBool,
}

/// Where a claim stands in its queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Position {
    First,
    /// So many are ahead, and this one is right before it.
    Behind {
        ahead: usize,
        next: String,
    },
    /// It is not in the queue any more.
    Absent,
}

impl Position {
    /// Where `place` stands among `nodes`.
    pub(crate) fn of(op: &'static str, place: &Place, nodes: &[String]) -> Result<Self> {
        let members = queue(nodes).ok_or_else(|| foreign(op))?;
        let own = members
            .iter()
            .position(|member| member.node == place.node());
        Ok(match own {
            None => Self::Absent,
            Some(0) => Self::First,
            Some(ahead) => Self::Behind {
                ahead,
                next: members[ahead - 1].node.clone(),
            },
        })
    }
}

/// What giving a node up came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Withdrawn {
    /// It was there until now.
    Now,
    /// It was not there, and will not be.
    Before,
}

impl Client {
    pub(crate) fn new(
        config: ZkConfig,
        context: Context,
        session: Arc<Session>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let wall = since_1970() - since_start(context.clock.now());
        Self {
            config,
            context,
            book: Book::default(),
            tidy: Tidy::default(),
            session: watch::Sender::new(session),
            events,
            wall: AtomicI64::new(wall),
            closing: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> BootInstant {
        self.context.clock.now()
    }

    /// Until when one operation is answered: core's own timeout is the net under ours.
    pub(crate) fn patience(&self) -> BootInstant {
        self.now() + (self.context.op_timeout - self.context.op_timeout / 10)
    }

    pub(crate) fn acls(&self) -> zk::Acls<'static> {
        match self.config.node_acl() {
            NodeAcl::Creator => zk::Acls::creator_all(),
            NodeAcl::Open => zk::Acls::anyone_all(),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listens any more when the backend is gone.
        let _ = self.events.send(event);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// No other session is opened from now on.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The session there is, as soon as it is connected.
    pub(crate) async fn session(&self, until: BootInstant) -> Result<Arc<Session>, Failure> {
        let mut sessions = self.session.subscribe();
        let connected = async {
            loop {
                let session = Arc::clone(&sessions.borrow_and_update());
                let mut phases = session.phases();
                tokio::select! {
                    // The senders live in `self`.
                    phase = phases.wait_for(|phase| *phase == Phase::Up) => {
                        if phase.is_ok() {
                            return Arc::clone(&session);
                        }
                    }
                    _ = sessions.changed() => {}
                }
            }
        };
        let found = self.context.clock.timeout_at(until, connected).await;
        found.ok_or(Failure::Unsent)
    }

    /// The names of the nodes below `path`, no older than this call; empty when there is no such path.
    pub(crate) async fn children(
        &self,
        session: &Session,
        path: &str,
        until: BootInstant,
    ) -> Result<Vec<String>, Failure> {
        let children = self.existing_children(session, path, until).await?;
        Ok(children.unwrap_or_default())
    }

    /// The same; `None` when there is no such path.
    pub(crate) async fn existing_children(
        &self,
        session: &Session,
        path: &str,
        until: BootInstant,
    ) -> Result<Option<Vec<String>>, Failure> {
        let handle = session.handle(until).await?;
        // A follower may be behind, but not after a sync. Its answer comes first.
        drop(handle.sync(path));
        let look = handle.get_children(path);
        match session.answer(until, look).await {
            Ok((children, _)) => Ok(Some(children)),
            Err(Failure::Refused(zk::Error::NoNode)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Books `claim` in this session and asks for its node at the end of the queue, after the node at
    /// `leave` has been given up in the same round trip, if there is one.
    ///
    /// Answers where it stands, if that is known, and what came of leaving.
    pub(crate) async fn join(
        &self,
        op: &'static str,
        session: &Arc<Session>,
        claim: &Claim,
        leave: Option<&Place>,
        until: BootInstant,
    ) -> Result<Joined> {
        let handle = session.handle(until).await.map_err(|e| e.into_error(op))?;
        let node = Node::new(
            claim.nonce,
            queue_path(&claim.name),
            Arc::clone(session),
            self.now(),
        );
        self.book.put(claim, &node);
        let has_parent = self.tidy.in_use(&node.queue);
        let data = Record::new(claim, session.name(), session.timeout()).encode();
        if matches!(claim.progress.reach(), Reach::Unsent) {
            claim.progress.report(Reach::Sent);
        }
        if !has_parent {
            // Sent when called; what comes of it, the answer to what follows says.
            let options = zk::CreateMode::Container.with_acls(self.acls());
            drop(handle.create(&node.queue, &[], &options));
        }
        let leaving = leave.map(|place| handle.delete(&place.path, None));
        node.ask(&handle, data.clone(), self.acls());
        let look = handle.get_children(&node.queue);
        let look = session.answer(until, look);
        let left = async {
            match leaving {
                Some(leaving) => Some(session.answer(until, leaving).await),
                None => None,
            }
        };
        let (left, look) = futures_util::join!(left, look);
        let mut look = look.ok().map(|(children, _)| children);
        for _ in 0..PARENT_TRIES {
            match self.settled(&node, until).await {
                Some(Made::There(place)) => {
                    if let Some(made_at) = place.ctime {
                        self.note_wall(made_at);
                    }
                    let position = look
                        .map(|nodes| Position::of(op, &place, &nodes))
                        .transpose();
                    let position = match position {
                        Ok(position) => position,
                        Err(error) => {
                            // A refusal leaves nothing behind: while that is not certain, it is none.
                            let gave_up = self.give_up(claim.nonce, until).await;
                            let unsure = |_| Failure::Unknown(None).into_error(op);
                            return Err(gave_up.err().map_or(error, unsure));
                        }
                    };
                    return Ok(Joined {
                        node,
                        position,
                        left,
                    });
                }
                Some(Made::Refused(zk::Error::NoNode)) => {
                    let handle = session.handle(until).await.map_err(|e| e.into_error(op))?;
                    look = self
                        .ask_with_parent(session, &handle, &node, data.clone(), until)
                        .await
                        .map_err(|e| e.into_error(op))?;
                }
                Some(Made::Refused(error)) => {
                    self.book.remove(claim.nonce);
                    self.tidy.left(&node.queue, self.now());
                    return Err(Failure::Refused(error).into_error(op));
                }
                Some(Made::Unknown | Made::Asked) | None => {
                    // Its connection broke: the next one says whether it was executed.
                    look = match self.find(&node, session, until).await {
                        Ok(nodes) => Some(nodes),
                        Err(failure) => {
                            return Err(match failure {
                                Failure::Refused(error) => {
                                    Failure::Unknown(Some(error)).into_error(op)
                                }
                                Failure::Unsent => Failure::Unknown(None).into_error(op),
                                unknown @ Failure::Unknown(_) => unknown.into_error(op),
                            });
                        }
                    };
                }
            }
        }
        Err(Error::new(ErrorKind::Indeterminate, op)
            .with_detail("the parent of the lock's nodes is removed again and again"))
    }

    /// What became of a request, if that is known in time.
    async fn settled(&self, node: &Node, until: BootInstant) -> Option<Made> {
        self.context.clock.timeout_at(until, node.answered()).await
    }

    /// Makes the parent of a node and asks for the node again, in one round trip.
    async fn ask_with_parent(
        &self,
        session: &Session,
        handle: &zk::Client,
        node: &Arc<Node>,
        data: Vec<u8>,
        until: BootInstant,
    ) -> Result<Option<Vec<String>>, Failure> {
        let options = zk::CreateMode::Container.with_acls(self.acls());
        let parent = handle.create(&node.queue, &[], &options);
        node.ask(handle, data, self.acls());
        let look = handle.get_children(&node.queue);
        let (parent, look) =
            futures_util::join!(session.answer(until, parent), session.answer(until, look));
        match parent {
            Ok(_) | Err(Failure::Refused(zk::Error::NodeExists)) => {}
            Err(Failure::Refused(zk::Error::NoNode)) => {
                make_container(session, handle, &self.config, LOCKS, until).await?;
            }
            // It only matters where there is none: somebody else may have made it just now.
            Err(failure) => {
                if let Some(Made::Refused(_)) = self.settled(node, until).await {
                    return Err(failure);
                }
            }
        }
        Ok(look.ok().map(|(children, _)| children))
    }

    /// Looks, in this session, for a node whose request was not answered, and notes what it finds;
    /// answers who is in the queue.
    ///
    /// What was sent on a connection that has gone is executed before anything that is sent on the
    /// next one, or not at all: a server closes the connection before when the session comes again,
    /// and one that the session has left is refused by the leader. After the sync it is seen.
    pub(crate) async fn find(
        &self,
        node: &Node,
        session: &Session,
        until: BootInstant,
    ) -> Result<Vec<String>, Failure> {
        let nodes = self.children(session, &node.queue, until).await?;
        let handle = session.handle(until).await?;
        let tagged = nodes
            .iter()
            .filter(|name| Member::parse(name).is_some_and(|member| member.tag == node.tag));
        for name in tagged {
            let path = format!("{}/{name}", node.queue);
            let (_, stat) = session.answer(until, handle.get_data(&path)).await?;
            // One of an earlier session ends with that.
            if stat.ephemeral_owner == node.session.id() {
                node.found(Made::There(Place {
                    path: path.into(),
                    czxid: stat.czxid,
                    ctime: None,
                }));
                return Ok(nodes);
            }
        }
        node.found(Made::Refused(zk::Error::NoNode));
        Ok(nodes)
    }

    /// Makes sure that nothing of this request is left, or comes.
    ///
    /// A node of a session that is over here may stand at the servers until they see it too: it is
    /// removed through the next one. What such a session may still make of a request that was under way
    /// ends with it, within its timeout.
    pub(crate) async fn withdraw(
        &self,
        node: &Arc<Node>,
        until: BootInstant,
    ) -> Result<Withdrawn, Failure> {
        let own = &node.session;
        let session = match own.is_over() {
            true => self.session(until).await?,
            false => Arc::clone(own),
        };
        let handle = session.handle(until).await?;
        // An answer, or the news that its connection has gone, comes in any case.
        let made = self.settled(node, until).await;
        let made = made.ok_or(Failure::Unknown(None))?;
        let place = match made {
            Made::There(place) => place,
            Made::Refused(_) => return Ok(Withdrawn::Before),
            Made::Asked | Made::Unknown => {
                self.find(node, &session, until).await?;
                match node.place() {
                    Some(place) => place,
                    None => return Ok(Withdrawn::Before),
                }
            }
        };
        let deleted = session
            .answer(until, handle.delete(&place.path, None))
            .await;
        match deleted {
            Ok(()) => Ok(Withdrawn::Now),
            Err(Failure::Refused(zk::Error::NoNode)) => Ok(Withdrawn::Before),
            Err(failure) => Err(failure),
        }
    }

    /// Makes a grant of a claim whose node is the first of its queue.
    pub(crate) async fn grant(
        &self,
        op: &'static str,
        claim: &Claim,
        node: &Arc<Node>,
        since: BootInstant,
        until: BootInstant,
    ) -> Result<Grant> {
        let session = &node.session;
        session.quiet(until).await.map_err(|e| e.into_error(op))?;
        let place = node.place().ok_or_else(|| ended_first(op))?;
        let token = self.token(op, session, place.czxid)?;
        // In this order: whoever ends the session looks for its holds after that.
        if !self.book.held(claim.nonce, since + claim.ttl) || session.is_over() {
            return Err(ended_first(op));
        }
        let fence = Fence::new(&self.config.chroot, &place);
        Ok(Grant::new(claim, token, session.validity(claim, since)).with_record(Arc::new(fence)))
    }

    /// The token of the node that this transaction made.
    pub(crate) fn token(
        &self,
        op: &'static str,
        session: &Session,
        czxid: i64,
    ) -> Result<FencingToken> {
        let token = u64::try_from(czxid)
            .ok()
            .filter(|czxid| *czxid > 0)
            .and_then(|czxid| session.base().checked_add(czxid))
            .and_then(|token| FencingToken::new(token).ok());
        token.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, op)
                .with_detail(format!("transaction {czxid:#x} makes no token"))
        })
    }

    /// Notes what the servers' clock said just now.
    pub(crate) fn note_wall(&self, server_ms: i64) {
        let here = since_start(self.now());
        self.wall.store(server_ms - here, Ordering::Relaxed);
    }

    /// How long ago this was on the servers' clock, as far as that is known here.
    pub(crate) fn age(&self, server_ms: i64) -> Duration {
        let age = since_start(self.now()) + self.wall.load(Ordering::Relaxed) - server_ms;
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

/// Milliseconds on our clock.
fn since_start(now: BootInstant) -> i64 {
    i64::try_from(now.since_origin().as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds on this machine's wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "shown to operators who only look, and so hear of no time of the servers'; nothing is decided by it"
)]
fn since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// A claim that has asked for its node.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) node: Arc<Node>,
    /// `None` when the queue could not be seen.
    pub(crate) position: Option<Position>,
    /// What came of giving up another node in the same step.
    pub(crate) left: Option<Result<(), Failure>>,
}

/// The grant of a claim whose own time was over, or whose session was, before it could be told.
fn ended_first(op: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, op).with_detail("it ended before it could be used")
}

impl Client {
    /// Gives `nonce` up; whether it held until now.
    pub(crate) async fn give_up(
        &self,
        nonce: lock_core::Nonce,
        until: BootInstant,
    ) -> Result<bool, Failure> {
        match self.book.leaving(nonce) {
            Some(booked) => self.give_up_booked(nonce, &booked, until).await,
            None => Ok(false),
        }
    }

    /// Gives up what `nonce` asked for when it was booked like this, and nothing that it asked for since:
    /// a claim whose session was lost joins the queue again under the same nonce.
    pub(crate) async fn give_up_booked(
        &self,
        nonce: lock_core::Nonce,
        booked: &Booked,
        until: BootInstant,
    ) -> Result<bool, Failure> {
        let withdrawn = self.withdraw(&booked.node, until).await?;
        self.book.left(nonce, &booked.node);
        self.tidy.left(&booked.node.queue, self.now());
        let held = matches!(booked.standing, Standing::Leaving { held: true });
        Ok(held && withdrawn == Withdrawn::Now)
    }

    /// Takes note that the node of a hold has gone; whether that is news.
    pub(crate) fn lost(&self, nonce: lock_core::Nonce, node: &Arc<Node>) -> bool {
        let lost = self.book.lost(nonce, node);
        if lost {
            self.tidy.left(&node.queue, self.now());
        }
        lost
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.config)
            .field("session", &*self.session.borrow())
            .field("claims", &self.book.len())
            .finish_non_exhaustive()
    }
}
