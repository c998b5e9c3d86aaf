//! The memory backend behind a network, in one process: for the cases that break something.
//!
//! A client sends requests to a server over a network that cuts, holds and drops on demand, and the
//! server can be stopped, killed and made to forget. Between them they need what every real backend needs:
//! an answer of "unknown" for what was sent and not answered, a place in the queue that is asked about
//! again, and nonces that cannot win once they are given up. A mutant stands in front of the client, or
//! behind the server.

mod client;
mod faults;
mod network;
mod server;
mod sessions;

pub(crate) use self::faults::{FarHarness, needed, offers};
