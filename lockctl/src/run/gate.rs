//! The gate: what a command waits behind until its guardian knows it.
//!
//! If the command were started at once, there would be a moment in which it runs and lockctl may be
//! killed before the guardian has heard of it. So what is started in the command's place is lockctl
//! itself: it waits on a pipe for the word, and then becomes the command, in the same process and the
//! same group. When lockctl dies first, the pipe ends, and so does what waits there.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::close;

use super::{GATE, helper};
use crate::exit;
use crate::stderr;

/// lockctl's side of a closed gate.
#[derive(Debug)]
pub(crate) struct Gate(PipeWriter);

impl Gate {
    /// Starts a process that waits to become `command`, with these additions to its environment. It
    /// leads a process group of its own.
    pub(crate) fn start(
        command: &[OsString],
        environment: &[(&str, String)],
    ) -> io::Result<(Self, Child)> {
        let (wait, open) = io::pipe()?;
        let waiting = spawn(&wait, command, environment)?;
        Ok((Self(open), waiting))
    }

    /// Lets the command begin.
    pub(crate) fn open(mut self) -> io::Result<()> {
        self.0.write_all(b"\n")
    }
}

fn spawn(
    wait: &PipeReader,
    command: &[OsString],
    environment: &[(&str, String)],
) -> io::Result<Child> {
    // Standard input, output and error are the command's own, so the pipe needs a fourth number. It
    // is passed on to whatever is started until it is closed here, and nothing else is started.
    fcntl(wait, FcntlArg::F_SETFD(FdFlag::empty()))?;
    helper(GATE)
        .arg(wait.as_raw_fd().to_string())
        .args(command)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .process_group(0)
        .spawn()
}

/// The life of what waits at the gate: `FD COMMAND ARGS…`.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let pipe = args.next().and_then(|fd| fd.to_str()?.parse().ok());
    let (Some(pipe), Some(program)) = (pipe, args.next()) else {
        return exit::USAGE.into();
    };
    match wait(pipe) {
        Ok(true) => {}
        // lockctl is gone, or does not want the command any more.
        Ok(false) => return exit::SYSTEM.into(),
        Err(error) => {
            stderr::say(&format!("cannot wait for the guardian: {error}"));
            return exit::SYSTEM.into();
        }
    }
    let error = Command::new(&program).args(args).exec();
    stderr::say(&format!("cannot run {program:?}: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => exit::NOT_FOUND.into(),
        _ => exit::CANNOT_RUN.into(),
    }
}

/// Waits for the word; `false` when it will not come. The pipe is closed afterwards.
fn wait(pipe: RawFd) -> io::Result<bool> {
    // A number cannot become a file without unsafe code; a file of the same pipe can be opened.
    let mut word = File::open(format!("/proc/self/fd/{pipe}"))?;
    close(pipe)?;
    match word.read_exact(&mut [0]) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the gate is started with, besides what it inherits.
pub(crate) fn environment<'a>(name: &str, token: u64, url: &str) -> [(&'a str, String); 3] {
    [
        ("LOCK_NAME", name.to_owned()),
        ("LOCK_TOKEN", token.to_string()),
        ("LOCK_URL", url.to_owned()),
    ]
}
