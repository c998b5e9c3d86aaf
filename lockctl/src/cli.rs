//! The command line.

use std::ffi::OsString;
#[cfg(feature = "conformance")]
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

#[cfg(feature = "bench")]
use crate::bench::Keys;
use crate::connect::DEFAULT_URL;
use crate::exit::{self, Failure};
use crate::output;

const EXIT_CODES: &str = "\
Exit codes:
  the command's own (run), 128 + signal when a signal ended it
    1  the answer is no: a case failed, exclusion was violated, nobody holds that token
   64  usage or bad input, or something this backend does not support
   69  the backend is unavailable or refuses
   71  this machine does not let lockctl do its work
   75  the lock was not free in time
   79  the lock was lost while the command ran
  126  the command cannot be run
  127  there is no such command";

/// Run commands under a distributed lock; look at locks, break them, load-test them.
#[derive(Debug, Parser)]
#[command(
    name = "lockctl",
    version,
    arg_required_else_help = false,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    /// Where the locks are: file:///dir, redis://host:port/db, ... [file:// is a directory of this user]
    #[arg(
        long,
        global = true,
        env = "LOCK_URL",
        hide_env_values = true,
        default_value = DEFAULT_URL
    )]
    pub(crate) url: String,

    /// How answers are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    /// Show who holds a lock and who waits for it
    #[command(after_help = "\
Examples:
  lockctl status nightly
  lockctl --format json status nightly | jq .queue_length")]
    Status {
        /// The lock
        name: String,
    },
    /// List the locks that are held or waited for
    #[command(after_help = "\
Examples:
  lockctl list
  lockctl --url redis://cache:6379 list --prefix deploy/")]
    List {
        /// Only names that begin with this
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    #[cfg(feature = "watch")]
    Watch(WatchArgs),
    Release(ReleaseArgs),
    #[cfg(feature = "bench")]
    Bench(BenchArgs),
    #[cfg(feature = "conformance")]
    Conformance(ConformanceArgs),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  lockctl completions bash > /etc/bash_completion.d/lockctl
  lockctl completions zsh > ~/.zfunc/_lockctl")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page
    #[command(after_help = "\
Examples:
  lockctl man > /usr/local/share/man/man1/lockctl.1
  lockctl man | man -l -")]
    Man,
}

/// Run a command while holding a lock.
///
/// The command never outlives the lock: its process group gets SIGTERM before the lock's validity
/// ends, SIGKILL at the end, and SIGKILL at once when lockctl dies. It finds LOCK_NAME, LOCK_TOKEN
/// and LOCK_URL in its environment.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockctl run nightly -- ./backup.sh
  lockctl run --try deploy -- make deploy          # exit 75 when somebody else deploys
  lockctl run --wait 30s --ttl 10s migrate -- sh -c 'psql -v fence=$LOCK_TOKEN -f up.sql'
  lockctl --url redis://cache:6379 run deploy -- ./deploy.sh
  * * * * *  lockctl run --try minutely -- /usr/local/bin/job   # in a crontab: never two at once")]
pub(crate) struct RunArgs {
    /// How long the lock outlives a lockctl that was cut off from the backend [default: 10s, or the
    /// URL's option ttl]
    #[arg(long, value_parser = duration)]
    pub(crate) ttl: Option<Duration>,

    /// Wait for the lock at most this long [default: for as long as it takes]
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "at_once")]
    pub(crate) wait: Option<Duration>,

    /// Do not wait for the lock
    #[arg(long = "try")]
    pub(crate) at_once: bool,

    /// Hold the lock together with others that share it
    #[arg(long, conflicts_with = "permits")]
    pub(crate) shared: bool,

    /// Be one of at most N holders
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) permits: Option<u32>,

    /// From SIGTERM to SIGKILL; less than half of the TTL
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "2s")]
    pub(crate) kill_after: Duration,

    /// What happens to the command when the lock is lost
    #[arg(long, value_enum, default_value_t = OnLost::Term)]
    pub(crate) on_lost: OnLost,

    /// The lock
    pub(crate) name: String,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Watch locks live in the terminal; q quits
#[cfg(feature = "watch")]
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockctl watch
  lockctl --url redis://cache:6379 watch nightly --every 2s")]
pub(crate) struct WatchArgs {
    /// The lock [default: every lock in use]
    pub(crate) name: Option<String>,

    /// How often it is looked
    #[arg(long, value_parser = pause, value_name = "DURATION", default_value = "500ms")]
    pub(crate) every: Duration,
}

/// Take a lock from its holder by force.
///
/// The holder is told that it lost the lock, but perhaps only after the next one was granted it. Later
/// tokens are larger, so a resource that is fenced by them is safe.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockctl status nightly                                  # shows the token
  lockctl release nightly --token 1795392138639218 --force")]
pub(crate) struct ReleaseArgs {
    /// The lock
    pub(crate) name: String,

    /// The token of the hold to end: nobody else's is
    #[arg(long)]
    pub(crate) token: u64,

    /// Yes, on purpose
    #[arg(long)]
    pub(crate) force: bool,
}

/// Load-test a backend, and prove that it excludes.
///
/// Tasks take a lock, increment a counter that nothing but the lock keeps exact, and give the lock
/// back, as fast as they can; once for each number of tasks.
#[cfg(feature = "bench")]
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockctl --url redis://cache:6379 bench
  lockctl bench --tasks 10,100 --processes 4 --seconds 10s
  lockctl bench --keys distinct --json | jq .sections_per_second")]
pub(crate) struct BenchArgs {
    /// How many tasks there are, or a series
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "50,100,200",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) tasks: Vec<u32>,

    /// Which locks they fight over
    #[arg(long, value_enum, default_value_t = Keys::One)]
    pub(crate) keys: Keys,

    /// How long each number of tasks is tried: seconds, or a duration
    #[arg(long, value_parser = seconds, default_value = "5")]
    pub(crate) seconds: Duration,

    /// How long a lock is held
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "0ms")]
    pub(crate) hold: Duration,

    /// Spread the tasks over this many processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) processes: u32,

    /// Print a line of JSON for each number of tasks, like --format json
    #[arg(long)]
    pub(crate) json: bool,
}

/// Find out whether a backend keeps the contract.
///
/// Runs the cases of the suite that break nothing, beside the backend's own locks. The ones that stop
/// servers and cut connections are for the backend's own tests.
#[cfg(feature = "conformance")]
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lockctl --url redis://cache:6379 conformance
  lockctl conformance --filter R2 --markdown > report.md
  lockctl --url redis://cache:6379 conformance --report reports   # JSON, Markdown and a badge
  lockctl --format json conformance --list")]
pub(crate) struct ConformanceArgs {
    /// Only cases with this in their number or name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) filter: String,

    /// Show the cases and what each needs, and run none
    #[arg(long)]
    pub(crate) list: bool,

    /// The long cases too
    #[arg(long)]
    pub(crate) full: bool,

    /// Print the report as Markdown
    #[arg(long, conflicts_with = "list")]
    pub(crate) markdown: bool,

    /// Write the report into this directory too: JSON, Markdown and a badge
    #[arg(long, conflicts_with = "list", value_name = "DIRECTORY")]
    pub(crate) report: Option<PathBuf>,
}

/// What happens to the command when the lock is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum OnLost {
    /// SIGTERM ahead of the end, SIGKILL at the end
    Term,
    /// SIGKILL at the end
    Kill,
    /// It runs on, for a command that is fenced by its LOCK_TOKEN
    Ignore,
}

impl Cli {
    /// Reads the command line. Help and version are printed and end the program.
    pub(crate) fn read() -> Result<Self, Failure> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                match output::print(&error.render().to_string()) {
                    Ok(()) => std::process::exit(exit::OK.into()),
                    Err(failure) => failure,
                }
            }
            _ => Failure::usage(one_line(&error.to_string())),
        })
    }
}

/// What clap says, up to its first empty line, as one line.
fn one_line(text: &str) -> String {
    let said = text.lines().map(str::trim).take_while(|l| !l.is_empty());
    let line = said.collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; see lockctl --help")
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "not a duration such as 500ms, 10s or 1m 30s".to_owned())
}

/// A duration that leaves the backend some rest.
#[cfg(feature = "watch")]
fn pause(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(50);
    match duration(text)? {
        pause if pause < SHORTEST => Err("less than 50ms".to_owned()),
        pause => Ok(pause),
    }
}

/// A number of seconds, or a duration; not zero.
#[cfg(feature = "bench")]
fn seconds(text: &str) -> Result<Duration, String> {
    let length = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => duration(text)?,
    };
    match length.is_zero() {
        true => Err("no time at all".to_owned()),
        false => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mistakes_are_one_line() {
        let parse = |line: &str| {
            let error = Cli::try_parse_from(line.split(' ')).expect_err("a mistake");
            one_line(&error.to_string())
        };
        assert!(parse("lockctl run --ttl soon x -- true").contains("not a duration"));
        assert!(parse("lockctl run x").contains("<COMMAND>"));
        assert!(parse("lockctl run --try --wait 1s x -- true").contains("cannot be used with"));
        assert!(!parse("lockctl frobnicate").contains('\n'));
    }
}
