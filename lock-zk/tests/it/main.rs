//! The backend on real servers.

mod access;
mod cancel;
mod cluster;
mod cycle;
mod fence;
mod fixture;
mod late;
mod nodes;
mod queue;
mod session;
mod stranger;
#[cfg(feature = "tls")]
mod tls;
mod tokens;
mod types;
