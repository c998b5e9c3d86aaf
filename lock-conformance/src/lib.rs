//! The suite that tells whether a distlock backend keeps the contract.
//!
//! For the author of a backend it takes one file, `tests/conformance.rs`:
//!
//! ```no_run
//! use std::time::Duration;
//! use lock_conformance::{Arena, Case, Harness, Missing, Pace};
//!
//! struct Mine;
//!
//! impl Harness for Mine {
//!     fn name(&self) -> &str { "mine" }
//!     fn pace(&self) -> Pace { Pace::new(Duration::from_millis(500)) }
//!     fn arena(&self, _: &Case) -> Result<Arena, Missing> {
//!         let store = lock_core::MemoryStore::new(); // a place where no other case is met
//!         Ok(Arena::new(move || Box::new(store.clone())))
//!     }
//! }
//!
//! lock_conformance::main!(Mine);
//! ```
//!
//! and its entry in the manifest: `[[test]] name = "conformance"`, `harness = false`. `cargo test`
//! then runs every case that needs no fault. A harness that also knows how to kill its server, to drop
//! a reply or to reach the backend from another process ([`Harness::supports`],
//! [`Harness::crosses_processes`]) is given the cases for that.
//!
//! * [`Harness`], [`Arena`], [`Faults`]: what a backend's author writes.
//! * [`CASES`]: what is tested, one [`Case`] for each sentence, numbered by the rule it belongs to.
//! * [`history`]: what clients saw, and what must be true of it.
//! * [`report`]: what a run has found out, as text, JSON, Markdown and a badge.
//! * [`resource`], [`worker`]: a counter behind a fence, and the processes that fight over it.
//! * [`workload`]: what many clients do at random, from a seed; [`torture`]: round after round of it,
//!   with faults.
//!
//! `LOCK_TEST_REPORT=directory` writes a report, `LOCK_TEST_TIER=full` runs the long cases too,
//! `LOCK_TORTURE_MINUTES=10` runs random workloads with random faults instead. A case that fails prints
//! what was seen and the command that runs it again. Running no case at all is a failure, unless a filter was given.

mod case;
mod cases;
mod environment;
mod faketime;
#[cfg(feature = "servers")]
pub mod fault;
mod harness;
pub mod history;
mod missing;
mod panics;
mod program;
pub mod report;
pub mod resource;
mod runner;
#[cfg(feature = "servers")]
pub mod servers;
mod stand;
pub mod torture;
#[cfg(feature = "servers")]
mod wait;
mod witness;
pub mod worker;
pub mod workload;

pub use crate::case::{Case, Failure, Fault, Need, Outcome, Tier};
pub use crate::cases::CASES;
pub use crate::harness::{
    Arena, Connector, Deviation, Faults, Harness, HeldRequest, Missing, Pace, Wire,
};
pub use crate::missing::missing_is_allowed;
pub use crate::report::{CaseResult, Ending, Report, SUITE_VERSION};
pub use crate::runner::{run, run_as_test, run_each};
pub use crate::stand::Stand;
pub use crate::witness::{Standing, Witness};
pub use lock_core::async_trait;

/// The example on the crate's page, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
