//! The simulation of core beyond what every test run takes of it.

use anyhow::Result;

use crate::args::SimulateArgs;
use crate::steps;
use crate::workspace::Workspace;

/// The test that goes through schedules, or replays one.
const TEST: &str = "simulation::tests::no_schedule_breaks_the_contract";

/// Fails with the first schedule that breaks the contract: the test has said how.
pub(crate) fn run(workspace: &Workspace, args: &SimulateArgs) -> Result<()> {
    let (variable, value) = match args.seed {
        Some(seed) => ("LOCK_SIM_SEED", seed),
        None => ("LOCK_SIM_MINUTES", args.minutes),
    };
    // As fast as a release, with the assertions of a test.
    let test = [
        "test",
        "--profile",
        "simulation",
        "-p",
        "lock-core",
        "--lib",
    ];
    let only = ["--", "--exact", "--nocapture", TEST];
    let mut command = workspace.cargo(test.into_iter().chain(only));
    steps::run(command.env(variable, value.to_string()))
}
