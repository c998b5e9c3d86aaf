//! A directory of locks for one test.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lock_core::{ClientOptions, Clock, Guard, Locks};
use lock_file::FileConfig;
use tempfile::TempDir;

/// Long enough for anything that is not broken.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Fixture {
    dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        Self { dir }
    }

    pub(crate) fn config(&self) -> FileConfig {
        FileConfig::new(self.dir.path())
    }

    pub(crate) async fn client(&self) -> Locks {
        self.client_with(self.config(), ClientOptions::default())
            .await
    }

    /// In a directory further down.
    pub(crate) async fn client_in(&self, dir: &str) -> Locks {
        let config = FileConfig::new(self.path(dir));
        self.client_with(config, ClientOptions::default()).await
    }

    pub(crate) async fn client_with(&self, config: FileConfig, options: ClientOptions) -> Locks {
        Locks::open(config, options).await.expect("a directory")
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// What is there, hidden files and directories aside.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).expect("reads");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = names
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

pub(crate) async fn take(locks: &Locks, name: &str) -> Option<Guard> {
    locks.mutex(name).try_acquire().await.expect("an answer")
}

/// Looks until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Clock::system();
    let end = clock.now() + SOON;
    while !condition() {
        assert!(clock.now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
