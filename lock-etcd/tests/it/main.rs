//! Tests against real servers, started for one test each; faults by the proxy in front of them.

mod cycle;
mod fixture;
