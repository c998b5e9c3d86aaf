//! The conformance suite on Redis, and on Valkey where a clock is stepped.
//!
//! A case that hurts its server gets one of its own; the others share one, each under a prefix of
//! its own. Every arena has a proxy of its own.

mod witness;

use std::io;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lock_conformance::fault::Proxy;
use lock_conformance::servers::{
    RedisBuilder, RedisPair, RedisServer, StartError, ValkeyServer, missing_is_allowed,
};
use lock_conformance::{
    Arena, Case, Fault, Faults, Harness, HeldRequest, Missing, Pace, Wire, Witness, async_trait,
};
use lock_core::{Claim, Connect, Context, Identity, LockName};
use lock_redis::RedisConfig;
use witness::Trace;

/// How long the tools may take; it only matters when something is broken.
const TOOLS: Duration = Duration::from_secs(10);
const PASSWORD: &str = "correct horse";

/// What cannot be done to a server that others use, or be seen on it.
const OWN_SERVER: &[Fault] = &[
    Fault::Kill,
    Fault::Wipe,
    Fault::Pause,
    Fault::FlushScripts,
    Fault::StepClock,
    Fault::Records,
    Fault::Count,
    Fault::WrongCredentials,
    Fault::Obstruct,
    Fault::Failover,
    Fault::Reconfigure,
];

#[derive(Default)]
struct RedisHarness {
    shared: OnceLock<Result<Arc<Server>, Missing>>,
}

impl Harness for RedisHarness {
    fn name(&self) -> &str {
        "redis"
    }

    fn pace(&self) -> Pace {
        Pace {
            op_timeout: Duration::from_millis(1500),
            ..Pace::new(Duration::from_millis(500))
        }
    }

    fn supports(&self, fault: Fault) -> bool {
        // A hold is no session's, and Redis keeps no history; a master changes only when it dies.
        !matches!(
            fault,
            Fault::KillSession | Fault::Compact | Fault::MoveLeader
        )
    }

    fn crosses_processes(&self) -> bool {
        true
    }

    fn arena(&self, case: &Case) -> Result<Arena, Missing> {
        let server = if OWN_SERVER.iter().any(|fault| case.injects(*fault)) {
            Arc::new(Server::for_case(case)?)
        } else {
            self.shared
                .get_or_init(|| Server::redis(|builder| builder).map(Arc::new))
                .clone()?
        };
        let password = server.password;
        let place = Place {
            port: server.port(),
            prefix: case.id.replace('.', "-"),
        };
        let faults = Arc::new(RedisFaults {
            proxy: Proxy::start(server.addr()),
            server,
            prefix: place.prefix.clone(),
        });
        let proxied = Place {
            port: faults.proxy.addr().port(),
            prefix: place.prefix.clone(),
        };
        let connector = move |place: Place| {
            move || -> Box<dyn Connect> {
                let config = place.config();
                Box::new(match password {
                    Some(password) => config.with_credentials(None, password),
                    None => config,
                })
            }
        };
        // After a failover the other server is behind the same address.
        let plain = match case.injects(Fault::Failover) {
            true => proxied.clone(),
            false => place,
        };
        Ok(Arena::new(connector(plain.clone()))
            .with_proxied(connector(proxied))
            .with_spec(plain.to_spec())
            .with_faults(faults))
    }

    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        Some(Box::new(Place::from_spec(spec)?.config()))
    }
}

/// Where clients of one arena connect, and what their keys begin with.
#[derive(Clone)]
struct Place {
    port: u16,
    prefix: String,
}

impl Place {
    fn config(&self) -> RedisConfig {
        RedisConfig::new("127.0.0.1", self.port).with_prefix(self.prefix.as_str())
    }

    fn to_spec(&self) -> String {
        format!("{} {}", self.port, self.prefix)
    }

    fn from_spec(spec: &str) -> Option<Self> {
        let (port, prefix) = spec.split_once(' ')?;
        Some(Self {
            port: port.parse().ok()?,
            prefix: prefix.to_owned(),
        })
    }
}

struct Server {
    kind: Kind,
    password: Option<&'static str>,
}

enum Kind {
    Redis(RedisServer),
    Valkey(ValkeyServer),
    Pair(Box<RedisPair>),
}

impl Deref for Server {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        match &self.kind {
            Kind::Redis(server) => server,
            Kind::Valkey(server) => server,
            Kind::Pair(servers) => servers,
        }
    }
}

impl Server {
    fn for_case(case: &Case) -> Result<Self, Missing> {
        if case.injects(Fault::StepClock) {
            let server = ValkeyServer::try_start(|builder| builder);
            return Ok(Self {
                kind: Kind::Valkey(server.map_err(|error| missing("valkey", &error))?),
                password: None,
            });
        }
        if case.injects(Fault::Failover) {
            let servers = RedisPair::try_start();
            return Ok(Self {
                kind: Kind::Pair(Box::new(servers.map_err(|error| missing("redis", &error))?)),
                password: None,
            });
        }
        if case.injects(Fault::WrongCredentials) {
            let mut server = Self::redis(|builder| builder.password(PASSWORD))?;
            server.password = Some(PASSWORD);
            return Ok(server);
        }
        // A server that is killed comes back with what it had; losing it is a fault of its own.
        Self::redis(|builder| builder.persistence(case.injects(Fault::Kill)))
    }

    fn redis(settings: impl FnOnce(RedisBuilder) -> RedisBuilder) -> Result<Self, Missing> {
        let server = settings(RedisServer::builder()).try_start();
        Ok(Self {
            kind: Kind::Redis(server.map_err(|error| missing("redis", &error))?),
            password: None,
        })
    }
}

impl Server {
    fn pair(&self) -> io::Result<&RedisPair> {
        match &self.kind {
            Kind::Pair(servers) => Ok(servers),
            _ => Err(io::Error::other("this server has no replica")),
        }
    }
}

fn missing(server: &str, error: &StartError) -> Missing {
    Missing {
        what: error.to_string(),
        allowed: matches!(error, StartError::Missing { .. }) && missing_is_allowed(server),
    }
}

struct RedisFaults {
    proxy: Proxy,
    server: Arc<Server>,
    prefix: String,
}

impl RedisFaults {
    /// What the server lists of every client that is not the launcher's.
    fn clients(&self) -> io::Result<Vec<String>> {
        let clients = self.server.cli(&["CLIENT", "LIST"])?;
        let of_the_default_user = |line: &&str| line.contains(" user=default ");
        Ok(clients
            .lines()
            .filter(of_the_default_user)
            .map(str::to_owned)
            .collect())
    }

    fn mine(&self, keys: Vec<String>) -> Vec<String> {
        let start = format!("{}:", self.prefix);
        keys.into_iter()
            .filter(|key| key.starts_with(&start))
            .collect()
    }
}

#[async_trait]
impl Faults for RedisFaults {
    async fn kill_server(&self) -> io::Result<()> {
        self.server.kill();
        Ok(())
    }

    async fn restart_server(&self) -> io::Result<()> {
        self.server.restart();
        Ok(())
    }

    async fn wipe(&self) -> io::Result<()> {
        self.server.cli(&["FLUSHALL"])?;
        self.flush_scripts().await
    }

    async fn pause_server(&self) -> io::Result<()> {
        self.server.pause();
        Ok(())
    }

    async fn resume_server(&self) -> io::Result<()> {
        self.server.resume();
        Ok(())
    }

    async fn flush_scripts(&self) -> io::Result<()> {
        self.server.cli(&["SCRIPT", "FLUSH"]).map(drop)
    }

    async fn step_clock(&self, seconds: i64) -> io::Result<()> {
        match &self.server.kind {
            Kind::Valkey(server) => server.set_clock_offset(seconds),
            _ => Err(io::Error::other("this server's clock cannot be stepped")),
        }
    }

    async fn fail_over(&self) -> io::Result<()> {
        let servers = self.server.pair()?;
        servers.fail_over()?;
        self.proxy.redirect(servers.addr());
        Ok(())
    }

    async fn stop_replication(&self) -> io::Result<()> {
        self.server.pair()?.stop_replication()
    }

    async fn reconfigure(&self) -> io::Result<()> {
        for (setting, value) in [
            ("timeout", "1"),
            ("tcp-keepalive", "1"),
            ("hz", "100"),
            ("notify-keyspace-events", "KEA"),
            ("client-output-buffer-limit", "pubsub 65536 32768 1"),
            ("maxmemory", "64mb"),
            ("maxmemory-policy", "volatile-lru"),
            ("appendonly", "yes"),
            ("slowlog-log-slower-than", "0"),
        ] {
            self.server.cli(&["CONFIG", "SET", setting, value])?;
        }
        Ok(())
    }

    async fn witness(&self) -> io::Result<Box<dyn Witness + '_>> {
        let monitor = self.server.monitor()?;
        Ok(Box::new(Trace::new(monitor, &self.prefix)))
    }

    fn wire(&self) -> Option<&dyn Wire> {
        Some(&self.proxy)
    }

    async fn hold_next_request(&self, text: &str) -> io::Result<Box<dyn HeldRequest + '_>> {
        let text = text.as_bytes().to_vec();
        Ok(self
            .proxy
            .hold_next(move |request| request.windows(text.len()).any(|window| window == text)))
    }

    async fn records(&self) -> io::Result<Vec<String>> {
        Ok(self.mine(self.server.keys()?))
    }

    async fn unbounded_records(&self) -> io::Result<Vec<String>> {
        Ok(self.mine(self.server.keys_without_ttl()?))
    }

    async fn commands_during(
        &self,
        work: futures_util::future::BoxFuture<'_, ()>,
    ) -> io::Result<Vec<String>> {
        let mut monitor = self.server.monitor()?;
        work.await;
        monitor.client_lines()
    }

    async fn scripts(&self) -> io::Result<u64> {
        let stats = self.server.commandstats()?;
        let scripts = |(command, _): &(&String, &u64)| command.starts_with("eval");
        Ok(stats.iter().filter(scripts).map(|(_, calls)| calls).sum())
    }

    async fn connections(&self) -> io::Result<usize> {
        Ok(self.clients()?.len())
    }

    async fn subscriptions(&self) -> io::Result<usize> {
        let clients = self.clients()?;
        let fields = clients.iter().flat_map(|client| client.split(' '));
        let counts = fields.filter_map(|field| match field.split_once('=')? {
            ("sub" | "psub" | "ssub", count) => count.parse::<usize>().ok(),
            _ => None,
        });
        Ok(counts.sum())
    }

    fn wrong_credentials(&self) -> io::Result<Box<dyn Connect>> {
        let config = RedisConfig::new("127.0.0.1", self.server.port());
        Ok(Box::new(config.with_credentials(None, "wrong battery")))
    }

    async fn obstruct(&self, name: &str) -> io::Result<()> {
        // Which keys a lock has is the backend's own affair: it is asked to make them.
        let config =
            RedisConfig::new("127.0.0.1", self.server.port()).with_prefix(self.prefix.as_str());
        let identity = Identity::of_this_process("obstruct");
        let backend = config
            .connect(Context::new(identity.clone()))
            .await
            .map_err(io::Error::other)?;
        let lock = LockName::new(name).map_err(io::Error::other)?;
        let claim = Claim::new(lock, identity, TOOLS);
        backend
            .try_acquire(&claim)
            .await
            .map_err(io::Error::other)?;
        let keys = self.mine(self.server.keys()?);
        backend.close().await.map_err(io::Error::other)?;
        for key in keys.iter().filter(|key| key.ends_with(name)) {
            self.server.cli(&["DEL", key])?;
            self.server.cli(&["SET", key, "not a lock"])?;
        }
        Ok(())
    }
}

lock_conformance::main!(RedisHarness::default());
