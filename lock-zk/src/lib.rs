//! ZooKeeper backend of distlock.

mod alarm;
mod backend;
mod book;
mod client;
mod config;
mod connect;
mod error;
mod fence;
mod heartbeat;
mod inspect;
mod keeper;
mod name;
mod node;
mod queue;
mod record;
mod session;
mod tidy;
#[cfg(feature = "tls")]
mod tls;

pub use crate::backend::ZkBackend;
pub use crate::config::{NodeAcl, TlsConfig, ZkConfig};
pub use crate::connect::register;
pub use crate::fence::Fence;
/// The client that this backend is built on; its errors are the source of ours.
pub use zookeeper_client;
