//! Removing the files of locks that nobody uses.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::file::LockFile;
use crate::name::is_lock;
use crate::record::{self, Found};
use crate::ticket;
use crate::token::{seed, wall_micros};

/// Its time of change says when the directory was last swept.
const MARK: &str = ".swept";

/// Sweeps `dir` unless somebody has done so within `retention`.
///
/// A file is removed under its own lock, and who locks a file looks whether it is still in its place: so
/// nobody ends up with a lock on a file that is gone. One whose token the clock has yet to pass is kept: when
/// the clock was set back, say, nothing else would keep its tokens from coming again.
pub(crate) fn sweep_if_due(
    dir: &Path,
    mode: u32,
    retention: Duration,
    fence_base: u64,
) -> io::Result<usize> {
    let mark = dir.join(MARK);
    match fs::symlink_metadata(&mark) {
        Ok(found) if unused_for(&found) < retention => return Ok(0),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Before the work, so that others do not begin it too. Like a lock's file: where others may write, it
    // could be a link to something that is not to be touched.
    LockFile::open(&mark, mode)?.touch()?;
    let mut removed = ticket::sweep(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_lock) {
            continue;
        }
        // One that cannot be looked at, or is gone meanwhile, is no reason to leave the others.
        if matches!(sweep_one(&entry.path(), retention, fence_base), Ok(true)) {
            removed += 1;
        }
    }
    Ok(removed)
}

fn sweep_one(path: &Path, retention: Duration, fence_base: u64) -> io::Result<bool> {
    // Looked at before it is opened: closing a file wakes those who wait for it.
    if unused_for(&path.symlink_metadata()?) < retention {
        return Ok(false);
    }
    let Some(file) = LockFile::open_existing(path, true)? else {
        return Ok(false);
    };
    if !file.try_lock_to_sweep()? {
        return Ok(false);
    }
    let forgettable = match record::read(file.file())? {
        Found::Record(record) => record.token < seed(fence_base),
        Found::Nothing => true,
        Found::Foreign => false,
    };
    // Again: it may have been used since.
    let old = unused_for(&file.file().metadata()?) >= retention;
    let remove = forgettable && old && file.is_in_place()?;
    if remove {
        fs::remove_file(path)?;
    }
    Ok(remove)
}

/// How long ago the file was changed, on the wall clock; nothing if that is in the future.
fn unused_for(found: &fs::Metadata) -> Duration {
    use std::os::unix::fs::MetadataExt;
    let seconds = u64::try_from(found.mtime()).unwrap_or(0);
    let micros = u64::try_from(found.mtime_nsec()).unwrap_or(0) / 1_000;
    let changed = seconds.saturating_mul(1_000_000).saturating_add(micros);
    Duration::from_micros(wall_micros().saturating_sub(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_unlocked_locks_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let make = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::write(&path, content).expect("writes");
            path
        };
        let (idle, held) = (make("idle.lock", ""), make("held.lock", ""));
        let (foreign, other) = (make("foreign.lock", "mine"), make("other", ""));
        let holder = LockFile::open(&held, 0o600).expect("opens");
        assert!(holder.try_lock().expect("answers"));
        assert_eq!(
            sweep_if_due(dir.path(), 0o600, Duration::from_secs(60), 0).expect("sweeps"),
            0
        );
        assert!(idle.exists(), "it is not old");
        // The mark is as new as the files: with no retention both are due.
        assert_eq!(
            sweep_if_due(dir.path(), 0o600, Duration::ZERO, 0).expect("sweeps"),
            1
        );
        assert!(!idle.exists() && held.exists() && foreign.exists() && other.exists());
    }

    #[test]
    fn token_that_the_clock_has_yet_to_pass_is_not_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let hour = 3_600_000_000;
        let base = 1 << 60;
        let (past, ahead) = (wall_micros() - hour, wall_micros() + hour);
        let tokens = [past, ahead, base + past, base + ahead];
        for (number, token) in tokens.into_iter().enumerate() {
            let record = format!(
                "{{\"distlock\":1,\"name\":\"{number}\",\"token\":{token},\"holder\":null}}\n"
            );
            fs::write(dir.path().join(format!("{number}.lock")), record).expect("writes");
        }
        let sweep = |base| sweep_if_due(dir.path(), 0o600, Duration::ZERO, base).expect("sweeps");
        assert_eq!(sweep(0), 1, "the first");
        assert_eq!(
            sweep(base),
            2,
            "the next two: with this base they are behind"
        );
        assert!(dir.path().join("3.lock").exists());
    }

    #[test]
    fn swept_directory_is_left_alone_for_the_retention() {
        let dir = tempfile::tempdir().expect("a directory");
        let minute = Duration::from_secs(60);
        sweep_if_due(dir.path(), 0o600, minute, 0).expect("sweeps");
        let mark = dir.path().join(MARK);
        let before = fs::metadata(&mark)
            .expect("is there")
            .modified()
            .expect("a time");
        sweep_if_due(dir.path(), 0o600, minute, 0).expect("sweeps");
        let after = fs::metadata(&mark)
            .expect("is there")
            .modified()
            .expect("a time");
        assert_eq!(before, after);
    }

    #[test]
    fn mark_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let precious = tempfile::NamedTempFile::new().expect("a file");
        fs::write(precious.path(), "precious").expect("writes");
        std::os::unix::fs::symlink(precious.path(), dir.path().join(MARK)).expect("links");
        sweep_if_due(dir.path(), 0o600, Duration::ZERO, 0).expect_err("refused");
        let left = fs::read_to_string(precious.path()).expect("reads");
        assert_eq!(left, "precious");
    }
}
