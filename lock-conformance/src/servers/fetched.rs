//! Server programs that `cargo xtask` has fetched, pinned, into the target directory.

use std::path::PathBuf;
use std::{env, fs};

/// What `variable` says, or the newest `program` in a directory whose name begins with `directory` below
/// `test-servers` of the target directory this test was built in.
pub(super) fn find(variable: &str, directory: &str, program: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let target_dir = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let test_binary = env::current_exe().ok();
    let above = test_binary.iter().flat_map(|path| path.ancestors());
    target_dir
        .as_deref()
        .into_iter()
        .chain(above)
        .filter_map(|dir| fs::read_dir(dir.join("test-servers")).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(directory))
        .map(|entry| entry.path().join(program))
        .filter(|path| path.is_file())
        // Several after the pin has moved: the newest fetch.
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
}
