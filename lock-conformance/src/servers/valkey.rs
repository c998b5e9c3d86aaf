//! A Valkey whose wall clock a test can step.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use super::error::{StartError, find_faketime, skip_if_allowed};
use super::fetched;
use super::redis::{RedisBuilder, RedisServer};
use crate::faketime;
use crate::wait::poll;

const INSTALL_VALKEY: &str = "cargo xtask valkey";

/// The file libfaketime reads at every look at the clock. Relative: the server runs in its own directory.
const CLOCK_FILE: &str = "clock";

/// How long a step may take to be seen.
const STEP_DEADLINE: Duration = Duration::from_secs(5);

/// A running Valkey on 127.0.0.1 under libfaketime, gone when dropped. Everything a [`RedisServer`] can, it can.
///
/// Only the wall clock is faked: that is what lock expiry on the server follows. The monotonic clock, which drives
/// its event loop and its timeouts, stays true.
#[derive(Debug)]
pub struct ValkeyServer {
    server: RedisServer,
}

impl ValkeyServer {
    /// Starts a server whose clock is right.
    ///
    /// # Panics
    /// If Valkey or libfaketime is not installed, or the server does not start.
    #[must_use]
    pub fn start() -> ValkeyServer {
        ValkeyServer::try_start(|builder| builder).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`start`](Self::start); `None`, said loudly, if it is missing and `LOCK_TEST_ALLOW_MISSING` names `valkey`.
    ///
    /// # Panics
    /// If it is missing and must not be, or does not start.
    #[must_use]
    pub fn start_or_skip() -> Option<ValkeyServer> {
        skip_if_allowed("valkey", ValkeyServer::try_start(|builder| builder))
    }

    /// Starts a server with settings. This Valkey is built without TLS.
    ///
    /// # Errors
    /// [`StartError::Missing`] when Valkey or libfaketime is not installed; otherwise why it did not start.
    pub fn try_start(
        settings: impl FnOnce(RedisBuilder) -> RedisBuilder,
    ) -> Result<ValkeyServer, StartError> {
        let binary = fetched::find("LOCK_TEST_VALKEY", "valkey-", "valkey-server").ok_or(
            StartError::Missing {
                what: "valkey-server".into(),
                install: INSTALL_VALKEY,
            },
        )?;
        let library = find_faketime()?;
        let mut builder = RedisServer::builder()
            .named("valkey", INSTALL_VALKEY)
            .binary(binary)
            .file(CLOCK_FILE, &faketime::offset_line(0));
        for (name, value) in faketime::env(&library, CLOCK_FILE) {
            builder = builder.env(name, value);
        }
        let server = settings(builder).try_start()?;
        Ok(ValkeyServer { server })
    }

    /// Sets the server's wall clock to true time plus `seconds`, while it runs; survives a restart.
    ///
    /// On a running server the step is checked with TIME before this returns: a clock test with a clock that does not
    /// move would pass for nothing. A paused or killed server sees the step when it goes on.
    ///
    /// # Errors
    /// The clock file cannot be written, the server does not answer, or its clock did not step.
    pub fn set_clock_offset(&self, seconds: i64) -> io::Result<()> {
        self.write_clock(seconds)?;
        match self.pid() {
            Some(_) if !self.is_paused() => self.confirm_offset(seconds),
            _ => Ok(()),
        }
    }

    /// The server's own idea of the time, since 1970.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn time(&self) -> io::Result<Duration> {
        let time = self.cli(&["TIME"])?;
        let parts = time.split_once('\n');
        parts
            .and_then(|(seconds, micros)| {
                let micros = Duration::from_micros(micros.parse().ok()?);
                Some(Duration::from_secs(seconds.parse().ok()?) + micros)
            })
            .ok_or_else(|| io::Error::other(format!("not a TIME reply: {time}")))
    }

    /// Waits until TIME shows true time plus `seconds`.
    ///
    /// [`set_clock_offset`](Self::set_clock_offset) does it; only a step made during a pause has to be confirmed after
    /// the resume. Valkey looks at the wall clock once a millisecond at most and counts on with the monotonic clock in
    /// between, so the first answers after a step can still be old.
    ///
    /// # Errors
    /// The server does not answer, or its clock is elsewhere.
    pub fn confirm_offset(&self, seconds: i64) -> io::Result<()> {
        let mut seen = Duration::ZERO;
        poll(STEP_DEADLINE, || {
            let before = faketime::true_time();
            seen = match self.time() {
                Ok(time) => time,
                Err(error) => return Some(Err(error)),
            };
            faketime::is_off_by(seconds, before, seen).then_some(Ok(()))
        })
        .unwrap_or_else(|| {
            let wanted = faketime::shifted(faketime::true_time(), seconds);
            Err(io::Error::other(format!(
                "the server's clock should be at {wanted:?} and is at {seen:?}"
            )))
        })
    }

    fn write_clock(&self, seconds: i64) -> io::Result<()> {
        faketime::set(&self.dir().join(CLOCK_FILE), seconds)
    }
}

impl Deref for ValkeyServer {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        &self.server
    }
}
