//! An example of a distlock backend by somebody else: locks in a toy key-value server over TCP.
//!
//! * [`TcpConfig`], [`register`]: how a program gets at the backend.
//! * [`Server`], [`Disk`]: the server, in this process; the program `tcp-locks` runs it alone.
//!
//! The server knows nothing of locks: it keeps keys with an end, changes several of them at once if conditions hold, and
//! tells when a key is gone. What makes locks of that is `client.rs`. README.md walks through it.

mod backend;
mod client;
mod connect;
mod connection;
mod protocol;
mod queue;
mod server;
mod store;

pub use connect::{TcpConfig, register};
pub use server::Server;
pub use store::{Disk, Store};
