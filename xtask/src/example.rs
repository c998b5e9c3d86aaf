//! The program that uses the whole of it, without a server and across processes on real ones; and somebody else's
//! backend, which is no member of the workspace and has a recipe of its own.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::service::{self, Service};
use crate::steps::{self, Steps};
use crate::tally::Tally;
use crate::workspace::{Workspace, is_on_path, may_be_missing};

/// The crate whose features say which servers the example can use.
const FACADE: &str = "distlock";

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let features = workspace.features(FACADE)?;
    let services: Vec<&Service> = service::ALL
        .iter()
        .filter(|service| features.iter().any(|feature| feature == service.feature))
        .collect();
    let program = workspace.release_example("flash_sale");
    steps.run("example flash_sale", |_| {
        let mut build = workspace.cargo(["build", "--release", "-p", "distlock-examples"]);
        build.args(["--example", "flash_sale", "--all-features"]);
        steps::run(&mut build)?;
        steps::run(&mut Command::new(&program))
    })?;
    for service in services {
        let name = format!("example flash_sale, 4 processes on {}", service.name);
        steps.run(&name, |_| {
            let missing = service.programs.iter().find(|program| !is_on_path(program));
            if let Some(missing) = missing.filter(|_| may_be_missing(service.allow_missing)) {
                println!(
                    "    left out: {missing} is missing, and LOCK_TEST_ALLOW_MISSING allows it"
                );
                return Ok(());
            }
            let server = service.start()?;
            let words = [
                "--url",
                server.url(),
                "--processes",
                "4",
                "--buyers",
                "50,200",
            ];
            steps::run(Command::new(&program).args(words))
        })?;
    }
    steps.run("example tcp_backend", |tally| backend(workspace, tally))
}

/// The recipe of the backend, with what this workspace was built with: the same versions and the same settings, so that
/// nothing is compiled twice.
fn backend(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let dir = workspace.file("examples/tcp_backend");
    fs::copy(workspace.file("Cargo.lock"), dir.join("Cargo.lock"))?;
    let mut recipe = workspace.script(&dir.join("ci.sh"));
    recipe
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("LOCK_TEST_REPORT", workspace.reports());
    steps::run_tests(&mut recipe, tally)
}
