//! libfaketime: a wall clock that a test can set, for one process.
//!
//! Only the wall clock is faked: monotonic clocks, which drive event loops, timeouts and our own leases, stay true.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use tempfile::TempDir;

pub(crate) const LIBRARY: &str = "libfaketimeMT.so.1";
pub(crate) const INSTALL: &str = "apt-get install faketime";

/// How far a clock may be from where it was put. Well below the second that is the smallest step.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(100);

/// The library, if it is installed. Debian keeps it in a directory named after the architecture.
pub(crate) fn find() -> Option<PathBuf> {
    fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(Result::ok)
        .map(|arch| arch.path().join("faketime").join(LIBRARY))
        .chain([Path::new("/usr/lib/faketime").join(LIBRARY)])
        .find(|path| path.is_file())
}

/// The environment in which a process takes its wall clock from `file`, which it reads at every look at the clock.
pub(crate) fn env(library: &Path, file: impl Into<OsString>) -> [(&'static str, OsString); 4] {
    [
        ("LD_PRELOAD", library.into()),
        ("FAKETIME_TIMESTAMP_FILE", file.into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

/// Sets the clock to true time plus so many seconds.
pub(crate) fn set(file: &Path, seconds: i64) -> io::Result<()> {
    // Renamed into place: a process must never read a file half written, which would be another time.
    let new = file.with_extension("new");
    fs::write(&new, offset_line(seconds))?;
    fs::rename(new, file)
}

/// What the file says.
pub(crate) fn offset_line(seconds: i64) -> String {
    format!("{seconds:+}\n")
}

/// Whether a clock that showed `seen` between two looks at the true time is off by `seconds`.
pub(crate) fn is_off_by(seconds: i64, before: Duration, seen: Duration) -> bool {
    let earliest = shifted(before, seconds).saturating_sub(TOLERANCE);
    let latest = shifted(true_time(), seconds) + TOLERANCE;
    (earliest..=latest).contains(&seen)
}

/// The wall clock of this process, since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "compares a real process's clock with the machine's"
)]
pub(crate) fn true_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

pub(crate) fn shifted(time: Duration, seconds: i64) -> Duration {
    let shift = Duration::from_secs(seconds.unsigned_abs());
    match seconds {
        0.. => time + shift,
        _ => time.saturating_sub(shift),
    }
}

/// Removes the names under which libfaketime shares its state between processes, if `pid` runs under it.
///
/// It would remove them itself on a clean exit only, and these processes are killed. One that runs keeps what the
/// names stood for.
pub(crate) fn unlink_shared_memory(pid: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        // Not there for a process without libfaketime.
        let _ = fs::remove_file(format!("/dev/shm/{name}{pid}"));
    }
}

/// Wall clocks that a test can set, for processes that it starts; kept in files of a directory.
#[derive(Clone, Debug)]
pub(crate) struct WallClocks {
    library: PathBuf,
    dir: Arc<TempDir>,
}

impl WallClocks {
    /// What is missing where there is none, in `LOCK_TEST_ALLOW_MISSING`.
    pub(crate) const NAME: &str = "faketime";

    /// `None` where libfaketime is not installed.
    pub(crate) fn new() -> io::Result<Option<WallClocks>> {
        let Some(library) = find() else {
            return Ok(None);
        };
        let dir = tempfile::Builder::new()
            .prefix("distlock-clock-")
            .tempdir()?;
        Ok(Some(WallClocks {
            library,
            dir: Arc::new(dir),
        }))
    }

    pub(crate) fn missing() -> String {
        format!("{LIBRARY} is not installed; install it with `{INSTALL}`")
    }

    /// The true clock, as yet, of the process that is started with this environment.
    pub(crate) fn of(
        &self,
        process: &str,
    ) -> io::Result<(WallClock, [(&'static str, OsString); 4])> {
        let clock = WallClock {
            file: self.dir.path().join(process),
            _dir: Arc::clone(&self.dir),
        };
        clock.set(0)?;
        let env = env(&self.library, clock.file.as_os_str());
        Ok((clock, env))
    }
}

/// The wall clock of one process.
#[derive(Debug)]
pub(crate) struct WallClock {
    file: PathBuf,
    _dir: Arc<TempDir>,
}

impl WallClock {
    /// Sets it to true time plus so many seconds.
    pub(crate) fn set(&self, seconds: i64) -> io::Result<()> {
        set(&self.file, seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_where_it_was_put_and_nowhere_else() {
        let now = true_time();
        assert!(is_off_by(0, now, now));
        assert!(is_off_by(-60, now, now - Duration::from_secs(60)));
        assert!(is_off_by(60, now, now + Duration::from_secs(60)));
        assert!(!is_off_by(60, now, now));
        assert!(!is_off_by(0, now, now + Duration::from_secs(60)));
    }
}
