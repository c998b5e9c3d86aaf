//! Tools that break the connection between a client and its server on purpose.
//!
//! [`Proxy`] stands between the two and cuts, delays, holds, or loses what flows, switched while it runs. It passes on
//! any TCP protocol; where it sees RESP, it works on whole commands and replies. [`resp`] is what it reads them with.

mod proxy;
pub mod resp;

pub use proxy::{Proxy, Stats};
