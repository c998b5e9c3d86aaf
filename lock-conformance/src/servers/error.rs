//! Why a server did not start, and whether a test may go on without it.

use std::path::PathBuf;
use std::{fmt, io};

use crate::faketime;
use crate::missing::missing_is_allowed;

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A program or library is not installed.
    Missing {
        /// What was looked for.
        what: String,
        /// The command that installs it.
        install: &'static str,
    },
    /// The server ended or did not answer in time.
    Failed {
        /// What was started.
        what: String,
        /// What went wrong, with the end of the server's own log.
        why: String,
    },
    /// The machine refused a directory, a process or a pipe.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Missing { what, install } => {
                write!(f, "{what} is not installed; install it with `{install}`")
            }
            StartError::Failed { what, why } => write!(f, "{what} did not start: {why}"),
            StartError::Io(error) => write!(f, "test server: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::Io(error)
    }
}

/// libfaketime, for servers whose wall clock a test sets.
pub(super) fn find_faketime() -> Result<PathBuf, StartError> {
    faketime::find().ok_or(StartError::Missing {
        what: faketime::LIBRARY.into(),
        install: faketime::INSTALL,
    })
}

/// Turns "not installed, and that is allowed" into `None`, and every other failure into a panic.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must be seen; the harness shows this with --nocapture"
)]
pub(super) fn skip_if_allowed<T>(server: &str, started: Result<T, StartError>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(error @ StartError::Missing { .. }) if missing_is_allowed(server) => {
            eprintln!("SKIPPED, LOCK_TEST_ALLOW_MISSING names {server}: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
