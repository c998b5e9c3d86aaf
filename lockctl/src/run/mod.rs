//! `lockctl run`: a command that never outlives the lock it runs under.
//!
//! Three processes see to that. lockctl holds the lock and keeps it alive. Its guardian, started
//! first, ends the command's process group at the deadlines it is fed, and when lockctl is gone. The
//! command itself waits behind a gate until its guardian knows it.
//!
//! ```text
//! lockctl ──┬── socket: deadlines ──▶ guardian (own session; holds a file lock's descriptor)
//!           │                            │ SIGTERM, SIGKILL
//!           └── pipe: go ──▶ gate ⇒ command (own process group, same session)
//! ```
//!
//! * [`deadline`]: until when the command may run. [`wire`]: how that is said.
//! * [`guardian`] and [`gate`]: the two helpers, which are this binary again; [`link`]: lockctl's end
//!   of the line to the guardian.
//! * [`child`], [`group`], [`process`], [`signals`], [`terminal`]: what a shell would do with a job.
//! * [`acquire`] gets the lock, [`supervise`] stays until the command has ended.

mod acquire;
mod child;
mod deadline;
mod gate;
mod group;
mod guardian;
mod link;
mod process;
mod signals;
mod supervise;
mod terminal;
mod wire;

use std::ffi::OsString;
use std::io;
#[cfg(feature = "file")]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use distlock::{Clock, Guard, LossReason, Released};

use self::deadline::Deadlines;
use self::signals::Signals;
use self::supervise::{Outcome, Supervisor};
use crate::cli::{OnLost, RunArgs};
use crate::connect;
use crate::exit::{self, Failure};
use crate::output;
use crate::stderr;

/// The first argument of a guardian.
const GUARDIAN: &str = "__guardian";
/// The first argument of what waits at the gate.
const GATE: &str = "__gate";
/// How long the backend may take to confirm what is given back at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// The same for one that has not confirmed anything for a while.
const SHORT_FAREWELL: Duration = Duration::from_millis(100);
/// What is said when the command may have run on without the lock, and nobody can tell.
const LOST_BEFORE_THE_END: &str = "was lost before the end of the command was seen";

/// Does the work of a helper, if this process was started as one.
pub(crate) fn helper_entry() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    match args.next()?.to_str()? {
        GUARDIAN => Some(guardian::main()),
        GATE => Some(gate::main(args)),
        _ => None,
    }
}

/// This binary again, even if its file has been replaced meanwhile.
fn helper(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_PKG_NAME")).arg(role);
    command
}

/// Runs the command under the lock, and gives the exit code.
pub(crate) fn run(url: &str, args: &RunArgs) -> Result<u8, Failure> {
    let ttl = match args.ttl {
        Some(ttl) => ttl,
        None => connect::default_ttl(url)?,
    };
    if args.kill_after >= ttl / 2 {
        return Err(Failure::usage(format!(
            "--kill-after has to be less than half of --ttl: {} is not less than half of {}",
            humantime::format_duration(args.kill_after),
            humantime::format_duration(ttl)
        )));
    }
    connect::runtime()?.block_on(execute(url, args, ttl))
}

async fn execute(url: &str, args: &RunArgs, ttl: Duration) -> Result<u8, Failure> {
    let failed = |error| Failure::system("signals", &error);
    let mut signals = Signals::listen().map_err(failed)?;
    let changes = child::changes().map_err(failed)?;
    let label = label(&args.command);
    let locks = tokio::select! {
        locks = connect::connect(url, &label) => locks?,
        signal = signals.next_to_end() => return Ok(exit::signalled(signal)),
    };
    let acquired = tokio::select! {
        guard = acquire::acquire(&locks, args, ttl) => guard,
        signal = signals.next_to_end() => {
            // What stands in the queue is taken out of it before the end.
            let _ = locks.shutdown(FAREWELL).await;
            return Ok(exit::signalled(signal));
        }
    };
    let code = match acquired {
        Ok(guard) => hold(url, args, guard, signals, changes).await,
        Err(failure) => Err(failure),
    };
    let Some(code) = code.transpose() else {
        // A client that closes would give the lock back.
        return Ok(exit::SYSTEM);
    };
    match code.as_ref().map_or_else(Failure::code, |code| *code) {
        exit::UNAVAILABLE | exit::LOST => {
            let closing = locks.shutdown(SHORT_FAREWELL);
            let _ = Clock::system().timeout(SHORT_FAREWELL, closing).await;
        }
        _ => drop(locks.shutdown(FAREWELL).await),
    }
    code
}

/// Runs the command while `guard` is held, gives the lock back, and answers the exit code; `None` when
/// the lock is not given back.
async fn hold(
    url: &str,
    args: &RunArgs,
    guard: Guard,
    signals: Signals,
    changes: tokio::signal::unix::Signal,
) -> Result<Option<u8>, Failure> {
    let job = Job {
        url,
        args,
        guard: &guard,
        clock: Clock::system(),
    };
    let outcome = match Supervisor::start(job, signals, changes).await {
        Ok(supervisor) => supervisor.watch().await,
        Err(failure) => Err(failure),
    };
    if let Ok(Outcome { gone: false, .. }) = outcome {
        args.say("is not given back: what the command has started cannot be killed");
        // The guardian stays with what is left. The lock ends with its TTL, or with the guardian.
        std::mem::forget(guard);
        return Ok(None);
    }
    let ended = |outcome: &Outcome| outcome.stopped == Some(Stopped::LockEnded);
    let lost = match outcome.as_ref().is_ok_and(ended) {
        true => {
            // The backend may have been out of reach for as long as the lock was to last, and that the
            // lock has ended is said already.
            let _ = Clock::system()
                .timeout(SHORT_FAREWELL, guard.release())
                .await;
            None
        }
        false => give_back(args, guard).await,
    };
    let outcome = outcome?;
    Ok(Some(match (outcome.stopped, lost) {
        (Some(Stopped::LockEnded), _) => exit::LOST,
        (None, Some(reason)) if args.on_lost != OnLost::Ignore => {
            args.say(&format!("{LOST_BEFORE_THE_END}: {reason}"));
            exit::LOST
        }
        _ => outcome.code,
    }))
}

/// Gives the lock back; `Some` when it had been lost before.
async fn give_back(args: &RunArgs, guard: Guard) -> Option<LossReason> {
    match guard.release().await {
        Ok(Released::WasLost(reason)) => Some(reason),
        Ok(Released::Unknown { free_by }) => {
            let left = free_by.saturating_since(Clock::system().now());
            args.say(&format!(
                "was given back, but nobody confirmed it; it is free in {} at the latest",
                output::age(left)
            ));
            None
        }
        Ok(_) => None,
        Err(error) => {
            Failure::from(error).report();
            None
        }
    }
}

/// The lock, and what is to be done under it.
struct Job<'a> {
    url: &'a str,
    args: &'a RunArgs,
    guard: &'a Guard,
    clock: Clock,
}

impl Job<'_> {
    /// What the command's time is by now.
    fn deadlines(&self) -> Deadlines {
        // Read first, so that the end is never later than the guard's own.
        let now = self.clock.now();
        let end = now + self.guard.remaining();
        Deadlines::before(end, self.args.kill_after, self.args.on_lost)
    }

    /// A duplicate of the descriptor that a lock's file is locked by, where the lock is a file.
    fn lock_file(&self) -> io::Result<Option<OwnedFd>> {
        #[cfg(feature = "file")]
        if let Some(file) = self.guard.record::<distlock::file::HeldFile>() {
            return file.as_fd().try_clone_to_owned().map(Some);
        }
        Ok(None)
    }
}

impl RunArgs {
    /// Tells people what became of the lock.
    fn say(&self, what: &str) {
        stderr::say(&format!("the lock {:?} {what}", self.name));
    }
}

/// Why the command was stopped, if it did not end by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stopped {
    /// The lock was lost, or about to be.
    LockEnded,
    /// Nobody would have ended it with the lock.
    Unguarded,
}

/// The name of the program, as others see it beside the lock.
fn label(command: &[OsString]) -> String {
    let program = command.first().map(Path::new);
    let name = program.and_then(Path::file_name).unwrap_or_default();
    name.to_string_lossy().into_owned()
}
