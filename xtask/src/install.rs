//! Debian packages that the tests need.

use std::io::{IsTerminal, stdin};
use std::path::PathBuf;
use std::process::Command;
use std::{fs, iter};

use anyhow::{Result, bail};

use crate::steps;
use crate::workspace::is_on_path;

/// Something the tests need, and the packages it comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) what: &'static str,
    pub(crate) is_there: fn() -> bool,
    pub(crate) packages: &'static [&'static str],
}

/// What the launchers in `lock-conformance` start.
pub(crate) const SERVERS: [Need; 2] = [
    Need {
        what: "redis-server",
        is_there: || is_on_path("redis-server"),
        packages: &["redis-server", "redis-tools"],
    },
    Need {
        what: "libfaketime",
        is_there: has_faketime,
        packages: &["faketime"],
    },
];

/// Installs what is missing, and says so.
pub(crate) fn missing(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        println!("    nothing is missing");
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .collect();
    let (names, list) = (names.join(", "), packages.join(" "));
    if !is_on_path("apt-get") {
        bail!("{names} missing, and there is no apt-get; install what Debian calls: {list}");
    }
    println!("    {names} missing; installs the Debian packages {list}, starting no service");
    let mut command = as_root(&names, &list)?;
    // The script is an argument, not a file: under sudo there may be no other way to the same text.
    command
        .args(["sh", "-c", include_str!("install.sh"), "install"])
        .args(&packages);
    steps::run(&mut command)?;
    match missing.iter().find(|need| !(need.is_there)()) {
        Some(need) => bail!("{} is still missing after installing {list}", need.what),
        None => Ok(()),
    }
}

/// A command that runs its arguments as root.
fn as_root(names: &str, list: &str) -> Result<Command> {
    if is_root() {
        // `env` only so that both ways take the command as arguments.
        return Ok(Command::new("env"));
    }
    if !is_on_path("sudo") {
        bail!("{names} missing; as root, run: apt-get install {list}");
    }
    let mut sudo = Command::new("sudo");
    if !stdin().is_terminal() {
        // Nobody is there to type a password: fail instead of asking.
        sudo.arg("--non-interactive");
    }
    Ok(sudo)
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

/// Debian keeps the library in a directory named after the architecture.
fn has_faketime() -> bool {
    let by_architecture = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    by_architecture
        .map(|entry| entry.path())
        .chain(iter::once(PathBuf::from("/usr/lib")))
        .any(|dir| dir.join("faketime/libfaketimeMT.so.1").is_file())
}
