//! One lock file: opened, locked, let go.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

/// The open file of a lock that is held; kept in the grant, see [`Guard::record`](lock_core::Guard::record).
///
/// The lock belongs to the open file description: it lasts until it is released, or until every
/// duplicate of this descriptor is closed, in whichever process. A program that hands a duplicate to
/// another process makes the lock last as long as that process, also when it dies itself.
///
/// # Source
/// `fcntl(2)`, "Open file description locks".
#[derive(Clone, Debug)]
pub struct HeldFile(pub(crate) Arc<LockFile>);

impl AsFd for HeldFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// A holder locks all of the file.
const WHOLE: libc::off_t = 0;
/// A sweeper locks its first byte only: that excludes everybody as well, and is seen to be no hold.
const SWEEPERS: libc::off_t = 1;

/// Who has a lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Taker {
    Holder,
    /// It is about to remove the file, or to let go of it: in a moment nobody has the lock.
    Sweeper,
}

/// How often a file may be swept away while it is being opened.
const MOST_ATTEMPTS: u32 = 100;

/// A lock file that is open, and maybe locked.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Opens the file, and makes it if it is not there.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        // O_CREAT only where there is none: in a sticky directory that others may write to, the kernel
        // refuses it for somebody else's file (fs.protected_regular), though it may be opened.
        let mut attempts = 0..MOST_ATTEMPTS;
        loop {
            if let Some(file) = Self::open_existing(path, true)? {
                return Ok(file);
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(mode);
            match Self::with(options, path) {
                // Somebody else has made it since; it may be swept before it is opened.
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && attempts.next().is_some() => {}
                made => return made,
            }
        }
    }

    /// Opens the file to look at it; `None` when it is not there.
    pub(crate) fn open_existing(path: &Path, write: bool) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(write);
        match Self::with(options, path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn with(mut options: OpenOptions, path: &Path) -> io::Result<Self> {
        // A link could lead to somebody else's file; a pipe would block.
        let file = options
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        self.try_set(&range(libc::F_WRLCK, WHOLE))
    }

    /// Takes the lock if nobody has it, to remove the file: who tries meanwhile can tell that from a holder.
    pub(crate) fn try_lock_to_sweep(&self) -> io::Result<bool> {
        self.try_set(&range(libc::F_WRLCK, SWEEPERS))
    }

    fn try_set(&self, lock: &libc::flock) -> io::Result<bool> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(lock)) {
            Ok(_) => Ok(true),
            Err(errno) => not_locked(errno),
        }
    }

    /// Gives the lock back, whoever else has a duplicate of the descriptor, and wakes those who wait.
    pub(crate) fn unlock(&self) -> io::Result<()> {
        let all = range(libc::F_UNLCK, WHOLE);
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&all))?;
        // Closing would wake them too, but a guard that is still there keeps the descriptor open.
        self.touch()
    }

    /// Makes the file as new as if it had been written just now.
    pub(crate) fn touch(&self) -> io::Result<()> {
        let now = TimeSpec::UTIME_NOW;
        Ok(futimens(&self.file, &now, &now)?)
    }

    /// Who has the lock through another open file description. Takes nothing, so it disturbs nobody.
    pub(crate) fn taken_elsewhere(&self) -> io::Result<Option<Taker>> {
        let mut lock = range(libc::F_WRLCK, WHOLE);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(match i32::from(lock.l_type) {
            libc::F_UNLCK => None,
            _ if lock.l_len == SWEEPERS => Some(Taker::Sweeper),
            _ => Some(Taker::Holder),
        })
    }

    /// Whether another open file description holds the lock.
    pub(crate) fn is_held_elsewhere(&self) -> io::Result<bool> {
        Ok(self.taken_elsewhere()? == Some(Taker::Holder))
    }

    /// Whether the path still leads to this file. A lock on a file that was removed excludes nobody.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        let here = self.file.metadata()?;
        match self.path.symlink_metadata() {
            Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A path to this very file, whatever its own path leads to.
    pub(crate) fn by_descriptor(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// Whether `errno` says that somebody has the lock. POSIX allows EACCES for that too, but Linux means by it that
/// the system's rules (AppArmor, SELinux) let this process lock nothing: nobody would be found who has it.
fn not_locked(errno: Errno) -> io::Result<bool> {
    match errno {
        Errno::EAGAIN => Ok(false),
        errno => Err(errno.into()),
    }
}

/// The first bytes of the file; the kernel takes 0 for all of them.
fn range(kind: i32, length: libc::off_t) -> libc::flock {
    let short = |value: i32| libc::c_short::try_from(value).expect("a constant of the kernel's");
    libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: length,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lock_excludes_other_descriptions_and_not_duplicates() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.lock");
        let (a, b) = (LockFile::open(&path, 0o600), LockFile::open(&path, 0o600));
        let (a, b) = (a.expect("opens"), b.expect("opens"));
        assert!(a.try_lock().expect("answers"));
        assert!(!b.try_lock().expect("answers"));
        assert!(b.is_held_elsewhere().expect("answers"));
        assert!(!a.is_held_elsewhere().expect("answers"));
        let duplicate = a.file().try_clone().expect("duplicates");
        drop(a);
        assert!(!b.try_lock().expect("answers"), "the duplicate keeps it");
        drop(duplicate);
        assert!(b.try_lock().expect("answers"));
        b.unlock().expect("unlocks");
        assert!(!b.is_held_elsewhere().expect("answers"));
    }

    #[test]
    fn lock_that_the_system_forbids_is_not_taken_for_one_that_somebody_has() {
        assert!(!not_locked(Errno::EAGAIN).expect("somebody has it"));
        let error = not_locked(Errno::EACCES).expect_err("forbidden");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn file_that_others_make_and_remove_can_be_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.lock");
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..500 {
                        LockFile::open(&path, 0o600).expect("opens");
                        let _ = fs::remove_file(&path);
                    }
                });
            }
        });
    }

    #[test]
    fn sweeper_excludes_everybody_and_is_told_from_a_holder() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.lock");
        let open = || LockFile::open(&path, 0o600).expect("opens");
        let (a, b, c) = (open(), open(), open());
        assert!(a.try_lock_to_sweep().expect("answers"));
        assert!(!b.try_lock().expect("answers"));
        assert!(!b.try_lock_to_sweep().expect("answers"));
        assert_eq!(b.taken_elsewhere().expect("answers"), Some(Taker::Sweeper));
        assert!(!b.is_held_elsewhere().expect("answers"));
        drop(a);
        assert_eq!(b.taken_elsewhere().expect("answers"), None);
        assert!(b.try_lock().expect("answers"));
        assert!(!c.try_lock_to_sweep().expect("answers"));
        assert_eq!(c.taken_elsewhere().expect("answers"), Some(Taker::Holder));
    }

    #[test]
    fn removed_or_replaced_file_is_not_in_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.lock");
        let old = LockFile::open(&path, 0o600).expect("opens");
        assert!(old.is_in_place().expect("answers"));
        fs::remove_file(&path).expect("removes");
        assert!(!old.is_in_place().expect("answers"));
        let new = LockFile::open(&path, 0o600).expect("opens");
        assert!(!old.is_in_place().expect("answers"));
        assert!(new.is_in_place().expect("answers"));
    }

    #[test]
    fn link_and_pipe_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link.lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).expect("links");
        assert!(LockFile::open(&link, 0o600).is_err());
        let pipe = dir.path().join("pipe.lock");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(LockFile::open(&pipe, 0o600).is_err());
    }
}
