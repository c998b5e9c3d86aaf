//! Where things are, as cargo tells it, and how cargo is called.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The workspace this tool belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    metadata: Value,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Workspace> {
        let output = clean_command(&cargo())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {}", output.status);
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let dir = |key: &str| {
            let dir = metadata[key].as_str().map(PathBuf::from);
            dir.with_context(|| format!("cargo metadata gives no {key}"))
        };
        Ok(Workspace {
            root: dir("workspace_root")?,
            target: dir("target_directory")?,
            metadata,
        })
    }

    /// A call of cargo in the root of the workspace.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.call(&cargo());
        command.args(args).current_dir(&self.root);
        command
    }

    /// A call of a script that calls cargo.
    pub(crate) fn script(&self, path: &Path) -> Command {
        self.call(path.as_os_str())
    }

    fn call(&self, program: &OsStr) -> Command {
        let mut command = clean_command(program);
        // Said in full: a relative one was relative to where this tool was called.
        command.env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// An example built with `--release`.
    pub(crate) fn release_example(&self, name: &str) -> PathBuf {
        let file = format!("{name}{}", env::consts::EXE_SUFFIX);
        [
            self.target.as_path(),
            "release/examples".as_ref(),
            file.as_ref(),
        ]
        .iter()
        .collect()
    }

    /// Where fetched test servers are kept. `lock-conformance` looks there too.
    pub(crate) fn test_servers(&self) -> PathBuf {
        self.target.join("test-servers")
    }

    /// Where `test` lets the suite's test programs write their reports.
    pub(crate) fn reports(&self) -> PathBuf {
        self.target.join("conformance")
    }

    /// A file or folder of the workspace.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where the copy of the sources is that has mutants in it.
    pub(crate) fn mutated_copy(&self) -> PathBuf {
        self.target.join("mutated")
    }

    /// The features of a package, `default` aside.
    pub(crate) fn features(&self, package: &str) -> Result<Vec<String>> {
        let packages = self.metadata["packages"].as_array();
        let package = packages
            .into_iter()
            .flatten()
            .find(|candidate| candidate["name"] == package)
            .with_context(|| format!("there is no package {package}"))?;
        let features = package["features"].as_object();
        Ok(features
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .filter(|name| name != "default")
            .collect())
    }
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A program, without what `cargo run` has put into this tool's environment: some build scripts watch those variables,
/// and would build again each time a call comes from here and not from a shell.
fn clean_command(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_about_this_package) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn is_about_this_package(variable: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ]
    .iter()
    .any(|prefix| variable.starts_with(prefix))
        || variable == "CARGO_PRIMARY_PACKAGE"
}

/// Looks for a program as a shell does.
pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join(program))
        .any(|file: path::PathBuf| file.is_file())
}

/// Whether `LOCK_TEST_ALLOW_MISSING` names this server.
pub(crate) fn may_be_missing(server: &str) -> bool {
    let allowed = std::env::var("LOCK_TEST_ALLOW_MISSING").unwrap_or_default();
    allowed.split(',').any(|name| name.trim() == server)
}
