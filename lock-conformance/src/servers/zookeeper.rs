//! A ZooKeeper: one server, or an ensemble.

mod launch;
mod log;
mod session;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use self::launch::{CLOCK_FILE, Settings, Started};
use self::log::Log;
pub use self::log::ZooKeeperChange;
use self::session::Session;
use super::ensemble::Ensemble;
use super::error::{StartError, skip_if_allowed};
use super::firewall::Firewall;
use super::member::Member;
use crate::faketime;
use crate::wait::poll;

/// An election takes a second or two; the rest is for a busy machine.
const ELECTION_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may take to log what it has applied, or to look at its clock again.
const CATCH_UP: Duration = Duration::from_secs(10);
/// A node that is made to see what time a server stamps it with.
const CLOCK_NODE: &str = "/distlock-clock";

/// What a server is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ZooKeeperMode {
    /// The only server there is.
    Standalone,
    /// The one of several that orders writes.
    Leader,
    /// One of several, with a leader.
    Follower,
}

/// A running ZooKeeper on 127.0.0.1, gone when dropped. What concerns its processes, an [`Ensemble`] can.
///
/// Its tick is short (200 ms), sessions may be as short as two ticks, and empty containers are reaped after a second
/// or two. Nothing is synced to disk: data survives a killed process, not a machine.
///
/// All methods block, and take `&self` so that fault hooks and threads can share one server.
#[derive(Debug)]
pub struct ZooKeeperServer {
    started: Started,
}

/// How to start a [`ZooKeeperServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ZooKeeperBuilder {
    settings: Settings,
}

impl ZooKeeperServer {
    /// Starts one server.
    ///
    /// # Panics
    /// If ZooKeeper is not installed or does not start.
    #[must_use]
    pub fn start() -> ZooKeeperServer {
        ZooKeeperServer::builder().start()
    }

    /// Like [`start`](Self::start); `None`, said loudly, if it is missing and `LOCK_TEST_ALLOW_MISSING` names
    /// `zookeeper`.
    ///
    /// # Panics
    /// If it is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip() -> Option<ZooKeeperServer> {
        ZooKeeperServer::builder().start_or_skip()
    }

    /// A server with settings.
    pub fn builder() -> ZooKeeperBuilder {
        ZooKeeperBuilder {
            settings: Settings {
                members: 1,
                tick: Duration::from_millis(200),
                min_session_timeout: None,
                config: String::new(),
                java: Vec::new(),
                tls: false,
                isolatable: false,
                steppable: false,
            },
        }
    }

    /// What clients take: `127.0.0.1:PORT`, every member's behind a comma.
    #[must_use]
    pub fn connect_string(&self) -> String {
        self.endpoints().join(",")
    }

    /// `zk://127.0.0.1:PORT`, every member's port behind a comma.
    #[must_use]
    pub fn url(&self) -> String {
        format!("zk://{}", self.connect_string())
    }

    /// Where clients with TLS connect, one for each member: `127.0.0.1:PORT`; none without
    /// [`tls`](ZooKeeperBuilder::tls).
    #[must_use]
    pub fn tls_endpoints(&self) -> Vec<String> {
        let ports = self
            .started
            .tls
            .iter()
            .flat_map(|_| &self.started.tls_ports);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// PEM file of the authority that signed the server's certificate; `None` without [`tls`](ZooKeeperBuilder::tls).
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.started.tls.as_ref().map(|files| files.ca.as_path())
    }

    /// What a member is doing; `None` if it does not serve.
    #[must_use]
    pub fn mode(&self, member: usize) -> Option<ZooKeeperMode> {
        let member = self.member(member);
        member.is_awake().then(|| words::mode(member.addr()))?
    }

    /// The member that leads, or the only one; `None` if none does, or two say so (one of them has not heard yet). One
    /// that is cut off from the others is not asked.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        use ZooKeeperMode::{Leader, Standalone};
        let members = self.reachable();
        let leads = |&&i: &&usize| matches!(self.mode(i), Some(Leader | Standalone));
        let mut leaders = members.iter().filter(leads);
        leaders.next().copied().filter(|_| leaders.next().is_none())
    }

    /// Waits until exactly one member leads; gives it.
    ///
    /// # Panics
    /// If that takes a minute.
    #[must_use]
    pub fn await_leader(&self) -> usize {
        poll(ELECTION_DEADLINE, || self.leader()).expect("a leader is elected")
    }

    /// The last transaction that the leader has applied: its epoch in the upper half, and a count from the start of
    /// that epoch in the lower. One server alone stays in one epoch for ever.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn zxid(&self) -> io::Result<u64> {
        words::zxid(self.leading()?.addr())
    }

    /// Everything that went through a majority since the last election, or, on one server alone, ever: the difference
    /// of two readings is the exact number of quorum writes in between, as long as the leader stays.
    ///
    /// A write that was answered is in it. So are nodes made, changed and deleted (a `multi` is one), also those that
    /// failed, sessions opened, closed and expired, and containers reaped. Reads, `sync`, watches and pings are not.
    /// The launcher's own look at nodes costs a session: two.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn writes(&self) -> io::Result<u64> {
        Ok(self.zxid()? & u64::from(u32::MAX))
    }

    /// What a member says to `mntr`, by name.
    ///
    /// # Errors
    /// The member does not answer.
    pub fn mntr(&self, member: usize) -> io::Result<BTreeMap<String, String>> {
        let text = self.word(member, "mntr")?;
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// What a member answers to a four-letter word.
    ///
    /// # Errors
    /// The member does not answer.
    pub fn word(&self, member: usize, word: &str) -> io::Result<String> {
        words::ask(self.member(member).addr(), word)
    }

    /// Watches that are set now, all members together.
    ///
    /// # Errors
    /// A member that should serve does not.
    pub fn watches(&self) -> io::Result<u64> {
        let awake = self.members().iter().filter(|member| member.is_awake());
        awake.map(|member| words::watches(member.addr())).sum()
    }

    /// The numbers of all sessions that have not ended, sorted.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn sessions(&self) -> io::Result<Vec<i64>> {
        words::sessions(self.leading()?.addr())
    }

    /// The sessions that own ephemeral nodes, and those nodes, sorted.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn ephemerals(&self) -> io::Result<BTreeMap<i64, Vec<String>>> {
        words::ephemerals(self.leading()?.addr())
    }

    /// Ends a session as its client would, so that the client learns of it from the server: its connection is closed,
    /// and it hears of the expiry when it comes back. Says whether the session was there.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn kill_session(&self, id: i64) -> io::Result<bool> {
        Session::close_foreign(self.leading()?.addr(), id)
    }

    /// Every node that came or went since the first start, as the leader has logged it before it was done, in the order
    /// in which that was decided. Nothing that is under way when this is called is missing afterwards.
    ///
    /// # Errors
    /// There is no leader, or its log cannot be read.
    pub fn changes(&self) -> io::Result<Vec<ZooKeeperChange>> {
        let leader = self.leading()?;
        let applied = words::zxid(leader.addr())?;
        let data = leader.dir().join("data");
        poll(CATCH_UP, || match Log::read(&data) {
            Ok(log) => (log.last >= applied).then_some(Ok(log.changes)),
            Err(error) => Some(Err(error)),
        })
        .unwrap_or_else(|| Err(io::Error::other("the leader does not log what it applies")))
    }

    /// Sets the wall clock of every member to true time plus `seconds`, while they run; survives a restart. Takes
    /// [`steppable_clock`](ZooKeeperBuilder::steppable_clock).
    ///
    /// The step is checked with the time that the leader stamps a node with: a clock test with a clock that does not
    /// move would pass for nothing.
    ///
    /// # Errors
    /// The clock files cannot be written, there is no leader, or its clock did not step.
    pub fn set_clock_offset(&self, seconds: i64) -> io::Result<()> {
        for member in self.members() {
            faketime::set(&member.dir().join(CLOCK_FILE), seconds)?;
        }
        let mut seen = Duration::ZERO;
        poll(CATCH_UP, || {
            let before = faketime::true_time();
            seen = match self.time() {
                Ok(time) => time,
                Err(error) => return Some(Err(error)),
            };
            faketime::is_off_by(seconds, before, seen).then_some(Ok(()))
        })
        .unwrap_or_else(|| {
            Err(io::Error::other(format!(
                "the servers' clock should be off by {seconds} s and is at {seen:?}"
            )))
        })
    }

    /// The leader's own idea of the time, since 1970. It costs two writes and a session.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn time(&self) -> io::Result<Duration> {
        self.with_session(|session| {
            session.create(CLOCK_NODE, &[])?;
            let made = session.made_at(CLOCK_NODE)?;
            session.delete(CLOCK_NODE)?;
            made.ok_or_else(|| io::Error::other("somebody has deleted the node"))
        })
    }

    /// All nodes below `path`, itself and ZooKeeper's own aside, as full paths, sorted.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub fn nodes(&self, path: &str) -> io::Result<Vec<String>> {
        self.with_session(|session| walk(session, path))
    }

    /// Makes a persistent node that everybody may use, unless it is there.
    ///
    /// # Errors
    /// There is no leader, or the parent is missing.
    pub fn create(&self, path: &str, data: &[u8]) -> io::Result<()> {
        self.with_session(|session| session.create(path, data))
    }

    /// Deletes one node, whoever it belongs to, unless it is gone already.
    ///
    /// # Errors
    /// There is no leader, or the node has children.
    pub fn delete(&self, path: &str) -> io::Result<()> {
        match self.with_session(|session| session.delete(path))? {
            true => Ok(()),
            false => Err(io::Error::other(format!("{path} has children"))),
        }
    }

    /// Deletes all nodes but ZooKeeper's own, also those of others and those that clients make meanwhile.
    ///
    /// # Errors
    /// There is no leader, or clients are faster at making nodes.
    pub fn wipe(&self) -> io::Result<()> {
        self.with_session(|session| {
            for _ in 0..100 {
                let nodes = walk(session, "/")?;
                if nodes.is_empty() {
                    return Ok(());
                }
                // Children stand behind their parents.
                for node in nodes.iter().rev() {
                    session.delete(node)?;
                }
            }
            Err(io::Error::other(
                "nodes are made faster than they are deleted",
            ))
        })
    }

    /// A session for one call, with every right. It is ended afterwards whatever came of the call: a session that is
    /// only left stands in the server until it expires.
    fn with_session<T>(&self, call: impl FnOnce(&mut Session) -> io::Result<T>) -> io::Result<T> {
        let mut session = Session::open(self.leading()?.addr())?;
        let result = call(&mut session);
        let closed = session.close();
        result.and_then(|result| closed.map(|()| result))
    }

    fn leading(&self) -> io::Result<&Member> {
        let leader = self.leader();
        leader
            .map(|leader| self.member(leader))
            .ok_or_else(|| io::Error::other("no member leads"))
    }
}

impl Deref for ZooKeeperServer {
    type Target = Ensemble;

    fn deref(&self) -> &Ensemble {
        &self.started.ensemble
    }
}

impl ZooKeeperBuilder {
    /// How many members. Defaults to one.
    pub fn members(mut self, count: usize) -> Self {
        self.settings.members = count;
        self
    }

    /// The server's unit of time: sessions expire in steps of it. Defaults to 200 ms.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.settings.tick = tick;
        self
    }

    /// The shortest session that is granted. Defaults to two ticks. The longest is always a minute.
    pub fn min_session_timeout(mut self, timeout: Duration) -> Self {
        self.settings.min_session_timeout = Some(timeout);
        self
    }

    /// Members can be cut off from each other, see [`isolate`](Ensemble::isolate). Takes root and nftables: each member
    /// runs as a user of its own.
    pub fn isolatable(mut self) -> Self {
        self.settings.isolatable = true;
        self
    }

    /// Members also listen on a TLS port, with a certificate for `localhost` and 127.0.0.1 by an authority made for it.
    pub fn tls(mut self) -> Self {
        self.settings.tls = true;
        self
    }

    /// The members' wall clock can be set, see [`set_clock_offset`](ZooKeeperServer::set_clock_offset). Takes
    /// libfaketime, under which a Java takes some seconds to start.
    pub fn steppable_clock(mut self) -> Self {
        self.settings.steppable = true;
        self
    }

    /// A line of every member's configuration file.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.settings.config, "{key}={value}");
        self
    }

    /// A word for the Java machine of every member, such as `-Dname=value`.
    pub fn java(mut self, word: impl Into<OsString>) -> Self {
        self.settings.java.push(word.into());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If ZooKeeper is missing or does not start.
    #[must_use]
    pub fn start(self) -> ZooKeeperServer {
        self.try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it; `None`, said loudly, if it is missing and `LOCK_TEST_ALLOW_MISSING` names `zookeeper`.
    ///
    /// # Panics
    /// If it is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip(self) -> Option<ZooKeeperServer> {
        if self.settings.isolatable {
            skip_if_allowed("isolation", Firewall::new())?;
        }
        skip_if_allowed("zookeeper", self.try_start())
    }

    /// Starts it, and waits until every member serves.
    ///
    /// # Errors
    /// [`StartError::Missing`] when Java or ZooKeeper is not installed; otherwise why it did not start.
    pub fn try_start(self) -> Result<ZooKeeperServer, StartError> {
        let server = ZooKeeperServer {
            started: self.settings.start()?,
        };
        if self.settings.steppable {
            // Under libfaketime the first session takes a Java seconds, which no client would wait for.
            server.set_clock_offset(0)?;
        }
        Ok(server)
    }
}

/// All nodes below `path`, parents before their children, ZooKeeper's own aside.
fn walk(session: &mut Session, path: &str) -> io::Result<Vec<String>> {
    let mut nodes = Vec::new();
    let mut unseen = vec![path.trim_end_matches('/').to_owned()];
    while let Some(parent) = unseen.pop() {
        let path = if parent.is_empty() { "/" } else { &parent };
        // One that is gone since it was listed has no children.
        for child in session.children(path)?.unwrap_or_default() {
            let child = format!("{parent}/{child}");
            if child != "/zookeeper" {
                nodes.push(child.clone());
                unseen.push(child);
            }
        }
    }
    nodes.sort();
    Ok(nodes)
}
