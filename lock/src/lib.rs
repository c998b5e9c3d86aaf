//! One distributed-lock API for Rust services: the backend is a Cargo feature and a URL, the code
//! around it does not change, and every grant carries a fencing token.
//!
//! * [`connect`] takes a URL and gives [`Locks`], the client.
//! * [`Locks::mutex`] names a lock; `acquire`, `acquire_within` and `try_acquire` give a [`Guard`].
//! * [`Guard::check`], [`Guard::lost`] and [`Guard::run`] say when to stop; [`Guard::token`] goes to
//!   the resource, whose [`FenceGate`] refuses what comes too late.
//!
//! | URL | feature | |
//! |---|---|---|
//! | `memory://` | `memory` (default) | this process only; for tests and single-process programs |
//! | `etcd://user:password@host:port,host:port/prefix` | `etcd` | etcd v3, one server or a cluster; building it takes `protoc` |
//! | `file:///directory`, `file://` | `file` | the processes of one Linux host; no server |
//! | `redis://user:password@host:port/db`, `rediss://…`, `valkey://…`, `valkeys://…` | `redis` | one Redis or Valkey node |
//! | `zk://user:password@host:port,host:port/chroot` | `zk` | ZooKeeper, one server or an ensemble |
//!
//! Every URL takes the options of [`ClientOptions`] (`?ttl=30s&op_timeout=500ms`) beside its
//! backend's own.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let locks = distlock::connect("memory://").await?;
//! let guard = locks.mutex("order/42").ttl(Duration::from_secs(10)).acquire().await?;
//!
//! println!("write with token {}", guard.token());
//! guard.check()?;
//!
//! guard.release().await?;
//! locks.shutdown(Duration::from_secs(5)).await?;
//! # Ok::<(), distlock::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is promised, and what no lock can promise, is in the repository's `docs/guarantees.md`.

pub use lock_core::*;

/// The etcd backend.
#[cfg(feature = "etcd")]
pub use lock_etcd as etcd;
/// The backend of one host, in files.
#[cfg(feature = "file")]
pub use lock_file as file;
/// The Redis and Valkey backend.
#[cfg(feature = "redis")]
pub use lock_redis as redis;
/// The ZooKeeper backend.
#[cfg(feature = "zk")]
pub use lock_zk as zk;

/// The backends that were compiled in, by scheme; those that were not, by the feature they miss.
#[must_use]
pub fn registry() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "memory")]
    let registry = MemoryStore::register(registry);
    #[cfg(feature = "etcd")]
    let registry = lock_etcd::register(registry);
    #[cfg(feature = "file")]
    let registry = lock_file::register(registry);
    #[cfg(feature = "redis")]
    let registry = lock_redis::register(registry);
    #[cfg(feature = "zk")]
    let registry = lock_zk::register(registry);
    registry
        .with_absent("memory", "memory")
        .with_absent("etcd", "etcd")
        .with_absent("file", "file")
        .with_absent("redis", "redis")
        .with_absent("rediss", "redis")
        .with_absent("valkey", "redis")
        .with_absent("valkeys", "redis")
        .with_absent("zk", "zk")
}

/// Connects to the backend that `url` names, among those compiled in.
///
/// # Errors
/// As [`Locks::connect_with`]. An unknown scheme, or one whose feature is missing, names what there
/// is.
///
/// # Cancel safety
/// Cancel safe. A connection that is made after the future was dropped is closed.
pub async fn connect(url: &str) -> Result<Locks> {
    Locks::connect_with(&registry(), url).await
}

/// The README's example is compiled and run like every other.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
