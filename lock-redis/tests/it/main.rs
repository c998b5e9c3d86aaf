//! Tests against real servers, started for one test each; faults by the proxy in front of them.

mod fixture;

mod acl;
mod chaos;
mod connection;
mod cycle;
mod handoff;
mod late;
mod memory;
mod names;
mod tls;
mod tokens;
mod types;
