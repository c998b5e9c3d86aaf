//! The harness: etcd as the conformance suite sees it.
//!
//! A case that hurts its server gets one of its own; the others share one, each under a prefix of its
//! own. Every arena has a proxy of its own, in front of the first member.

mod witness;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::{EtcdBuilder, EtcdServer, StartError, missing_is_allowed};
use lock_conformance::{
    Arena, Case, Fault, Faults, Harness, HeldRequest, Missing, Pace, Wire, Witness, async_trait,
};
use lock_core::{Backend, Claim, Connect, Context, Cursor, Identity, LockName};
use lock_etcd::EtcdConfig;
use witness::Past;

/// How long the tools may take; it only matters when something is broken.
const TOOLS: Duration = Duration::from_secs(10);
/// Longer than the moment after its coming in which a waiter's own key needs no proof.
const MOMENT: Duration = Duration::from_millis(100);
const USER: &str = "app";
const PASSWORD: &str = "correct horse";

/// What cannot be done to a server that others use, or be seen on it.
const OWN_SERVER: &[Fault] = &[
    Fault::Kill,
    Fault::Wipe,
    Fault::Pause,
    Fault::Records,
    Fault::Count,
    Fault::WrongCredentials,
    Fault::Obstruct,
    Fault::Compact,
    Fault::MoveLeader,
    Fault::Failover,
];

/// etcd with so many members.
pub(crate) struct EtcdHarness {
    members: usize,
    shared: OnceLock<Result<Arc<EtcdServer>, Missing>>,
}

impl EtcdHarness {
    pub(crate) const fn new(members: usize) -> Self {
        Self {
            members,
            shared: OnceLock::new(),
        }
    }

    fn start(
        &self,
        settings: impl FnOnce(EtcdBuilder) -> EtcdBuilder,
    ) -> Result<Arc<EtcdServer>, Missing> {
        let builder = EtcdServer::builder().members(self.members);
        let server = settings(builder).try_start();
        server.map(Arc::new).map_err(|error| missing(&error))
    }
}

impl Harness for EtcdHarness {
    fn name(&self) -> &str {
        match self.members {
            1 => "etcd",
            _ => "etcd cluster",
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            // Members that share a busy machine lose their leader now and then, and need a while.
            op_timeout: Duration::from_secs(if self.members == 1 { 2 } else { 3 }),
            ..Pace::new(Duration::from_secs(1))
        }
    }

    fn supports(&self, fault: Fault) -> bool {
        match fault {
            // etcd has no scripts, and counts leases on a clock that nobody can step. What a majority has is
            // not lost with its leader, and no setting changes while it runs.
            Fault::FlushScripts
            | Fault::StepClock
            | Fault::StopReplication
            | Fault::Reconfigure => false,
            Fault::MoveLeader | Fault::Failover => self.members > 1,
            _ => true,
        }
    }

    fn crosses_processes(&self) -> bool {
        true
    }

    fn arena(&self, case: &Case) -> Result<Arena, Missing> {
        let server = if OWN_SERVER.iter().any(|fault| case.injects(*fault)) {
            self.start(|builder| builder)?
        } else {
            self.shared
                .get_or_init(|| self.start(|builder| builder))
                .clone()?
        };
        let prefix = case.id.replace('.', "-");
        let secret = case.injects(Fault::WrongCredentials);
        if secret {
            server.add_user(USER, PASSWORD, &format!("{prefix}/"))?;
            server.authenticate("root's own")?;
        }
        let place = Place {
            endpoints: server.endpoints(),
            prefix,
        };
        let proxy = proxy(&server);
        let proxied = Place {
            endpoints: vec![proxy.addr().to_string()],
            prefix: place.prefix.clone(),
        };
        let faults = Arc::new(EtcdFaults {
            proxy,
            server,
            place: place.clone(),
        });
        let spec = place.to_spec();
        let connector = move |place: Place| {
            move || -> Box<dyn Connect> {
                let config = place.config();
                Box::new(match secret {
                    true => config.with_credentials(USER, PASSWORD),
                    false => config,
                })
            }
        };
        Ok(Arena::new(connector(place))
            .with_proxied(connector(proxied))
            .with_spec(spec)
            .with_faults(faults))
    }

    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        Some(Box::new(Place::from_spec(spec)?.config()))
    }
}

fn proxy(server: &EtcdServer) -> Proxy {
    Proxy::start_with(server.addr(), Protocol::Http2)
}

fn missing(error: &StartError) -> Missing {
    Missing {
        what: error.to_string(),
        allowed: matches!(error, StartError::Missing { .. }) && missing_is_allowed("etcd"),
    }
}

/// Where clients of one arena connect, and what their keys begin with.
#[derive(Clone)]
struct Place {
    endpoints: Vec<String>,
    prefix: String,
}

impl Place {
    fn config(&self) -> EtcdConfig {
        let endpoints = self.endpoints.iter().map(|endpoint| {
            let (host, port) = endpoint.rsplit_once(':').expect("host:port");
            (host, port.parse().expect("a port"))
        });
        EtcdConfig::new(endpoints).with_prefix(self.prefix.as_str())
    }

    fn to_spec(&self) -> String {
        format!("{} {}", self.endpoints.join(","), self.prefix)
    }

    fn from_spec(spec: &str) -> Option<Self> {
        let (endpoints, prefix) = spec.split_once(' ')?;
        Some(Self {
            endpoints: endpoints.split(',').map(str::to_owned).collect(),
            prefix: prefix.to_owned(),
        })
    }
}

struct EtcdFaults {
    proxy: Proxy,
    server: Arc<EtcdServer>,
    place: Place,
}

/// What the server counts in a unit of its own, and clients do not send for a lock's sake.
const NOT_COUNTED: &[&str] = &["Watch/Watch", "Auth/Authenticate"];

impl EtcdFaults {
    /// Our own look at the locks of this arena.
    async fn look(&self) -> io::Result<Arc<dyn Backend>> {
        let identity = Identity::of_this_process("suite");
        let connecting = self.place.config().connect(Context::new(identity)).await;
        connecting.map_err(io::Error::other)
    }

    /// Waits until everybody who holds or waits has done so for longer than the moment in which a
    /// waiter's own key needs no proof.
    async fn until_stood(&self) -> io::Result<()> {
        let backend = self.look().await?;
        let stood = async {
            loop {
                let listed = backend.list("", Cursor::default()).await;
                let mut youngest = Duration::MAX;
                for name in listed.map_err(io::Error::other)?.names {
                    let state = backend.inspect(&name).await.map_err(io::Error::other)?;
                    let holders = state.holders.iter().map(|holder| holder.age);
                    let ages = holders.chain(state.waiters.iter().map(|waiter| waiter.age));
                    youngest = ages.fold(youngest, Duration::min);
                }
                if youngest > MOMENT {
                    return backend.close().await.map_err(io::Error::other);
                }
            }
        };
        let in_time = tokio::time::timeout(TOOLS, stood).await;
        in_time.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "somebody comes and comes",
            ))
        })
    }

    fn mine(&self, keys: Vec<String>) -> Vec<String> {
        let start = format!("{}/", self.place.prefix);
        keys.into_iter()
            .filter(|key| key.starts_with(&start))
            .collect()
    }
}

#[async_trait]
impl Faults for EtcdFaults {
    async fn kill_server(&self) -> io::Result<()> {
        self.server.kill();
        Ok(())
    }

    async fn restart_server(&self) -> io::Result<()> {
        self.server.restart();
        Ok(())
    }

    async fn wipe(&self) -> io::Result<()> {
        // What is deleted by hand in the moment of its coming is documented to be noticed later.
        self.until_stood().await?;
        // In one step, as a loss of data is. Leases are no locks: they end by themselves.
        self.server.cli(&["del", "", "--from-key"]).map(drop)
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
        let name = name.replace('%', "%25").replace('/', "%2F");
        let queue = format!("{}/l/{name}/", self.place.prefix);
        let leases = self.server.leases_of(&queue)?;
        let lease = leases.get(place).ok_or_else(|| nobody(place))?;
        match self.server.revoke(*lease)? {
            true => Ok(()),
            false => Err(nobody(place)),
        }
    }

    async fn compact(&self) -> io::Result<()> {
        self.server.compact()
    }

    async fn move_leader(&self) -> io::Result<()> {
        let next = (self.server.await_leader() + 1) % self.server.members().len();
        self.server.move_leader(next)
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
        let Place { endpoints, prefix } = &self.place;
        Ok(Box::new(Past::from_now_on(endpoints, prefix).await?))
    }

    /// It is asked in the end, and told everything from its first revision on.
    fn witness_outlives(&self, fault: Fault) -> bool {
        matches!(
            fault,
            Fault::Kill | Fault::Pause | Fault::MoveLeader | Fault::Failover
        )
    }

    fn wire(&self) -> Option<&dyn Wire> {
        Some(&self.proxy)
    }

    async fn hold_next_request(&self, text: &str) -> io::Result<Box<dyn HeldRequest + '_>> {
        // As the name stands in a key.
        let text = text.replace('%', "%25").replace('/', "%2F").into_bytes();
        Ok(self
            .proxy
            .hold_next(move |request| request.windows(text.len()).any(|window| window == text)))
    }

    async fn records(&self) -> io::Result<Vec<String>> {
        Ok(self.mine(self.server.keys()?))
    }

    async fn unbounded_records(&self) -> io::Result<Vec<String>> {
        // What hangs on a lease ends with it.
        let mut kept = Vec::new();
        for key in self.records().await? {
            let json = self.server.cli(&["get", &key, "--write-out=json"])?;
            if !json.contains("\"lease\":") {
                kept.push(key);
            }
        }
        Ok(kept)
    }

    async fn commands_during(
        &self,
        work: futures_util::future::BoxFuture<'_, ()>,
    ) -> io::Result<Vec<String>> {
        let before = self.server.requests()?;
        work.await;
        let after = self.server.requests()?;
        let mut commands = Vec::new();
        for (method, count) in after {
            if NOT_COUNTED.contains(&method.as_str()) {
                continue;
            }
            for _ in before.get(&method).copied().unwrap_or(0)..count {
                commands.push(method.clone());
            }
        }
        Ok(commands)
    }

    async fn scripts(&self) -> io::Result<u64> {
        let kept_alive = self.server.requests()?;
        let kept_alive = kept_alive.get("Lease/LeaseKeepAlive").copied();
        Ok(self.server.writes()? + kept_alive.unwrap_or(0))
    }

    async fn connections(&self) -> io::Result<usize> {
        self.server.connections()
    }

    async fn subscriptions(&self) -> io::Result<usize> {
        // What a client has is one stream; how much is watched on it is another matter.
        let streams = self.server.watch_streams()?;
        usize::try_from(streams).map_err(io::Error::other)
    }

    fn wrong_credentials(&self) -> io::Result<Box<dyn Connect>> {
        let config = self.place.config();
        Ok(Box::new(config.with_credentials(USER, "wrong battery")))
    }

    async fn obstruct(&self, name: &str) -> io::Result<()> {
        // Which keys a lock has is the backend's own affair: it is asked to make them.
        let identity = Identity::of_this_process("obstruct");
        let backend = self
            .place
            .config()
            .connect(Context::new(identity.clone()))
            .await
            .map_err(io::Error::other)?;
        let lock = LockName::new(name).map_err(io::Error::other)?;
        let claim = Claim::new(lock, identity, TOOLS);
        backend
            .try_acquire(&claim)
            .await
            .map_err(io::Error::other)?;
        let keys = self.records().await?;
        for key in keys {
            self.server.cli(&["put", &key, "not a lock"])?;
        }
        backend.close().await.map_err(io::Error::other)
    }
}

fn nobody(place: usize) -> io::Error {
    let what = format!("nobody stands at place {place}");
    io::Error::new(io::ErrorKind::NotFound, what)
}
