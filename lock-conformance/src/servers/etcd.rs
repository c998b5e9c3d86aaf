//! An etcd: one member, or several.

mod ctl;
mod metrics;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs, io};

use self::ctl::Ctl;
pub use self::metrics::EtcdMetrics;
use super::ensemble::Ensemble;
use super::error::{StartError, skip_if_allowed};
use super::fetched;
use super::firewall::Identity;
use super::http;
use super::member::{Launch, Member};
use super::port::free_ports;
use super::process::ServerProcess;
use super::tls::{self, TlsFiles};
use crate::wait::poll;

const INSTALL: &str = "apt-get install etcd-server etcd-client";

/// A change of leader takes one election timeout; the rest is for a busy machine.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// How long a member that runs may take to answer about itself.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// Which etcd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum EtcdVersion {
    /// As Debian ships it; `etcd` in `LOCK_TEST_ALLOW_MISSING`.
    #[default]
    V3_4,
    /// 3.5.1, as `cargo xtask etcd` fetches it, or what `LOCK_TEST_ETCD_3_5` names; `etcd-3.5` in
    /// `LOCK_TEST_ALLOW_MISSING`.
    V3_5,
}

/// A running etcd on 127.0.0.1, gone when dropped. What concerns its processes, an [`Ensemble`] can.
///
/// Its timers are short (heartbeat 50 ms, election 500 ms), so that a lease can be as short as 1 s and a new leader is
/// there within a second. Nothing is synced to disk: data survives a killed process, not a machine.
///
/// All methods block, and take `&self` so that fault hooks and threads can share one server.
#[derive(Debug)]
pub struct EtcdServer {
    ensemble: Ensemble,
    /// Where each member tells of itself, and how many client ports there are.
    metrics: Vec<SocketAddr>,
    tls: Option<TlsFiles>,
    root_password: OnceLock<String>,
}

/// How to start an [`EtcdServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EtcdBuilder {
    version: EtcdVersion,
    members: usize,
    args: Vec<OsString>,
    tls: bool,
    isolatable: bool,
}

/// The ports of one member.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    peer: u16,
    metrics: u16,
}

impl EtcdServer {
    /// Starts one member of Debian's etcd, without TLS and without users.
    ///
    /// # Panics
    /// If etcd is not installed or does not start.
    #[must_use]
    pub fn start() -> EtcdServer {
        EtcdServer::builder().start()
    }

    /// Like [`start`](Self::start); `None`, said loudly, if etcd is missing and `LOCK_TEST_ALLOW_MISSING` names it.
    ///
    /// # Panics
    /// If etcd is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip() -> Option<EtcdServer> {
        EtcdServer::builder().start_or_skip()
    }

    /// A server with settings.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder {
            version: EtcdVersion::default(),
            members: 1,
            args: Vec::new(),
            tls: false,
            isolatable: false,
        }
    }

    /// `etcd://127.0.0.1:PORT`, every member's port behind a comma.
    #[must_use]
    pub fn url(&self) -> String {
        format!("etcd://{}", self.endpoints().join(","))
    }

    /// PEM file of the authority that signed the server's certificate; `None` without [`tls`](EtcdBuilder::tls).
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.tls.as_ref().map(|files| files.ca.as_path())
    }

    /// What a member says of itself. It costs neither a request nor a client connection.
    ///
    /// # Errors
    /// The member does not answer.
    pub fn metrics(&self, member: usize) -> io::Result<EtcdMetrics> {
        let text = http::get(self.metrics[member], "/metrics", METRICS_TIMEOUT)?;
        Ok(EtcdMetrics::parse(&text))
    }

    /// Everything that went through a majority so far, as the index of the last committed entry of the log: the
    /// difference of two readings is the exact number of quorum writes in between.
    ///
    /// A write that was answered is in it. So are puts, transactions with a write in them (also those whose compare
    /// failed and that changed nothing), leases granted and revoked, by a client or by expiry, compaction, logins and
    /// changes of users. Reads, transactions of reads only, keep-alives and watches are not. An election adds one.
    ///
    /// # Errors
    /// No member answers.
    pub fn writes(&self) -> io::Result<u64> {
        self.over_members(u64::max, |metrics| {
            metrics.count("etcd_server_proposals_committed_total")
        })
    }

    /// Client messages that arrived so far, by method: `KV/Txn`, `Lease/LeaseKeepAlive`. One for each unary request,
    /// and one for each message on a stream (a watch created, a keep-alive). All members together, since their start.
    ///
    /// The launcher's own calls ([`keys`](Self::keys) and the like) are counted too; [`metrics`](Self::metrics) and
    /// what is read from them are none.
    ///
    /// # Errors
    /// No member answers.
    pub fn requests(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut sum = BTreeMap::new();
        for metrics in self.all_metrics()? {
            for (method, count) in metrics.requests() {
                *sum.entry(method).or_insert(0) += count;
            }
        }
        Ok(sum)
    }

    /// Watches that are open now, all members together.
    ///
    /// # Errors
    /// No member answers.
    pub fn watchers(&self) -> io::Result<u64> {
        self.over_members(
            |a, b| a + b,
            |metrics| metrics.count("etcd_debugging_mvcc_watcher_total"),
        )
    }

    /// Streams that carry watches and are open now, all members together.
    ///
    /// # Errors
    /// No member answers.
    pub fn watch_streams(&self) -> io::Result<u64> {
        self.over_members(
            |a, b| a + b,
            |metrics| metrics.count("etcd_debugging_mvcc_watch_stream_total"),
        )
    }

    /// Events sent to watchers so far, all members together, since their start.
    ///
    /// # Errors
    /// No member answers.
    pub fn watch_events(&self) -> io::Result<u64> {
        self.over_members(
            |a, b| a + b,
            |metrics| metrics.count("etcd_debugging_mvcc_events_total"),
        )
    }

    /// The member that says it leads; `None` if none does, or two do (one of them has not heard yet). One that is cut
    /// off from the others is not asked.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let says_so = |metrics: EtcdMetrics| metrics.count("etcd_server_is_leader") == 1;
        let members = self.reachable();
        let mut leaders = members
            .iter()
            .filter(|&&i| self.metrics(i).is_ok_and(says_so));
        leaders.next().copied().filter(|_| leaders.next().is_none())
    }

    /// Waits until exactly one member leads; gives it.
    ///
    /// # Panics
    /// If that takes 30 s.
    #[must_use]
    pub fn await_leader(&self) -> usize {
        poll(ELECTION_DEADLINE, || self.leader()).expect("a leader is elected")
    }

    /// Makes another member the leader, and waits until it is.
    ///
    /// # Errors
    /// etcd refuses.
    ///
    /// # Panics
    /// If there is no such member, or it does not become the leader.
    pub fn move_leader(&self, to: usize) -> io::Result<()> {
        let from = self.await_leader();
        if from != to {
            let id = self.metrics(to)?.label("etcd_server_id", "server_id");
            let id = id.ok_or_else(|| io::Error::other("the member tells no id"))?;
            self.ctl_on(&[from]).run(&["move-leader", &id])?;
            poll(ELECTION_DEADLINE, || {
                (self.leader() == Some(to)).then_some(())
            })
            .expect("the member becomes the leader");
        }
        Ok(())
    }

    /// Runs `etcdctl` with these words, with every right and on all members that can answer; gives what it prints.
    ///
    /// # Errors
    /// etcdctl is missing or reports an error.
    pub fn cli(&self, words: &[&str]) -> io::Result<String> {
        self.ctl().run(words)
    }

    /// All keys, sorted; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn keys(&self) -> io::Result<Vec<String>> {
        self.ctl().keys()
    }

    /// The ids of all leases, sorted.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn leases(&self) -> io::Result<Vec<i64>> {
        self.ctl().leases()
    }

    /// The revision of the last change.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn revision(&self) -> io::Result<i64> {
        self.ctl().revision()
    }

    /// Deletes all keys and revokes all leases.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn wipe(&self) -> io::Result<()> {
        let ctl = self.ctl();
        ctl.run(&["del", "", "--from-key"])?;
        for lease in ctl.leases()? {
            // One that has expired since it was listed is as good as revoked.
            if let Err(error) = ctl.run(&["lease", "revoke", &format!("{lease:x}")])
                && ctl.leases()?.contains(&lease)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Forgets the history before the current revision.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn compact(&self) -> io::Result<()> {
        let ctl = self.ctl();
        let revision = ctl.revision()?;
        ctl.run(&["compaction", &revision.to_string(), "--physical"])?;
        Ok(())
    }

    /// Adds a user who may read and write the keys that begin with `prefix`, and nothing else.
    ///
    /// # Errors
    /// etcd refuses.
    pub fn add_user(&self, name: &str, password: &str, prefix: &str) -> io::Result<()> {
        let ctl = self.ctl();
        ctl.run(&["user", "add", &format!("{name}:{password}")])?;
        ctl.run(&["role", "add", name])?;
        ctl.run(&[
            "role",
            "grant-permission",
            name,
            "readwrite",
            prefix,
            "--prefix",
        ])?;
        ctl.run(&["user", "grant-role", name, name])?;
        Ok(())
    }

    /// Makes `root` with this password, and from now on refuses whoever does not log in.
    ///
    /// # Errors
    /// etcd refuses; it has been called before.
    pub fn authenticate(&self, root_password: &str) -> io::Result<()> {
        let ctl = self.ctl();
        ctl.run(&["user", "add", &format!("root:{root_password}")])?;
        ctl.run(&["user", "grant-role", "root", "root"])?;
        ctl.run(&["auth", "enable"])?;
        self.root_password
            .set(root_password.to_owned())
            .map_err(|_| io::Error::other("root has a password already"))
    }

    /// etcdctl on every member that can be expected to serve.
    fn ctl(&self) -> Ctl {
        self.ctl_on(&self.reachable())
    }

    fn ctl_on(&self, members: &[usize]) -> Ctl {
        let addrs = members.iter().map(|&i| self.member(i).addr());
        Ctl {
            endpoints: addrs.map(|addr| addr.to_string()).collect(),
            ca: self.tls.as_ref().map(|files| files.ca.clone()),
            password: self.root_password.get().cloned(),
        }
    }

    fn all_metrics(&self) -> io::Result<Vec<EtcdMetrics>> {
        let awake = (0..self.members().len()).filter(|&i| self.member(i).is_awake());
        let metrics: Vec<_> = awake.map(|i| self.metrics(i)).collect::<io::Result<_>>()?;
        match metrics.is_empty() {
            true => Err(io::Error::other("no member runs")),
            false => Ok(metrics),
        }
    }

    fn over_members(
        &self,
        join: impl Fn(u64, u64) -> u64,
        count: impl Fn(&EtcdMetrics) -> u64,
    ) -> io::Result<u64> {
        Ok(self.all_metrics()?.iter().map(count).fold(0, join))
    }
}

impl Deref for EtcdServer {
    type Target = Ensemble;

    fn deref(&self) -> &Ensemble {
        &self.ensemble
    }
}

impl EtcdBuilder {
    /// Which etcd. Defaults to Debian's.
    pub fn version(mut self, version: EtcdVersion) -> Self {
        self.version = version;
        self
    }

    /// How many members. Defaults to one.
    pub fn members(mut self, count: usize) -> Self {
        self.members = count;
        self
    }

    /// Clients speak TLS, to a certificate for `localhost` and 127.0.0.1 by an authority made for it.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Members can be cut off from each other, see [`isolate`](Ensemble::isolate). Takes root and nftables: each member
    /// runs as a user of its own.
    pub fn isolatable(mut self) -> Self {
        self.isolatable = true;
        self
    }

    /// Another word on every member's command line.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If etcd is missing or does not start.
    #[must_use]
    pub fn start(self) -> EtcdServer {
        self.try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it; `None`, said loudly, if it is missing and `LOCK_TEST_ALLOW_MISSING` names it.
    ///
    /// # Panics
    /// If etcd is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip(self) -> Option<EtcdServer> {
        let name = match self.version {
            EtcdVersion::V3_4 => "etcd",
            EtcdVersion::V3_5 => "etcd-3.5",
        };
        skip_if_allowed(name, self.try_start())
    }

    /// Starts it, and waits until every member serves and nothing of the start is still to be written.
    ///
    /// # Errors
    /// [`StartError::Missing`] when etcd or etcdctl is not installed; otherwise why it did not start.
    pub fn try_start(self) -> Result<EtcdServer, StartError> {
        let program = match self.version {
            EtcdVersion::V3_4 => PathBuf::from("etcd"),
            EtcdVersion::V3_5 => fetched::find("LOCK_TEST_ETCD_3_5", "etcd-3.5", "etcd").ok_or(
                StartError::Missing {
                    what: "etcd 3.5".into(),
                    install: "cargo xtask etcd",
                },
            )?,
        };
        ctl::find()?;
        let (ensemble, (ports, tls)) = Ensemble::start(self.isolatable, || self.prepare(&program))?;
        Ok(EtcdServer {
            ensemble,
            metrics: ports.iter().map(|ports| local(ports.metrics)).collect(),
            tls,
            root_password: OnceLock::new(),
        })
    }

    #[expect(clippy::type_complexity, reason = "used once, a line above")]
    fn prepare(
        &self,
        program: &Path,
    ) -> Result<(Vec<Member>, (Vec<Ports>, Option<TlsFiles>)), StartError> {
        let mut ports = Vec::new();
        let mut processes = Vec::new();
        for _ in 0..self.members {
            let [client, peer, metrics] = free_ports();
            ports.push(Ports {
                client,
                peer,
                metrics,
            });
            processes.push(ServerProcess::new("distlock-etcd-")?);
        }
        let tls = match self.tls {
            true => Some(shared_certificate(&processes)?),
            false => None,
        };
        let cluster = ports
            .iter()
            .enumerate()
            .map(|(i, ports)| format!("m{i}={}", peer_url(ports.peer)))
            .collect::<Vec<_>>()
            .join(",");
        let members = processes
            .into_iter()
            .enumerate()
            .map(|(i, process)| {
                let launch = self.launch(program, i, ports[i], &cluster, tls.as_ref());
                Member::new(process, launch)
            })
            .collect::<io::Result<_>>()?;
        Ok((members, (ports, tls)))
    }

    fn launch(
        &self,
        program: &Path,
        index: usize,
        ports: Ports,
        cluster: &str,
        tls: Option<&TlsFiles>,
    ) -> Launch {
        let scheme = if self.tls { "https" } else { "http" };
        let clients = format!("{scheme}://127.0.0.1:{}", ports.client);
        let peers = peer_url(ports.peer);
        let settings = [
            ("--name", format!("m{index}")),
            ("--data-dir", "data".to_owned()),
            ("--listen-client-urls", clients.clone()),
            ("--advertise-client-urls", clients),
            ("--listen-peer-urls", peers.clone()),
            ("--initial-advertise-peer-urls", peers),
            (
                "--listen-metrics-urls",
                format!("http://127.0.0.1:{}", ports.metrics),
            ),
            ("--initial-cluster", cluster.to_owned()),
            ("--initial-cluster-state", "new".to_owned()),
            ("--heartbeat-interval", "50".to_owned()),
            ("--election-timeout", "500".to_owned()),
        ];
        let mut args: Vec<OsString> = vec![
            "--unsafe-no-fsync".into(),
            // It would connect to its own server, and be counted as a client.
            "--enable-grpc-gateway=false".into(),
        ];
        for (setting, value) in settings {
            args.extend([setting.into(), value.into()]);
        }
        if self.tls {
            for (setting, file) in [("--cert-file", tls::CERT), ("--key-file", tls::KEY)] {
                args.extend([setting.into(), file.into()]);
            }
        }
        args.extend(self.args.iter().cloned());
        let ctl = Ctl {
            endpoints: vec![local(ports.client).to_string()],
            ca: tls.map(|files| files.ca.clone()),
            password: None,
        };
        Launch {
            what: "etcd",
            install: INSTALL,
            program: program.to_owned(),
            args,
            // 3.4 asks for this before it starts on anything but x86-64.
            env: vec![("ETCD_UNSUPPORTED_ARCH", go_arch().into())],
            port: ports.client,
            identity: self
                .isolatable
                .then(|| Identity::new(ports.client, [ports.peer])),
            is_ready: Box::new(move || is_ready(local(ports.metrics), &ctl)),
        }
    }
}

/// Whether a member serves, and has written what it writes at a start: the cluster's version is decided, and a client
/// is answered, which it is not before the member's own addresses are published.
fn is_ready(metrics: SocketAddr, ctl: &Ctl) -> bool {
    let Ok(text) = http::get(metrics, "/metrics", METRICS_TIMEOUT) else {
        return false;
    };
    let metrics = EtcdMetrics::parse(&text);
    metrics.count("etcd_server_has_leader") == 1
        && metrics.count("etcd_cluster_version") == 1
        && ctl.run(&["endpoint", "status"]).is_ok()
}

/// One certificate for all members, in each one's own directory; gives the first's.
fn shared_certificate(processes: &[ServerProcess]) -> Result<TlsFiles, StartError> {
    let failed = |why: String| StartError::Failed {
        what: "etcd".to_owned(),
        why,
    };
    let first = processes
        .first()
        .ok_or_else(|| failed("it has no member".to_owned()))?;
    let files = tls::generate(first.dir()).map_err(|error| failed(error.to_string()))?;
    for process in &processes[1..] {
        for file in [tls::CERT, tls::KEY] {
            fs::copy(first.dir().join(file), process.dir().join(file))?;
        }
    }
    Ok(files)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn peer_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What Go calls this machine's processor.
fn go_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
