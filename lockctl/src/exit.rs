//! Exit codes, and the one line that goes with them.

use std::error::Error as _;
use std::fmt;

use distlock::ErrorKind;
use nix::sys::signal::Signal;

use crate::stderr;

/// All went well.
pub(crate) const OK: u8 = 0;
/// The answer is no: exclusion or a case failed, or nobody holds what was to be broken.
pub(crate) const NO: u8 = 1;
/// Usage or bad input (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;
/// The backend is unavailable or refuses (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// This machine does not let lockctl do its work (`EX_OSERR`).
pub(crate) const SYSTEM: u8 = 71;
/// The lock was not had in time (`EX_TEMPFAIL`).
pub(crate) const BUSY: u8 = 75;
/// The lock was lost while the command ran.
pub(crate) const LOST: u8 = 79;
/// The command was found but could not be run.
pub(crate) const CANNOT_RUN: u8 = 126;
/// There is no such command.
pub(crate) const NOT_FOUND: u8 = 127;

/// What a shell adds to the number of the signal that ended a program.
pub(crate) const SIGNALLED: i32 = 128;

/// The exit code of what ended by this signal, as a shell gives it.
pub(crate) fn signalled(by: Signal) -> u8 {
    u8::try_from(SIGNALLED + by as i32).unwrap_or(SYSTEM)
}

/// What ends lockctl early: an exit code, and one line for people.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }

    /// This machine did not let it: no process, no pipe, no terminal.
    pub(crate) fn system(what: &str, error: &(impl fmt::Display + ?Sized)) -> Self {
        Self::new(SYSTEM, format!("{what}: {error}"))
    }

    pub(crate) const fn code(&self) -> u8 {
        self.code
    }

    /// Says the line and gives the code.
    pub(crate) fn report(&self) -> u8 {
        stderr::say(&self.text);
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<distlock::Error> for Failure {
    fn from(error: distlock::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported => USAGE,
            ErrorKind::Lost => LOST,
            _ => UNAVAILABLE,
        };
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self::new(code, text)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn signals_are_numbered_as_a_shell_does() {
        assert_eq!(signalled(Signal::SIGINT), 130);
        assert_eq!(signalled(Signal::SIGKILL), 137);
        assert_eq!(signalled(Signal::SIGTERM), 143);
    }

    #[test]
    fn kind_of_an_error_chooses_the_code() {
        let code = |kind| Failure::from(distlock::Error::new(kind, "acquire")).code;
        assert_eq!(code(ErrorKind::Invalid), USAGE);
        assert_eq!(code(ErrorKind::Unsupported), USAGE);
        assert_eq!(code(ErrorKind::Unavailable), UNAVAILABLE);
        assert_eq!(code(ErrorKind::Indeterminate), UNAVAILABLE);
        assert_eq!(code(ErrorKind::Denied), UNAVAILABLE);
        assert_eq!(code(ErrorKind::Lost), LOST);
    }

    #[test]
    fn source_is_said_once() {
        let error = distlock::Error::new(ErrorKind::Unavailable, "connect")
            .with_detail("refused")
            .with_source(io::Error::other("refused"));
        assert_eq!(
            Failure::from(error).text,
            "connect: backend unavailable: refused"
        );
    }
}
