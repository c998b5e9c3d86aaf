//! The program that uses the whole of it: without a server, and across processes on a real one.
//!
//! The suite's launchers are not used: this tool depends on nothing of the workspace, so that it runs
//! and says what is wrong when the workspace does not build.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, process, thread};

use anyhow::{Context, Result, bail};

use crate::steps::{self, Steps};
use crate::workspace::{Workspace, is_on_path, may_be_missing};

/// A server that has not answered after so many looks, 10 ms apart, does not start.
const LOOKS: u32 = 1_000;

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let program = workspace.release_example("flash_sale");
    steps.run("example flash_sale", |_| {
        steps::run(&mut workspace.cargo([
            "build",
            "--release",
            "-p",
            "distlock-examples",
            "--example",
            "flash_sale",
        ]))?;
        steps::run(&mut Command::new(&program))
    })?;
    steps.run("example flash_sale, 4 processes on Redis", |_| {
        if !is_on_path("redis-server") && may_be_missing("redis") {
            println!(
                "    left out: redis-server is missing, and LOCK_TEST_ALLOW_MISSING allows it"
            );
            return Ok(());
        }
        let server = Server::start()?;
        let url = format!("redis://{}", server.addr);
        let words = ["--url", &url, "--processes", "4", "--buyers", "50,200"];
        steps::run(Command::new(&program).args(words))
    })
}

/// A Redis on a port of its own, gone when dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
    dir: PathBuf,
}

impl Server {
    fn start() -> Result<Self> {
        let addr = free_addr()?;
        let dir = env::temp_dir().join(format!("distlock-xtask-{}", process::id()));
        fs::create_dir_all(&dir).context("a directory for Redis")?;
        let child = redis(addr, &dir).spawn().context("redis-server")?;
        let mut server = Self { child, addr, dir };
        for _ in 0..LOOKS {
            if TcpStream::connect(addr).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("redis-server ended: {status}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("redis-server does not answer on {addr}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn redis(addr: SocketAddr, dir: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A port below the range that outgoing connections are given theirs from.
fn free_addr() -> Result<SocketAddr> {
    (0..200)
        .map(|step| 20_000 + (process::id() * 7 + step) % 12_000)
        .filter_map(|port| u16::try_from(port).ok())
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|addr| TcpListener::bind(addr).is_ok())
        .context("no free port below 32000")
}
