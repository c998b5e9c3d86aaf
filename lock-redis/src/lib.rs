//! Redis and Valkey backend of distlock: direct hand-off, fenced, pushed.
//!
//! Start with [`RedisConfig`], or with [`register`] and a URL.

mod backend;
mod config;
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
pub use crate::config::{RedisConfig, TlsConfig, register};
/// The client that this backend is built on; its errors are the source of ours.
pub use redis;
