//! The command, as lockctl sees it: a process group whose leader is waited for.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::io;
use std::os::unix::process::ExitStatusExt;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::group::Group;
use super::process;
use crate::exit;

/// The leader of the command's process group.
///
/// It is not reaped before everything else is over: as long as it is a zombie, no other process can
/// be given its number, and a signal to the group meets nobody else.
pub(crate) struct Child {
    process: std::process::Child,
    group: Group,
    changes: SignalStream,
}

/// What became of the leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Running,
    Stopped(Signal),
    /// It has ended, and is not reaped.
    Ended,
}

/// Hears of children that end or stop. To be made before there are any.
pub(crate) fn changes() -> io::Result<SignalStream> {
    signal(SignalKind::child())
}

impl Child {
    pub(crate) fn new(process: std::process::Child, changes: SignalStream) -> io::Result<Self> {
        let leader = i32::try_from(process.id()).map_err(io::Error::other)?;
        Ok(Self {
            process,
            group: Group::new(Pid::from_raw(leader)),
            changes,
        })
    }

    /// The leader, and the number of the group.
    pub(crate) fn leader(&self) -> Pid {
        self.group.leader()
    }

    /// Everything that the command is.
    pub(crate) fn group(&mut self) -> &mut Group {
        &mut self.group
    }

    /// Waits until some child may have changed its state.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// What the leader does now. That it has stopped is said once.
    pub(crate) fn look(&self) -> io::Result<State> {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.leader()), ended) {
            // A real-time signal has no name, and is said to be invalid.
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::EINVAL) => {
                return Ok(State::Ended);
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        match waitid(Id::Pid(self.leader()), stopped) {
            Ok(WaitStatus::Stopped(_, by)) => Ok(State::Stopped(by)),
            Ok(_) | Err(Errno::ECHILD) => Ok(State::Running),
            Err(error) => Err(error.into()),
        }
    }

    /// Reaps what was left to this process by others, except `guardian`: as a container's first
    /// process, lockctl inherits every orphan.
    pub(crate) fn reap_orphans(&self, guardian: Option<Pid>) {
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let is_orphan = |pid: Pid| pid != self.leader() && Some(pid) != guardian;
        loop {
            match waitid(Id::All, any) {
                Ok(status) => match status.pid().filter(|pid| is_orphan(*pid)) {
                    Some(pid) => reap_now(pid),
                    None => return,
                },
                // A real-time signal has no name: who died of one is not named either.
                Err(Errno::EINVAL) => {
                    let dead = process::all().unwrap_or_default().into_iter();
                    dead.filter(|p| p.parent == Pid::this() && !p.alive && is_orphan(p.pid))
                        .for_each(|p| reap_now(p.pid));
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Gives the leader's number back, and its exit code. It has to have ended; nothing may be sent to
    /// the group afterwards.
    pub(crate) fn reap(mut self) -> io::Result<u8> {
        let status = self.process.wait()?;
        let code = status
            .code()
            .or_else(|| status.signal().map(|by| exit::SIGNALLED + by));
        Ok(code
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(exit::SYSTEM))
    }
}

fn reap_now(pid: Pid) {
    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
}
