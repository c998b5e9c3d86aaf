//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Project automation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Installs missing test servers, then runs every check: format, lints, tests, features, docs, an example
    Test(TestArgs),
    /// What CI runs: the same as `test`
    Ci,
    /// Random workloads with random faults on one backend, until the time is up or a history cannot be
    Torture(TortureArgs),
    /// Breaks copies of core in one way each, and runs the cases of the suite that find it
    Mutants,
    /// Runs core in simulated worlds: for a time, or one schedule again
    Simulate(SimulateArgs),
    /// Fetches the pinned Valkey that clock tests use, and prints where it is
    Valkey,
    /// Fetches the pinned etcd 3.5 that some tests use besides Debian's, and prints where it is
    Etcd,
    /// Compares docs/guarantees.md with the suite's reports in a directory
    Guarantees {
        /// Change the document, so that it says what the reports say
        #[arg(long)]
        write: bool,
        /// Where test programs wrote their reports: `LOCK_TEST_REPORT`
        dir: PathBuf,
    },
}

#[derive(ClapArgs, Clone, Debug, Default)]
pub(crate) struct TestArgs {
    /// Run the full tier of the conformance suite, not only the fast one
    #[arg(long)]
    pub(crate) full: bool,
    /// Install and fetch nothing; a missing server then fails its tests
    #[arg(long)]
    pub(crate) skip_install: bool,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct TortureArgs {
    /// What to torture
    #[arg(long)]
    pub(crate) backend: Backend,
    /// For how long; a fraction is fine
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// The most rounds
    #[arg(long)]
    pub(crate) rounds: Option<u64>,
    /// The seed of the first round; that of any round plays it again with `--rounds 1`
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// Run the schedule of this seed and no other, and show what happens in it
    #[arg(long, conflicts_with = "minutes")]
    pub(crate) seed: Option<u64>,
    /// For how long new schedules are tried; 0 is for ever
    #[arg(long, default_value_t = 10)]
    pub(crate) minutes: u64,
}

/// What there is to torture.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Backend {
    Memory,
    File,
    Redis,
    Etcd,
    /// Three members, whose leader moves and dies
    EtcdCluster,
    Zookeeper,
    /// Three members, whose leader dies
    ZookeeperEnsemble,
}
