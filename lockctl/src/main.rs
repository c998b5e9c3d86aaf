//! `lockctl`: runs a command under a distributed lock, looks at locks, breaks and load-tests them.
//!
//! * [`cli`], [`connect`], [`exit`], [`output`] and [`stderr`]: what goes in, and what comes out.
//! * [`run`]: a command under a lock, and the guardian that sees to its end.
//! * [`status`], [`list`], `watch` and [`release`]: looking at locks, and breaking one; [`look`] is
//!   what they show.
//! * `bench`, `conformance`: how fast a backend is, and whether it keeps the contract.
//! * [`complete`]: shell completions and the man page.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "lockctl needs Linux: its guardian relies on waitid(WNOWAIT), /proc and CLOCK_BOOTTIME"
);

#[cfg(feature = "bench")]
mod bench;
mod cli;
mod complete;
#[cfg(feature = "conformance")]
mod conformance;
mod connect;
mod exit;
mod list;
mod look;
mod output;
mod release;
mod run;
mod status;
mod stderr;
#[cfg(feature = "watch")]
mod watch;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::exit::Failure;

fn main() -> ExitCode {
    let code = work();
    stderr::flush();
    code
}

fn work() -> ExitCode {
    if let Some(code) = run::helper_entry() {
        return code;
    }
    #[cfg(feature = "bench")]
    if let Some(code) = bench::worker_entry() {
        return code;
    }
    #[cfg(feature = "conformance")]
    if let Some(code) = conformance::worker_entry() {
        return code;
    }
    let code = Cli::read().and_then(dispatch);
    code.unwrap_or_else(|failure| failure.report()).into()
}

fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let Cli {
        url,
        format,
        command,
    } = cli;
    // A variable that is set to nothing, as in a crontab, is not set.
    let url = match url.is_empty() {
        true => connect::DEFAULT_URL.to_owned(),
        false => url,
    };
    match command {
        Command::Run(args) => run::run(&url, &args),
        Command::Status { name } => status::status(&url, format, &name),
        Command::List { prefix } => list::list(&url, format, &prefix),
        #[cfg(feature = "watch")]
        Command::Watch(args) => watch::watch(&url, &args),
        Command::Release(args) => release::release(&url, format, &args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::bench(&url, format, &args),
        #[cfg(feature = "conformance")]
        Command::Conformance(args) => conformance::conformance(&url, format, &args),
        Command::Completions { shell } => complete::completions(shell),
        Command::Man => complete::man(),
    }
}
