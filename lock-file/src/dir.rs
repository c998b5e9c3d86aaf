//! The directory the locks are in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lock_core::Result;

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
    match fs::create_dir(dir) {
        // Exactly the parent's rights: the umask would take some away.
        Ok(()) => fs::set_permissions(dir, fs::metadata(parent)?.permissions()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A directory that a group shares on purpose: its members trust each other, everybody else is kept out.
fn is_private_group(found: &fs::Metadata, mode: u32) -> bool {
    mode & 0o002 == 0 && mode & 0o2000 != 0 && found.gid() != 0
}

#[cfg(test)]
mod tests {
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
    fn file_in_the_way_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("f");
        fs::write(&file, "").expect("writes");
        let error = prepare(&file).expect_err("no directory").to_string();
        assert!(error.contains('f'), "{error}");
    }
}
