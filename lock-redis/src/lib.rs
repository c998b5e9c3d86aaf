//! Redis and Valkey backend of distlock, for one node: direct hand-off, fenced, pushed.
//!
//! * [`RedisConfig`] says how a server is reached, as a value or as a URL.
//! * [`register`] adds `redis://`, `rediss://`, `valkey://` and `valkeys://` to a program's schemes.
//! * [`RedisBackend`] is the connection, a [`Backend`](lock_core::Backend).
//!
//! # What Redis promises, and what it does not
//!
//! Exclusion holds as long as the server keeps its data and its clock does not jump forward. It is
//! lost by a failover to a replica that had not heard of a grant, a restart without persistence, an
//! eviction (so `maxmemory-policy` has to be `noeviction`; another one is warned about), and a
//! forward step of the server's clock by more than a lease. After a backward
//! step a lease ends at most its own length after the first look at its lock.
//! Tokens still grow through all of these, unless the new server's clock stands behind the old one's
//! *and* no client that asks has seen the larger token. The resource has to check them.
//!
//! # Keys
//!
//! Names are spread over 64 partitions by a hash; all keys of a partition have one hash tag. A name
//! is in its keys byte for byte. Every key has a TTL.
//!
//! | key | type | what | TTL |
//! |---|---|---|---|
//! | `P:{pNN}:l:NAME` | hash | the `last` token, which is the holder's as long as there is one, and the holder (`holder` its nonce, `expires`, `since`, `lease`, `provisional`, `inbox`, `identity`) | the lease and `fence_retention`; after the release `fence_retention`, or until the server's clock is past `last` |
//! | `P:{pNN}:q:NAME` | sorted set | the nonces of the waiters, by order of arrival | the longest lease of a waiter and 1 s |
//! | `P:{pNN}:w:NAME` | hash | for each waiting nonce, separated by tabs: end and length of its lease, claim window, ttl, token floor, begin of its wait, inbox, identity | as `q` |
//! | `P:{pNN}:t:NONCE` | string | tombstone: a late copy of a request of this nonce must not win | 2 min |
//! | `P:namespace` | string | the layout that all clients of this prefix agree on | 48 h, refreshed |
//! | channel `P:inbox:CLIENT` | | grants and breaks for the claims of one client | |
//!
//! `P` is the prefix (`distlock`), `NN` the FNV-1a 64 hash of the name modulo 64. Points in time are
//! microseconds of the server's clock; `lease`, `ttl` and the claim window are milliseconds.
//!
//! # The least a user needs
//!
//! ```text
//! ACL SETUSER app on >secret resetkeys ~distlock:* resetchannels &distlock:inbox:* -@all
//!     +hello +subscribe +publish +evalsha +eval +time +get +set +pexpire +pttl
//!     +hget +hset +hmget +hdel +hlen +zadd +zrem +zcard +zscore +zrank +zrange +zrevrange +scan
//! ```
//!
//! `+scan` is for listing only, and `+select` is needed for another database than 0. With
//! `+config|get` the client can also warn of an eviction policy. Redis 6 or newer is needed, for
//! RESP3.

mod backend;
mod client;
mod config;
mod connect;
mod connection;
mod error;
mod inbox;
mod key;
mod place;
mod reply;
mod scripts;
#[cfg(feature = "tls")]
mod tls;

pub use crate::backend::RedisBackend;
pub use crate::config::{RedisConfig, TlsConfig};
pub use crate::connect::register;
/// The client that this backend is built on; its errors are the source of ours.
pub use redis;
