//! Where the locks are, and the options of this backend.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lock_core::{LockUrl, Result};

use crate::dir::default_dir;
use crate::error::invalid;

const DEFAULT_MODE: u32 = 0o600;
const DEFAULT_RETENTION: Duration = Duration::from_secs(600);
const RETENTION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// Where the locks are, and with which options.
///
/// As a URL: `file:///var/lib/locks?option=value`; `file://` without a path is the user's own directory,
/// `$XDG_STATE_HOME/distlock/locks` or `~/.local/state/distlock/locks`. Options, beside those of every
/// client:
///
/// | option | | default |
/// |---|---|---|
/// | `mode` | permissions of new lock files, octal; the umask applies | `600` |
/// | `retention` | how long the file of an unused lock, and so its last token, is kept, 1 s to 30 days | `10m` |
///
/// # Examples
/// ```
/// use lock_file::FileConfig;
/// let config = FileConfig::new("/var/lib/locks").with_mode(0o660);
/// assert_eq!(config.dir(), std::path::Path::new("/var/lib/locks"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FileConfig {
    pub(crate) dir: PathBuf,
    pub(crate) mode: u32,
    pub(crate) retention: Duration,
}

impl FileConfig {
    /// The locks in `dir`, all options at their defaults. The directory is made on connecting, with mode
    /// 700, if it is not there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            mode: DEFAULT_MODE,
            retention: DEFAULT_RETENTION,
        }
    }

    /// The user's own directory.
    ///
    /// # Errors
    /// [`Invalid`](lock_core::ErrorKind::Invalid) when the environment names neither a state nor a home
    /// directory.
    pub fn of_user() -> Result<Self> {
        let path = |name| env::var_os(name).map(PathBuf::from);
        default_dir(path("XDG_STATE_HOME"), path("HOME")).map(Self::new)
    }

    /// Reads this backend's part of a URL.
    ///
    /// # Errors
    /// [`Invalid`](lock_core::ErrorKind::Invalid) for a value that does not read or cannot work.
    pub fn from_url(url: &mut LockUrl) -> Result<Self> {
        if !url.hosts().is_empty() || url.username().is_some() || url.password().is_some() {
            return Err(invalid(
                "connect",
                "a file:// URL has no host and no user: file:///var/lib/locks has three slashes",
            ));
        }
        let mut config = match url.path() {
            // To a URL parser `file://` has a path. Nobody keeps locks in the root directory.
            "" | "/" => Self::of_user()?,
            path if path.contains('\0') => {
                return Err(invalid("connect", "the path has a NUL character in it"));
            }
            path => Self::new(path),
        };
        if let Some(mode) = url.take("mode") {
            let read = u32::from_str_radix(&mode, 8).ok();
            let usable = read.filter(|mode| mode & 0o600 == 0o600 && mode & !0o666 == 0);
            config.mode = usable.ok_or_else(|| {
                invalid(
                    "connect",
                    format!("the URL option mode={mode} is no octal mode from 600 to 666 that lets the owner read and write"),
                )
            })?;
        }
        if let Some(retention) = url.take_duration("retention")? {
            config.retention = retention;
        }
        Ok(config)
    }

    /// The permissions of new lock files; the umask applies. Defaults to 600.
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How long the file of an unused lock is kept, and its last token with it; on the wall clock, and at least
    /// until that has passed the token. Afterwards tokens grow by the wall clock alone. 1 s to 30 days; defaults to 10 minutes.
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if !self.dir.is_absolute() {
            return Err(invalid(
                "connect",
                format!(
                    "the directory {} is relative: processes that are started elsewhere would use another",
                    self.dir.display()
                ),
            ));
        }
        if !RETENTION.contains(&self.retention) {
            return Err(invalid(
                "connect",
                format!(
                    "a retention of {:?} is outside of 1 s to 30 days",
                    self.retention
                ),
            ));
        }
        if self.mode & 0o600 != 0o600 || self.mode & !0o666 != 0 {
            return Err(invalid(
                "connect",
                format!(
                    "lock files of mode {:o} cannot be used by their owner, or are executable",
                    self.mode
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lock_core::ErrorKind;

    use super::*;

    fn read(url: &str) -> Result<FileConfig> {
        let mut url = LockUrl::parse(url)?;
        let config = FileConfig::from_url(&mut url)?;
        url.finish()?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn url_says_where_and_how() {
        let config = read("file:///var/lib/my%20locks?mode=660&retention=1h").expect("reads");
        assert_eq!(config.dir(), Path::new("/var/lib/my locks"));
        assert_eq!(config.mode, 0o660);
        assert_eq!(config.retention, Duration::from_secs(3600));
    }

    #[test]
    fn url_without_a_path_is_the_users_own_directory() {
        let own = FileConfig::of_user().expect("tests run in somebody's home");
        assert_eq!(read("file://").expect("reads").dir(), own.dir());
        assert!(own.dir().ends_with("distlock/locks"));
    }

    #[test]
    fn url_that_cannot_work_is_refused_with_the_reason() {
        for (url, why) in [
            ("file://host/var", "three slashes"),
            ("file://u:p@/var", "malformed"),
            ("file:///a?mode=777", "mode"),
            ("file:///a?mode=400", "mode"),
            ("file:///a?mode=rw", "mode"),
            ("file:///a?retention=soon", "retention"),
            ("file:///a?retention=0s", "retention"),
            ("file:///a?retentoin=1h", "retention"),
        ] {
            let error = read(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }
}
