//! Tools that break the connection between a client and its server on purpose.
//!
//! [`Proxy`] stands between the two and cuts, delays, holds, or loses what flows, switched while it runs. It passes on
//! any TCP protocol; where it knows what is spoken ([`Protocol`]), it works on whole commands and replies. [`resp`] and
//! [`jute`] are what it reads them with.

pub mod jute;
mod proxy;
pub mod resp;
mod wire;

pub use proxy::{Call, Connections, Peer, Protocol, Proxy, Stats};
