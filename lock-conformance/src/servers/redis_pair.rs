//! A Redis and its replica, of which one takes the other's place.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::{StartError, skip_if_allowed};
use super::redis::RedisServer;
use crate::wait::poll;

/// How long the replica may take to have everything. It only matters when something is broken.
const SYNC_DEADLINE: Duration = Duration::from_secs(30);

/// Longer than anything takes for which clients are kept from writing, in ms.
const PAUSE_MS: &str = "60000";

/// Nobody listens there.
const NOWHERE: [&str; 2] = ["127.0.0.1", "1"];

/// A running Redis with a replica on 127.0.0.1, both gone when dropped. Everything that a [`RedisServer`] can, the one
/// of the two can that leads.
///
/// Replication is Redis' own: asynchronous. What a failover loses is decided by the test, not by chance.
#[derive(Debug)]
pub struct RedisPair {
    first: RedisServer,
    second: RedisServer,
    is_replicating: AtomicBool,
    has_failed_over: AtomicBool,
}

impl RedisPair {
    /// Starts both, without persistence, password or TLS.
    ///
    /// # Panics
    /// If Redis is not installed or does not start.
    #[must_use]
    pub fn start() -> RedisPair {
        RedisPair::try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`start`](Self::start); `None`, said loudly, if Redis is missing and `LOCK_TEST_ALLOW_MISSING` names it.
    ///
    /// # Panics
    /// If Redis is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip() -> Option<RedisPair> {
        skip_if_allowed("redis", RedisPair::try_start())
    }

    /// Starts both, and waits until the replica has all that there is.
    ///
    /// # Errors
    /// [`StartError::Missing`] when Redis is not installed; otherwise why it did not start.
    pub fn try_start() -> Result<RedisPair, StartError> {
        let first = RedisServer::builder()
            // The first copy would wait for more replicas to come.
            .config("repl-diskless-sync-delay", "0")
            .try_start()?;
        let second = RedisServer::builder().try_start()?;
        let (user, password) = first.control_login();
        second.cli(&["CONFIG", "SET", "masteruser", user, "masterauth", password])?;
        second.cli(&["REPLICAOF", "127.0.0.1", &first.port().to_string()])?;
        let pair = RedisPair {
            first,
            second,
            is_replicating: AtomicBool::new(true),
            has_failed_over: AtomicBool::new(false),
        };
        pair.await_replica()?;
        Ok(pair)
    }

    /// From now on nothing reaches the replica, which keeps what it has: what is written is lost by a
    /// [`fail_over`](Self::fail_over).
    ///
    /// # Errors
    /// The replica does not answer; or leads already, which is [`io::ErrorKind::NotFound`].
    pub fn stop_replication(&self) -> io::Result<()> {
        self.has_a_replica()?;
        self.is_replicating.store(false, Ordering::SeqCst);
        let [host, port] = NOWHERE;
        self.second.cli(&["REPLICAOF", host, port]).map(drop)
    }

    /// Kills the one that leads and makes the replica lead in its place, with everything that was written until
    /// [`stop_replication`](Self::stop_replication). Clients are not told where it is.
    ///
    /// # Errors
    /// The replica does not answer; or this has been done already, which is [`io::ErrorKind::NotFound`].
    pub fn fail_over(&self) -> io::Result<()> {
        self.has_a_replica()?;
        if self.is_replicating.load(Ordering::SeqCst) {
            // Nothing may be written between the last look at the replica and the end.
            self.first.cli(&["CLIENT", "PAUSE", PAUSE_MS, "WRITE"])?;
            self.await_replica()?;
        }
        self.first.kill();
        self.second.cli(&["REPLICAOF", "NO", "ONE"])?;
        self.has_failed_over.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The one that is, or is to become, the replica.
    #[must_use]
    pub fn replica(&self) -> &RedisServer {
        &self.second
    }

    fn has_a_replica(&self) -> io::Result<()> {
        match self.has_failed_over.load(Ordering::SeqCst) {
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "there is no replica any more",
            )),
            false => Ok(()),
        }
    }

    /// Waits until the replica has everything that its leader has.
    fn await_replica(&self) -> io::Result<()> {
        let offset = |server: &RedisServer, field: &str| -> io::Result<Option<u64>> {
            let info = server.cli(&["INFO", "replication"])?;
            let value = info.lines().find_map(|line| line.strip_prefix(field));
            Ok(value.and_then(|value| value.trim().parse().ok()))
        };
        let mut last = None;
        poll(SYNC_DEADLINE, || {
            let looks = offset(&self.first, "master_repl_offset:").and_then(|written| {
                let read = offset(&self.second, "slave_repl_offset:")?;
                let link = self.second.cli(&["INFO", "replication"])?;
                let is_up = link.contains("\nmaster_link_status:up\r");
                Ok(is_up && written.is_some() && written == read)
            });
            match looks {
                Ok(true) => Some(()),
                Ok(false) => None,
                Err(error) => {
                    last = Some(error);
                    None
                }
            }
        })
        .ok_or_else(|| last.unwrap_or_else(|| io::Error::other("the replica does not catch up")))
    }
}

impl Deref for RedisPair {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        match self.has_failed_over.load(Ordering::SeqCst) {
            true => &self.second,
            false => &self.first,
        }
    }
}
