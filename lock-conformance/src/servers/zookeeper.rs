//! A ZooKeeper: one server, or an ensemble.

mod session;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use self::session::Session;
use super::ensemble::Ensemble;
use super::error::{StartError, skip_if_allowed};
use super::firewall::{Firewall, Identity};
use super::member::{Launch, Member};
use super::port::free_ports;
use super::process::ServerProcess;
use crate::wait::poll;

const INSTALL: &str = "apt-get install zookeeper libslf4j-java default-jre-headless";

/// Where Debian puts what is needed of it: the server and the small logger it is content with.
const JARS: [&str; 2] = [
    "/usr/share/java/zookeeper.jar",
    "/usr/share/java/slf4j-simple.jar",
];

/// An election takes a second or two; the rest is for a busy machine.
const ELECTION_DEADLINE: Duration = Duration::from_secs(60);

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
    ensemble: Ensemble,
}

/// How to start a [`ZooKeeperServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ZooKeeperBuilder {
    members: usize,
    tick: Duration,
    min_session_timeout: Option<Duration>,
    config: String,
    java: Vec<OsString>,
    isolatable: bool,
}

/// The ports of one server.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    quorum: u16,
    election: u16,
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
            members: 1,
            tick: Duration::from_millis(200),
            min_session_timeout: None,
            config: String::new(),
            java: Vec::new(),
            isolatable: false,
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
        &self.ensemble
    }
}

impl ZooKeeperBuilder {
    /// How many members. Defaults to one.
    pub fn members(mut self, count: usize) -> Self {
        self.members = count;
        self
    }

    /// The server's unit of time: sessions expire in steps of it. Defaults to 200 ms.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// The shortest session that is granted. Defaults to two ticks. The longest is always a minute.
    pub fn min_session_timeout(mut self, timeout: Duration) -> Self {
        self.min_session_timeout = Some(timeout);
        self
    }

    /// Members can be cut off from each other, see [`isolate`](Ensemble::isolate). Takes root and nftables: each member
    /// runs as a user of its own.
    pub fn isolatable(mut self) -> Self {
        self.isolatable = true;
        self
    }

    /// A line of every member's configuration file.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.config, "{key}={value}");
        self
    }

    /// A word for the Java machine of every member, such as `-Dname=value`.
    pub fn java(mut self, word: impl Into<OsString>) -> Self {
        self.java.push(word.into());
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
        if self.isolatable {
            skip_if_allowed("isolation", Firewall::new())?;
        }
        skip_if_allowed("zookeeper", self.try_start())
    }

    /// Starts it, and waits until every member serves.
    ///
    /// # Errors
    /// [`StartError::Missing`] when Java or ZooKeeper is not installed; otherwise why it did not start.
    pub fn try_start(self) -> Result<ZooKeeperServer, StartError> {
        if let Some(missing) = JARS.iter().find(|jar| !Path::new(jar).is_file()) {
            return Err(StartError::Missing {
                what: (*missing).to_owned(),
                install: INSTALL,
            });
        }
        let (ensemble, ()) = Ensemble::start(self.isolatable, || self.prepare())?;
        Ok(ZooKeeperServer { ensemble })
    }

    fn prepare(&self) -> Result<(Vec<Member>, ()), StartError> {
        let ports: Vec<Ports> = (0..self.members)
            .map(|_| {
                let [client, quorum, election] = free_ports();
                Ports {
                    client,
                    quorum,
                    election,
                }
            })
            .collect();
        let members = (0..self.members)
            .map(|i| self.member(i, &ports))
            .collect::<io::Result<_>>()?;
        Ok((members, ()))
    }

    fn member(&self, index: usize, ports: &[Ports]) -> io::Result<Member> {
        let process = ServerProcess::new("distlock-zookeeper-")?;
        fs::write(
            process.dir().join("zoo.cfg"),
            self.config_file(index, ports),
        )?;
        let data = process.dir().join("data");
        fs::create_dir(&data)?;
        fs::write(data.join("myid"), format!("{}\n", index + 1))?;
        Member::new(process, self.launch(ports[index]))
    }

    fn config_file(&self, index: usize, ports: &[Ports]) -> String {
        let tick = self.tick.as_millis();
        let min = self
            .min_session_timeout
            .unwrap_or(2 * self.tick)
            .as_millis();
        let mut file = format!(
            "tickTime={tick}\n\
             initLimit=50\n\
             syncLimit=10\n\
             dataDir=data\n\
             clientPort={}\n\
             clientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n\
             maxClientCnxns=0\n\
             4lw.commands.whitelist=*\n\
             minSessionTimeout={min}\n\
             maxSessionTimeout=60000\n\
             forceSync=no\n",
            ports[index].client
        );
        if ports.len() > 1 {
            for (i, ports) in ports.iter().enumerate() {
                let (
                    id,
                    Ports {
                        quorum, election, ..
                    },
                ) = (i + 1, ports);
                let _ = writeln!(file, "server.{id}=127.0.0.1:{quorum}:{election}");
            }
        }
        // Last, so that a test's own settings win.
        file.push_str(&self.config);
        file
    }

    fn launch(&self, ports: Ports) -> Launch {
        let superuser = format!(
            "-Dzookeeper.DigestAuthenticationProvider.superDigest={}",
            session::SUPER_DIGEST
        );
        let mut args: Vec<OsString> = [
            "-Xmx256m",
            "-XX:+UseSerialGC",
            // Quick to start; nothing here runs long enough for better code to pay.
            "-XX:TieredStopAtLevel=1",
            // No files in a shared directory, which a killed process would leave behind.
            "-XX:-UsePerfData",
            "-Djava.net.preferIPv4Stack=true",
            "-Dznode.container.checkIntervalMs=1000",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            &superuser,
        ]
        .map(OsString::from)
        .into();
        args.extend(self.java.iter().cloned());
        let class_path = JARS.join(":");
        let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        args.extend(["-cp", &class_path, main, "./zoo.cfg"].map(OsString::from));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.client));
        Launch {
            what: "ZooKeeper",
            install: INSTALL,
            program: "java".into(),
            args,
            env: Vec::new(),
            port: ports.client,
            identity: self
                .isolatable
                .then(|| Identity::new(ports.client, [ports.quorum, ports.election])),
            is_ready: Box::new(move || words::mode(addr).is_some()),
        }
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
