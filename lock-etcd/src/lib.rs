//! etcd v3 backend of distlock: leases, revisions as tokens, one quorum write each way.

mod backend;
mod base;
mod book;
mod client;
mod config;
mod connect;
mod connection;
mod endpoint;
mod error;
mod fence;
mod follow;
mod key;
mod lease;
mod look;
mod place;
mod record;
mod release;
mod renew;
mod txn;
mod wait;
mod watch;

pub use crate::backend::EtcdBackend;
pub use crate::config::{EtcdConfig, TlsConfig};
pub use crate::connect::register;
pub use crate::fence::Fence;
/// The client that this backend is built on; its errors are the source of ours.
pub use etcd_client;
