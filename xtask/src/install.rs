//! Debian packages that the tests need.

use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};
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

/// What the launchers in `lock-conformance` start or use, and what etcd's client is built with.
pub(crate) const NEEDS: [Need; 6] = [
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
    Need {
        what: "etcd and etcdctl",
        is_there: || is_on_path("etcd") && is_on_path("etcdctl"),
        packages: &["etcd-server", "etcd-client"],
    },
    Need {
        what: "ZooKeeper",
        is_there: || is_on_path("java") && JARS.iter().all(|jar| Path::new(jar).is_file()),
        packages: &["zookeeper", "libslf4j-java", "default-jre-headless"],
    },
    Need {
        what: "nft",
        is_there: || is_on_path("nft") || Path::new("/usr/sbin/nft").is_file(),
        packages: &["nftables"],
    },
    Need {
        what: "protoc and the messages it comes with",
        is_there: || is_on_path("protoc") && Path::new(PROTOS).is_dir(),
        packages: &["protobuf-compiler", "libprotobuf-dev"],
    },
];

/// The server, and the small logger that the launcher gives it.
const JARS: [&str; 2] = [
    "/usr/share/java/zookeeper.jar",
    "/usr/share/java/slf4j-simple.jar",
];

/// Where etcd's client looks for what its own messages are made of.
const PROTOS: &str = "/usr/include/google/protobuf";

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
