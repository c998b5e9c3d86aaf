//! The directory the locks are in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lock_core::{Nonce, Result};

use crate::error::{invalid, os};

const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The directory of a user who names none: `distlock` under `XDG_STATE_HOME`, or under `~/.local/state`.
///
/// # Source
/// XDG Base Directory Specification 0.8.
pub(crate) fn default_dir(state_home: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    // The specification: a relative path there is to be ignored.
    let state_home = state_home.filter(|path| path.is_absolute());
    let state = state_home.or_else(|| {
        let home = home.filter(|home| home.is_absolute())?;
        Some(home.join(".local/state"))
    });
    state.map(|state| state.join("distlock/locks")).ok_or_else(|| {
        invalid(
            "connect",
            "neither XDG_STATE_HOME nor HOME says where a user's locks go; name a directory: file:///var/lib/locks",
        )
    })
}

/// Makes the directory, for its owner alone, if it is not there; refuses one in which a stranger could
/// replace the files.
pub(crate) fn prepare(dir: &Path) -> Result<()> {
    let trouble = |error: io::Error| {
        os(
            "connect",
            &format!("the directory {}", dir.display()),
            error,
        )
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(trouble)?;
    let found = fs::metadata(dir).map_err(trouble)?;
    let mode = found.permissions().mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 && !is_private_group(&found, mode) {
        return Err(invalid(
            "connect",
            format!(
                "others may write to {} (mode {:o}), so they could replace its locks; \
                 take the right away, or set the sticky bit (chmod +t)",
                dir.display(),
                mode & 0o7777
            ),
        ));
    }
    Ok(())
}

/// Makes a directory inside of `parent` that the same people can use. One that is there is fine.
pub(crate) fn make_like(dir: &Path, parent: &Path) -> io::Result<()> {
    let rights = fs::metadata(parent)?.permissions();
    // Aside, and moved there when it has its rights: somebody else may need it at once, and who is killed in
    // between would keep everybody else out for good.
    let aside = dir.with_extension(Nonce::new().to_string());
    fs::create_dir(&aside)?;
    // Exactly the parent's rights: the umask would take some away.
    let made = fs::set_permissions(&aside, rights).and_then(|()| fs::rename(&aside, dir));
    if made.is_err() {
        // An empty directory that is left behind is in nobody's way.
        let _ = fs::remove_dir(&aside);
    }
    match made {
        // Somebody else was faster, and is using it.
        Err(_) if fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir()) => Ok(()),
        made => made,
    }
}

/// A directory that a group shares on purpose: its members trust each other, everybody else is kept out.
fn is_private_group(found: &fs::Metadata, mode: u32) -> bool {
    mode & 0o002 == 0 && mode & 0o2000 != 0 && found.gid() != 0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use lock_core::ErrorKind;

    use super::*;

    #[test]
    fn default_directory_follows_the_specification() {
        let of = |state: Option<&str>, home: Option<&str>| {
            default_dir(state.map(Into::into), home.map(Into::into))
        };
        let expected = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            of(Some("/s"), Some("/h")).ok(),
            expected("/s/distlock/locks")
        );
        assert_eq!(
            of(Some("s"), Some("/h")).ok(),
            expected("/h/.local/state/distlock/locks")
        );
        assert_eq!(
            of(None, Some("/h")).ok(),
            expected("/h/.local/state/distlock/locks")
        );
        assert_eq!(
            of(None, None).expect_err("nowhere").kind(),
            ErrorKind::Invalid
        );
    }

    #[test]
    fn directory_is_made_for_its_owner_alone_and_open_ones_are_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("a/b");
        prepare(&dir).expect("is made");
        let mode = |dir: &Path| fs::metadata(dir).expect("is there").permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700);
        let open =
            |bits| fs::set_permissions(&dir, fs::Permissions::from_mode(bits)).expect("sets");
        for refused in [0o777, 0o770, 0o707] {
            open(refused);
            assert_eq!(
                prepare(&dir).expect_err("refused").kind(),
                ErrorKind::Invalid
            );
        }
        for fine in [0o1777, 0o755, 0o700] {
            open(fine);
            prepare(&dir).expect("fine");
        }
    }

    #[test]
    fn directory_inside_is_never_seen_with_other_rights_than_its_parents() {
        let root = tempfile::tempdir().expect("a directory");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o1777)).expect("sets");
        for number in 0..200 {
            let dir = root.path().join(format!(".{number}"));
            let looking = AtomicBool::new(false);
            let seen = thread::scope(|threads| {
                let witness = threads.spawn(|| {
                    loop {
                        let found = fs::symlink_metadata(&dir);
                        looking.store(true, Ordering::Release);
                        if let Ok(found) = found {
                            return found.permissions().mode() & 0o7777;
                        }
                    }
                });
                while !looking.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                make_like(&dir, root.path()).expect("makes");
                witness.join().expect("no panic")
            });
            assert_eq!(seen, 0o1777);
        }
        make_like(&root.path().join(".0"), root.path()).expect("is there");
        let left = fs::read_dir(root.path()).expect("reads").count();
        assert_eq!(left, 200, "nothing else is left behind");
    }

    #[test]
    fn file_in_the_way_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("f");
        fs::write(&file, "").expect("writes");
        let error = prepare(&file).expect_err("no directory").to_string();
        assert!(error.contains('f'), "{error}");
    }
}
