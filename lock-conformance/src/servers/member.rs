//! One process of a service.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fmt, fs, io};

use super::error::StartError;
use super::firewall::Identity;
use super::process::ServerProcess;
use super::sockets;
use crate::faketime;
use crate::wait::poll;

/// An etcd is ready in 0.1 s, a ZooKeeper in half a second, three of them in 3 s; the rest is for a machine that is
/// compiling at the same time.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// One server process: the only one of its service, or one of several.
///
/// All methods block, and take `&self` so that fault hooks and threads can share it.
#[derive(Debug)]
pub struct Member {
    process: ServerProcess,
    launch: Launch,
}

/// How a member is started, and how one knows that it serves.
pub(super) struct Launch {
    /// What it is called in messages.
    pub(super) what: &'static str,
    /// The command that installs it.
    pub(super) install: &'static str,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, OsString)>,
    /// Where clients connect.
    pub(super) port: u16,
    /// Whom it runs as and where the others connect to it, if it can be cut off from them.
    pub(super) identity: Option<Identity>,
    /// Whether clients are served at the port, by whomever.
    pub(super) is_ready: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("port", &self.port)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Launch {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            // Both servers take settings from the environment; a test must not depend on who runs it.
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.env.iter().cloned());
        if let Some(Identity { uid, .. }) = self.identity {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn spawn_error(&self, error: io::Error) -> StartError {
        match error.kind() {
            io::ErrorKind::NotFound => StartError::Missing {
                what: self.program.display().to_string(),
                install: self.install,
            },
            _ => StartError::Io(error),
        }
    }
}

impl Member {
    pub(super) fn new(process: ServerProcess, launch: Launch) -> io::Result<Member> {
        if let Some(Identity { uid, .. }) = launch.identity {
            give_away(process.dir(), uid)?;
        }
        Ok(Member { process, launch })
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// The process id; `None` when it was killed or has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// SIGKILL, and waits until the process is gone. Its data stays for a restart.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and with the same data, and waits until it serves; kills it first if it
    /// runs. One of several serves only once a majority runs: otherwise see [`relaunch`](Self::relaunch).
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&self) {
        self.relaunch();
        self.await_ready();
    }

    /// Starts it again as [`restart`](Self::restart) does, without waiting for it.
    ///
    /// # Panics
    /// If the process cannot be started.
    pub fn relaunch(&self) {
        self.spawn().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until it serves clients.
    ///
    /// # Panics
    /// If it ends, or does not serve within a minute.
    pub fn await_ready(&self) {
        self.wait().unwrap_or_else(|error| panic!("{error}"));
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT: it goes on with everything that has arrived meanwhile.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Whether [`pause`](Self::pause) was called last.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.process.is_paused()
    }

    /// Client connections it has right now, as the kernel counts them.
    ///
    /// # Errors
    /// The machine does not tell.
    pub fn connections(&self) -> io::Result<usize> {
        sockets::established(self.port())
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Whether it can answer: it runs, and is not paused.
    pub(super) fn is_awake(&self) -> bool {
        self.pid().is_some() && !self.is_paused()
    }

    /// The directory it runs in.
    pub(super) fn dir(&self) -> &Path {
        self.process.dir()
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.launch.identity.as_ref()
    }

    /// Starts the process; it is not ready yet.
    pub(super) fn spawn(&self) -> Result<(), StartError> {
        let spawned = self.process.spawn(&mut self.launch.command());
        spawned.map_err(|error| self.launch.spawn_error(error))?;
        Ok(())
    }

    /// Waits until it serves.
    pub(super) fn wait(&self) -> Result<(), StartError> {
        poll(START_DEADLINE, || match self.pid() {
            None => Some(Err(self.failed("it ended"))),
            // Whoever was faster to take the port could be the one that serves.
            Some(pid) => {
                ((self.launch.is_ready)() && sockets::listens(pid, self.port())).then_some(Ok(pid))
            }
        })
        .unwrap_or_else(|| Err(self.failed("it does not serve")))
        .map(faketime::unlink_shared_memory)
    }

    /// Whether its start failed since somebody else was faster to take a port.
    pub(super) fn lost_a_port(&self) -> bool {
        let log = self.log_tail();
        ["address already in use", "Address already in use"]
            .iter()
            .any(|words| log.contains(words))
    }

    pub(super) fn failed(&self, why: &str) -> StartError {
        StartError::Failed {
            what: self.launch.what.to_owned(),
            why: format!("{why}\n{}", self.log_tail()),
        }
    }
}

/// Gives a directory and everything in it to another user.
fn give_away(path: &Path, uid: u32) -> io::Result<()> {
    chown(path, Some(uid), Some(uid))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path(), uid)?;
        }
    }
    Ok(())
}
