//! The memory backend behind a network: for the cases that break something, or take processes.
//!
//! A client sends requests to a server over a network that cuts, holds and drops on demand, and the
//! server can be stopped, killed, moved and made to forget; all of that is in one process. Worker processes
//! come in by a door of their own. Between them they need what every real backend needs:
//! an answer of "unknown" for what was sent and not answered, a place in the queue that is asked about
//! again, and nonces that cannot win once they are given up. A mutant stands in front of the client, or
//! behind the server.

mod carried;
mod client;
mod door;
mod faults;
mod network;
mod remote;
mod server;
mod session;
mod store;
mod wire;

pub(crate) use self::faults::{FarHarness, Spec, needed};
pub(crate) use self::remote::ConnectRemote;
