//! An etcd: one member, or several.

mod ctl;
mod launch;
mod metrics;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use self::ctl::Ctl;
pub use self::launch::EtcdVersion;
use self::launch::{Settings, Started};
pub use self::metrics::EtcdMetrics;
use super::ensemble::Ensemble;
use super::error::{StartError, skip_if_allowed};
use super::firewall::Firewall;
use crate::wait::poll;

/// A change of leader takes one election timeout; the rest is for a busy machine.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

/// A running etcd on 127.0.0.1, gone when dropped. What concerns its processes, an [`Ensemble`] can.
///
/// Its timers are short (heartbeat 50 ms, election 500 ms), so that a lease can be as short as 1 s and a new leader is
/// there within a second. Nothing is synced to disk: data survives a killed process, not a machine.
///
/// All methods block, and take `&self` so that fault hooks and threads can share one server.
#[derive(Debug)]
pub struct EtcdServer {
    started: Started,
    root_password: OnceLock<String>,
}

/// How to start an [`EtcdServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EtcdBuilder {
    settings: Settings,
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
            settings: Settings {
                version: EtcdVersion::default(),
                members: 1,
                args: Vec::new(),
                tls: false,
                isolatable: false,
            },
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
        self.started.tls.as_ref().map(|files| files.ca.as_path())
    }

    /// What a member says of itself. It costs neither a request nor a client connection.
    ///
    /// # Errors
    /// The member does not answer.
    pub fn metrics(&self, member: usize) -> io::Result<EtcdMetrics> {
        EtcdMetrics::fetch(self.started.metrics[member])
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

    /// The leases of the keys that begin with `prefix`, the key that was created first in front.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn leases_of(&self, prefix: &str) -> io::Result<Vec<i64>> {
        self.ctl().leases_of(prefix)
    }

    /// Ends a lease, and with it its keys. Says whether it was there.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn revoke(&self, lease: i64) -> io::Result<bool> {
        let ctl = self.ctl();
        match ctl.run(&["lease", "revoke", &format!("{lease:x}")]) {
            Ok(_) => Ok(true),
            Err(_) if !ctl.leases()?.contains(&lease) => Ok(false),
            Err(error) => Err(error),
        }
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
            self.revoke(lease)?;
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
            ca: self.started.tls.as_ref().map(|files| files.ca.clone()),
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
        &self.started.ensemble
    }
}

impl EtcdBuilder {
    /// Which etcd. Defaults to Debian's.
    pub fn version(mut self, version: EtcdVersion) -> Self {
        self.settings.version = version;
        self
    }

    /// How many members. Defaults to one.
    pub fn members(mut self, count: usize) -> Self {
        self.settings.members = count;
        self
    }

    /// Clients speak TLS, to a certificate for `localhost` and 127.0.0.1 by an authority made for it.
    pub fn tls(mut self) -> Self {
        self.settings.tls = true;
        self
    }

    /// Members can be cut off from each other, see [`isolate`](Ensemble::isolate). Takes root and nftables: each member
    /// runs as a user of its own.
    pub fn isolatable(mut self) -> Self {
        self.settings.isolatable = true;
        self
    }

    /// Another word on every member's command line.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.settings.args.push(arg.into());
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
        if self.settings.isolatable {
            skip_if_allowed("isolation", Firewall::new())?;
        }
        let name = match self.settings.version {
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
        Ok(EtcdServer {
            started: self.settings.start()?,
            root_password: OnceLock::new(),
        })
    }
}
