//! Deterministic simulation of core: whole clients, their users and a lock server in one thread, in
//! virtual time, with everything that can go wrong decided by a seed.
//!
//! A [`plan`] is a schedule as data. The [`world`] has the time, the [`network`], the [`server`] and
//! a [`witness`] that checks the contract as it happens. Each [`process`] is a client on a runtime of
//! its own, which is run until it is idle and then not again before something happens to it; its
//! [`user`]s reach the server through a [`backend`]. Equal seeds have equal histories. A schedule that
//! fails is [cut down](shrink) to what it takes. That all this finds what it should is shown by
//! [`sabotage`].
//!
//! Decision: ADR 0009.

mod backend;
mod driver;
mod held;
mod history;
mod network;
mod plan;
mod process;
mod protocol;
mod sabotage;
mod server;
mod shrink;
mod strand;
mod tests;
mod timeline;
mod user;
mod witness;
mod world;

use self::driver::Simulation;
use self::plan::Plan;
pub(crate) use self::sabotage::{Sabotage, broken};
use self::witness::Violation;

/// How a schedule went.
struct Outcome {
    violation: Option<Violation>,
    history: Vec<String>,
}

/// Runs one schedule to its end, or to the first violation.
fn run(plan: &Plan, keeps_history: bool) -> Outcome {
    // Nonces and jitter are drawn from here.
    fastrand::seed(plan.seed);
    let mut simulation = Simulation::new(plan, keeps_history);
    simulation.play(plan);
    simulation.end()
}
