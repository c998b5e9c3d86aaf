//! Tests against real servers, started for one test each; faults by the proxy in front of them.

mod access;
mod cancel;
mod cluster;
mod cycle;
mod fence;
mod fixture;
mod late;
mod lease;
mod outage;
mod queue;
mod stranger;
mod versions;
