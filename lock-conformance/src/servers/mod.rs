//! Launchers: a real server for one test, on a port and in a directory of its own.
//!
//! * [`RedisServer`]: Redis as the distribution ships it.
//! * [`RedisPair`]: the same with a replica, which can take its place.
//! * [`ValkeyServer`]: a pinned Valkey whose wall clock a test can step.
//! * [`EtcdServer`]: an etcd of one member, or several.
//! * [`ZooKeeperServer`]: a ZooKeeper of one server, or an ensemble.
//!
//! Every launcher listens on 127.0.0.1, waits until its server answers, and kills it and removes its directory when
//! it is dropped: also when the test panics, and also when the test process is killed (see `guardian.rs`). A server
//! that somebody else runs is never touched or relied upon.
//!
//! A missing binary fails the test, with the command that installs it. `LOCK_TEST_ALLOW_MISSING=redis,valkey` lets
//! the launchers' `start_or_skip` skip instead, loudly. The names are `redis`, `valkey`, `etcd`, `etcd-3.5`,
//! `zookeeper`, `faketime` for worker processes with another time of day, and `isolation` for cutting members off from each other, which takes root and nftables.

mod control;
mod ensemble;
mod error;
mod etcd;
mod fetched;
mod firewall;
mod guardian;
mod http;
mod member;
mod monitor;
mod port;
mod process;
mod redis;
mod redis_pair;
mod sockets;
mod tls;
mod valkey;
mod zookeeper;

pub use crate::missing::missing_is_allowed;
pub use ensemble::Ensemble;
pub use error::StartError;
pub use etcd::{EtcdBuilder, EtcdMetrics, EtcdServer, EtcdVersion};
pub use member::Member;
pub use monitor::{Monitor, words_of};
pub use port::free_port;
pub use redis::{RedisBuilder, RedisServer};
pub use redis_pair::RedisPair;
pub use valkey::ValkeyServer;
pub use zookeeper::{ZooKeeperBuilder, ZooKeeperChange, ZooKeeperMode, ZooKeeperServer};
