//! One server process with its directory: started, signalled, killed, started again.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::guardian::Guardian;
use crate::wait::poll;

/// How long a signal may take to show its effect. Generous: it only matters when something is broken.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(10);

/// A server process and the directory it lives in. All methods take `&self`, so that fault hooks can share it.
#[derive(Debug)]
pub(super) struct ServerProcess {
    // Dropped in this order, after `Drop` has killed the server: the directory last.
    state: Mutex<State>,
    dir: TempDir,
}

#[derive(Debug)]
struct State {
    child: Option<Child>,
    paused: bool,
    guardian: Guardian,
}

impl ServerProcess {
    /// Makes the directory; nothing runs yet.
    pub(super) fn new(prefix: &str) -> io::Result<ServerProcess> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir()?;
        let guardian = Guardian::start(dir.path())?;
        Ok(ServerProcess {
            state: Mutex::new(State {
                child: None,
                paused: false,
                guardian,
            }),
            dir,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts `command` in the directory, its output going to a log there. A process that still runs is killed first.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<u32> {
        self.kill();
        let log = File::create(self.log_path())?;
        let mut state = self.lock();
        let child = command
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own group: a Ctrl-C at the terminal is for the test, which then takes the server down.
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        state.child = Some(child);
        state.paused = false;
        state.guardian.watch(pid)?;
        Ok(pid)
    }

    /// The running process; `None` when it was killed or has ended by itself.
    pub(super) fn pid(&self) -> Option<u32> {
        self.lock().running()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// SIGKILL, and waits until the process is gone. Does nothing when none runs.
    pub(super) fn kill(&self) {
        let mut state = self.lock();
        if let Some(mut child) = state.child.take() {
            // A process that has already ended is fine; so is a guardian that has: both are about to go anyway.
            let _ = child.kill();
            let _ = state.guardian.forget();
            let _ = child.wait();
            state.paused = false;
        }
    }

    /// SIGSTOP, and waits until the process stands still.
    ///
    /// # Panics
    /// If no process runs, or it does not stop.
    pub(super) fn pause(&self) {
        let mut state = self.lock();
        let pid = state.signal(Signal::SIGSTOP);
        // The signal is only sent when kill() returns; the process may run on for a moment on another core.
        poll(SIGNAL_DEADLINE, || has_stopped(pid).then_some(())).expect("a process stops");
        state.paused = true;
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// If no process runs.
    pub(super) fn resume(&self) {
        let mut state = self.lock();
        state.signal(Signal::SIGCONT);
        state.paused = false;
    }

    /// The last lines the server wrote.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("server.log")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a test that shares the server must not keep the others, or Drop, from killing it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl State {
    /// Looks whether the child lives, without reaping it: its id must stay taken as long as the guardian knows it.
    fn running(&self) -> Option<u32> {
        let pid = self.child.as_ref()?.id();
        (!matches!(proc_state(pid), Some('Z' | 'X'))).then_some(pid)
    }

    fn signal(&self, signal: Signal) -> u32 {
        let pid = self.running().expect("the server runs");
        let raw = i32::try_from(pid).expect("process ids are positive pid_t");
        kill(Pid::from_raw(raw), signal).expect("a child may be signalled");
        pid
    }
}

fn has_stopped(pid: u32) -> bool {
    // Without /proc there is no telling; the signal has been sent, which has to do.
    matches!(proc_state(pid), Some('T') | None)
}

/// The state letter in `/proc/PID/stat`: behind the name, which is in brackets and may itself contain some.
fn proc_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
