//! What ends the program early: one line for people, and an exit code.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;

use distlock::ErrorKind;
use nix::sys::signal::Signal;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;

#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            text: text.into(),
        }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            text: text.into(),
        }
    }

    pub(crate) fn interrupted(by: Signal) -> Self {
        Self {
            code: u8::try_from(by as i32).map_or(FAILED, |number| SIGNALLED + number),
            text: format!("interrupted by {by}"),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<distlock::Error> for Failure {
    fn from(error: distlock::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported => Self::usage(text),
            _ => Self::new(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(format!(
            "a process of this program was misunderstood: {error}"
        ))
    }
}
