//! The harness: one server or three, an arena of its own below each case's root.

mod witness;

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lock_conformance::fault::jute::request;
use lock_conformance::fault::{Call, Protocol, Proxy};
use lock_conformance::servers::{StartError, ZooKeeperServer, missing_is_allowed};
use lock_conformance::{
    Arena, Case, Deviation, Fault, Faults, Harness, HeldRequest, Missing, Pace, Wire, Witness,
    async_trait,
};
use lock_core::{Clock, Connect, Context, Identity};
use lock_zk::ZkConfig;
use lock_zk::zookeeper_client as zk;
use witness::Log;

/// How long the tools may take; it only matters when something is broken.
const TOOLS: Duration = Duration::from_secs(10);
/// The session timeout of most cases: seven ticks of the server and a half.
const SESSION: Duration = Duration::from_millis(1500);
/// That of cases in which a server is killed: it is back long before, or another leads.
const LONG_SESSION: Duration = Duration::from_secs(12);
/// That of cases that count, or that no end of a lease belongs to: a machine that is busy does not end one.
const STEADY_SESSION: Duration = Duration::from_secs(6);
/// How long the answer to a late copy is waited for on a connection that the server may have closed.
const LATE: Duration = Duration::from_secs(1);
const USER: &str = "app";
const PASSWORD: &str = "correct horse";

/// What cannot be done to a server that others use, or be seen on it.
const OWN_SERVER: &[Fault] = &[Fault::Kill, Fault::Pause, Fault::Count, Fault::Failover];

pub(crate) struct ZkHarness {
    members: usize,
    shared: OnceLock<Result<Arc<ZooKeeperServer>, Missing>>,
}

impl ZkHarness {
    /// One server.
    #[allow(dead_code, reason = "each test target uses one of the two")]
    pub(crate) fn single() -> Self {
        Self::of(1)
    }

    /// Three members.
    #[allow(dead_code, reason = "each test target uses one of the two")]
    pub(crate) fn ensemble() -> Self {
        Self::of(3)
    }

    fn of(members: usize) -> Self {
        Self {
            members,
            shared: OnceLock::new(),
        }
    }

    fn server(&self) -> Result<Arc<ZooKeeperServer>, Missing> {
        let server = ZooKeeperServer::builder()
            .members(self.members)
            // Cases stop all members for some seconds: no reason to elect another leader.
            .config("syncLimit", "50")
            // An empty container is the clients' affair, or counts would not be exact.
            .java("-Dznode.container.checkIntervalMs=3600000")
            .try_start();
        server.map(Arc::new).map_err(|error| Missing {
            what: error.to_string(),
            allowed: matches!(error, StartError::Missing { .. }) && missing_is_allowed("zookeeper"),
        })
    }
}

impl Harness for ZkHarness {
    fn name(&self) -> &str {
        match self.members {
            1 => "zookeeper",
            _ => "zookeeper ensemble",
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            // More than a session: cases stop a process until its session is over, and its requests with it.
            op_timeout: SESSION * 2,
            // A delete and a create, in one round trip.
            local_hand_off: 2,
            ..Pace::new(SESSION)
        }
    }

    /// Cases here wait for sessions to end, and one server has little to do meanwhile; three members have more.
    fn side_by_side(&self) -> usize {
        if self.members == 1 { 6 } else { 4 }
    }

    fn deviations(&self) -> &[Deviation] {
        &[Deviation {
            case: "R9.10",
            reason: "a try reads before it writes, so that it writes nothing on a held lock: with its answers \
                dropped it never asks for the grant. The lost answer to an acquire is in the tests of this crate.",
        }]
    }

    fn supports(&self, fault: Fault) -> bool {
        match fault {
            // There are no scripts, no history is kept, a leader cannot be asked to go, what a majority has is
            // not lost with it, and no setting changes while it runs.
            Fault::FlushScripts
            | Fault::Compact
            | Fault::MoveLeader
            | Fault::StopReplication
            | Fault::Reconfigure => false,
            // No wall clock decides anything: the tests of the launcher show that sessions outlive steps of a
            // day both ways. Under libfaketime a Java is too slow for the sessions of these cases.
            Fault::StepClock => false,
            Fault::Failover => self.members > 1,
            _ => true,
        }
    }

    fn crosses_processes(&self) -> bool {
        true
    }

    fn arena(&self, case: &Case) -> Result<Arena, Missing> {
        let server = if OWN_SERVER.iter().any(|fault| case.injects(*fault)) {
            self.server()?
        } else {
            self.shared.get_or_init(|| self.server()).clone()?
        };
        let session = if case.injects(Fault::Kill) || case.injects(Fault::Failover) {
            LONG_SESSION
        } else if case.injects(Fault::Count) || waits_for_no_end(case) {
            STEADY_SESSION
        } else {
            SESSION
        };
        let place = Place {
            ports: server
                .members()
                .iter()
                .map(|member| member.port())
                .collect(),
            root: format!("/{}", case.id.replace('.', "-")),
            session,
            login: case.injects(Fault::WrongCredentials),
        };
        if place.login {
            place.claim_root()?;
        }
        let faults = Arc::new(ZkFaults {
            proxy: Proxy::start_with(server.addr(), Protocol::Jute),
            server,
            place: place.clone(),
            obstacles: Mutex::new(Vec::new()),
        });
        let proxied = Place {
            ports: vec![faults.proxy.addr().port()],
            ..place.clone()
        };
        let connector = |place: Place| move || -> Box<dyn Connect> { Box::new(place.config()) };
        // What is counted passes the proxy, which reads it.
        let plain = match case.injects(Fault::Count) {
            true => &proxied,
            false => &place,
        };
        Ok(Arena::new(connector(plain.clone()))
            .with_proxied(connector(proxied.clone()))
            .with_spec(place.to_spec())
            .with_faults(faults))
    }

    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        Some(Box::new(Place::from_spec(spec)?.config()))
    }
}

/// Names, and what is left of many cycles: long holds of many locks, none of which is meant to end by itself.
fn waits_for_no_end(case: &Case) -> bool {
    case.rule() == "R10" || matches!(case.id, "R12.01" | "R12.02" | "R12.03" | "R12.04")
}

/// Where clients of one arena connect, and below which node.
#[derive(Clone)]
struct Place {
    ports: Vec<u16>,
    root: String,
    session: Duration,
    login: bool,
}

impl Place {
    fn config(&self) -> ZkConfig {
        let mut ports = self.ports.iter();
        let first = ports.next().expect("a server");
        let config = ports
            .fold(ZkConfig::new("127.0.0.1", *first), |config, port| {
                config.with_server("127.0.0.1", *port)
            })
            .with_chroot(self.root.as_str())
            .with_session_timeout(self.session);
        match self.login {
            true => config.with_credentials(USER, PASSWORD),
            false => config,
        }
    }

    /// Makes the root as whoever has the right credentials does.
    fn claim_root(&self) -> io::Result<()> {
        let config = self.config();
        let connecting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let context = Context::new(Identity::of_this_process("root"));
                let backend = config.connect(context).await.map_err(io::Error::other)?;
                backend.close().await.map_err(io::Error::other)
            })
        });
        connecting.join().expect("no panic")
    }

    fn to_spec(&self) -> String {
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        format!(
            "{} {} {}",
            ports.join(","),
            self.root,
            self.session.as_millis()
        )
    }

    fn from_spec(spec: &str) -> Option<Self> {
        let mut parts = spec.split(' ');
        let ports = parts.next()?.split(',').map(str::parse);
        Some(Self {
            ports: ports.collect::<Result<_, _>>().ok()?,
            root: parts.next()?.to_owned(),
            session: Duration::from_millis(parts.next()?.parse().ok()?),
            login: false,
        })
    }
}

struct ZkFaults {
    proxy: Proxy,
    server: Arc<ZooKeeperServer>,
    place: Place,
    /// Sessions that own what is in the way.
    obstacles: Mutex<Vec<zk::Client>>,
}

impl ZkFaults {
    /// A client of the same root with every right there is.
    async fn client(&self) -> io::Result<zk::Client> {
        let ports: Vec<_> = self
            .place
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let connecting = zk::Client::connector()
            .with_session_timeout(LONG_SESSION)
            .connect(&ports.join(","))
            .await
            .map_err(io::Error::other)?;
        connecting
            .chroot(self.place.root.as_str())
            .map_err(|_| io::Error::other("no path"))
    }

    /// Every node of this arena with what it is, its root aside; children behind their parents.
    async fn nodes(&self, client: &zk::Client) -> io::Result<Vec<(String, zk::Stat)>> {
        let mut nodes = Vec::new();
        let mut unseen = vec![String::new()];
        while let Some(parent) = unseen.pop() {
            let path = if parent.is_empty() { "/" } else { &parent };
            let children = match client.list_children(path).await {
                Ok(children) => children,
                Err(zk::Error::NoNode) => continue,
                Err(error) => return Err(io::Error::other(error)),
            };
            for child in children {
                let path = format!("{parent}/{child}");
                let stat = client.check_stat(&path).await.map_err(io::Error::other)?;
                if let Some(stat) = stat {
                    nodes.push((path.clone(), stat));
                    unseen.push(path);
                }
            }
        }
        Ok(nodes)
    }
}

#[async_trait]
impl Faults for ZkFaults {
    async fn kill_server(&self) -> io::Result<()> {
        self.server.kill();
        Ok(())
    }

    async fn restart_server(&self) -> io::Result<()> {
        self.server.restart();
        Ok(())
    }

    /// Removes every node at once: sessions stay, and so does what the ensemble counts.
    async fn wipe(&self) -> io::Result<()> {
        let client = self.client().await?;
        for _ in 0..100 {
            let mut nodes = self.nodes(&client).await?;
            // The clients' own first, and children before their parents.
            nodes.sort_by_key(|(path, _)| {
                let of_a_client = path.starts_with("/c/");
                (!of_a_client, std::cmp::Reverse(path.matches('/').count()))
            });
            let mut all = client.new_multi_writer();
            for (path, _) in &nodes {
                all.add_delete(path, None).map_err(io::Error::other)?;
            }
            if all.commit().await.is_ok() {
                return Ok(());
            }
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "nodes are made faster than they are removed",
        ))
    }

    async fn pause_server(&self) -> io::Result<()> {
        self.server.pause();
        Ok(())
    }

    async fn resume_server(&self) -> io::Result<()> {
        self.server.resume();
        Ok(())
    }

    async fn kill_session(&self, name: &str, place: usize) -> io::Result<()> {
        let client = self.client().await?;
        let queue = format!("/l/{}", escaped(name));
        let mut nodes = match client.list_children(&queue).await {
            Err(zk::Error::NoNode) => Vec::new(),
            nodes => nodes.map_err(io::Error::other)?,
        };
        // The server's own count, behind the tag.
        nodes.sort_by_key(|node| node.split_once('-').map(|(_, count)| count.to_owned()));
        let node = nodes.get(place).ok_or_else(|| nobody(place))?;
        let stat = client.check_stat(&format!("{queue}/{node}")).await;
        let stat = stat.map_err(io::Error::other)?;
        let owner = stat.map(|stat| stat.ephemeral_owner);
        match owner.map(|owner| self.server.kill_session(owner)) {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(error),
            _ => Err(nobody(place)),
        }
    }

    /// The one that is killed comes back, and follows.
    async fn fail_over(&self) -> io::Result<()> {
        let dead = self.server.await_leader();
        self.server.member(dead).kill();
        let _leads = self.server.await_leader();
        self.server.member(dead).restart();
        Ok(())
    }

    async fn witness(&self) -> io::Result<Box<dyn Witness + '_>> {
        Ok(Box::new(Log {
            server: Arc::clone(&self.server),
            root: self.place.root.clone(),
        }))
    }

    /// It reads the transaction log of a member, which is asked nothing meanwhile.
    fn witness_outlives(&self, fault: Fault) -> bool {
        fault == Fault::Pause
    }

    fn wire(&self) -> Option<&dyn Wire> {
        Some(&self.proxy)
    }

    /// Holds what would change something, or ask about one node: looking at a queue is of no interest.
    async fn hold_next_request(&self, text: &str) -> io::Result<Box<dyn HeldRequest + '_>> {
        let text = escaped(text);
        self.proxy.hold_requests_matching(move |message| {
            request(message).is_some_and(|request| {
                let look = matches!(request.name.as_str(), "getChildren2" | "sync");
                !look && request.path.contains(&text)
            })
        });
        Ok(Box::new(Held(&self.proxy)))
    }

    /// Without a look at a queue that is sent together with a request for a node in it, and without what
    /// a session does for itself: `sync`, which is a heartbeat or goes together with a look, and the list
    /// of everything that the session owns.
    async fn commands_during(&self, work: BoxFuture<'_, ()>) -> io::Result<Vec<String>> {
        self.proxy.clear_calls();
        work.await;
        let mut looked_at = Vec::new();
        let mut commands = Vec::new();
        for Call { name, path, .. } in self.proxy.calls() {
            match name.as_str() {
                "sync" | "getEphemerals" => continue,
                "create2" => {
                    looked_at.extend(path.rsplit_once('/').map(|(queue, _)| queue.to_owned()))
                }
                "getChildren2" => {
                    if let Some(at) = looked_at.iter().position(|queue| *queue == path) {
                        looked_at.swap_remove(at);
                        continue;
                    }
                }
                _ => {}
            }
            commands.push(format!("{name} {}", path.replace("%2F", "/")));
        }
        Ok(commands)
    }

    async fn records(&self) -> io::Result<Vec<String>> {
        let nodes = self.nodes(&self.client().await?).await?;
        Ok(nodes.into_iter().map(|(path, _)| path).collect())
    }

    /// Neither of a session nor a container. A server does not say which nodes are containers: that
    /// those of the layout are, the tests of this crate show.
    async fn unbounded_records(&self) -> io::Result<Vec<String>> {
        let nodes = self.nodes(&self.client().await?).await?;
        let container = |path: &str| path == "/c" || path == "/l" || path.starts_with("/l/");
        let persistent = nodes
            .into_iter()
            .filter(|(path, stat)| stat.ephemeral_owner == 0 && !container(path));
        Ok(persistent.map(|(path, _)| path).collect())
    }

    async fn scripts(&self) -> io::Result<u64> {
        self.server.writes()
    }

    async fn connections(&self) -> io::Result<usize> {
        self.server.connections()
    }

    /// There are none: a waiter has a one-shot watch, which is part of its place in the queue.
    async fn subscriptions(&self) -> io::Result<usize> {
        Ok(0)
    }

    fn wrong_credentials(&self) -> io::Result<Box<dyn Connect>> {
        Ok(Box::new(
            self.place.config().with_credentials(USER, "wrong battery"),
        ))
    }

    async fn obstruct(&self, name: &str) -> io::Result<()> {
        let client = self.client().await?;
        let container = zk::CreateMode::Container.with_acls(zk::Acls::anyone_all());
        match client.create("/l", &[], &container).await {
            Ok(_) | Err(zk::Error::NodeExists) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        let path = format!("/l/{}", escaped(name));
        let ephemeral = zk::CreateMode::Ephemeral.with_acls(zk::Acls::anyone_all());
        client
            .create(&path, b"not a lock", &ephemeral)
            .await
            .map_err(io::Error::other)?;
        self.obstacles.lock().expect("not poisoned").push(client);
        Ok(())
    }
}

/// A request that the proxy keeps.
struct Held<'a>(&'a Proxy);

#[async_trait]
impl HeldRequest for Held<'_> {
    async fn caught(&self) -> io::Result<()> {
        self.0.until(TOOLS, |stats| stats.held_requests > 0).await;
        Ok(())
    }

    async fn deliver(&self) -> io::Result<()> {
        let before = self.0.stats();
        self.0.deliver_held();
        let answered = self
            .0
            .until(TOOLS, |stats| stats.late_replies > before.late_replies);
        // A server closes the old connection when the session comes back by another one: then it takes
        // nothing from it any more, and there is no answer.
        let _ = Clock::system().timeout(LATE, answered).await;
        Ok(())
    }
}

/// A lock's name as its node is called; names of cases are printable ASCII.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

fn nobody(place: usize) -> io::Error {
    let what = format!("nobody stands at place {place}");
    io::Error::new(io::ErrorKind::NotFound, what)
}
