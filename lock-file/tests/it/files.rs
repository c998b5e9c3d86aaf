//! Files that are removed, replaced, swept, foreign, or may not be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lock_core::{ClientOptions, ErrorKind, LossReason, Released};

use crate::fixture::{Fixture, SOON, take, until};

#[tokio::test]
async fn holder_is_told_when_its_file_is_removed_or_replaced() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.client().await, fixture.client().await);
    for remove in [true, false] {
        let guard = take(&a, "n").await.expect("the lock is free");
        let path = fixture.path("n.lock");
        match remove {
            true => fs::remove_file(&path).expect("removes"),
            false => fs::rename(&path, fixture.path("elsewhere")).expect("renames"),
        }
        let reason = tokio::time::timeout(SOON, guard.lost()).await;
        assert_eq!(reason.expect("told"), LossReason::NotHeld);
        let new = take(&b, "n").await.expect("a lock without a file is free");
        assert!(new.token() > guard.token());
        let late = guard.release().await.expect("an answer");
        assert!(matches!(late, Released::WasLost(_)), "{late:?}");
        new.check().expect("the late release changed nothing");
        new.release().await.expect("an answer");
    }
}

#[tokio::test]
async fn holder_is_told_when_its_directory_is_moved() {
    let fixture = Fixture::new();
    for moved in ["up", "up/locks"] {
        let locks = fixture.client_in("up/locks").await;
        let guard = take(&locks, "n").await.expect("the lock is free");
        fs::rename(fixture.path(moved), fixture.path("elsewhere")).expect("renames");
        let reason = tokio::time::timeout(SOON, guard.lost()).await;
        assert_eq!(reason.expect("told"), LossReason::NotHeld);
        fs::remove_dir_all(fixture.path("elsewhere")).expect("removes");
    }
}

#[tokio::test]
async fn waiter_moves_on_to_the_new_file_when_the_old_one_is_removed() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.client().await, fixture.client().await);
    let _old = take(&a, "n").await.expect("the lock is free");
    let waiting = tokio::spawn({
        let mutex = b.mutex("n");
        async move { mutex.acquire().await }
    });
    until_waiting(&a, "n").await;
    fs::remove_file(fixture.path("n.lock")).expect("removes");
    let guard = tokio::time::timeout(SOON, waiting).await.expect("in time");
    let guard = guard.expect("no panic").expect("granted");
    assert!(take(&a, "n").await.is_none(), "the new file excludes");
    guard.release().await.expect("an answer");
}

async fn until_waiting(locks: &lock_core::Locks, name: &str) {
    loop {
        let state = locks.inspect(name).await.expect("a state");
        if !state.waiters.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn files_of_unused_locks_are_swept_and_those_in_use_are_not() {
    let fixture = Fixture::new();
    let config = fixture.config().with_retention(Duration::from_secs(1));
    let a = fixture.client_with(config, ClientOptions::default()).await;
    for number in 0..20 {
        let guard = take(&a, &format!("n{number}")).await;
        guard.expect("free").release().await.expect("an answer");
    }
    let kept = take(&a, "kept").await.expect("the lock is free");
    assert_eq!(fixture.files().len(), 21);
    until("only the held lock has a file", || {
        fixture.files() == ["kept.lock"]
    })
    .await;
    kept.check().expect("a held lock is not swept");
    let b = fixture.client().await;
    assert!(take(&b, "kept").await.is_none());
}

#[tokio::test]
async fn file_that_is_no_lock_is_left_alone_and_refused() {
    let fixture = Fixture::new();
    let a = fixture.client().await;
    fs::write(fixture.path("n.lock"), "#!/bin/sh\n").expect("writes");
    let error = a.mutex("n").try_acquire().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::WrongType);
    let left = fs::read_to_string(fixture.path("n.lock")).expect("reads");
    assert_eq!(left, "#!/bin/sh\n");
    fs::create_dir(fixture.path("d.lock")).expect("a directory");
    let error = a.mutex("d").try_acquire().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::WrongType);
    // Refused for its content, and not left locked by the refusal.
    fs::remove_file(fixture.path("n.lock")).expect("removes");
    assert!(take(&a, "n").await.is_some());
}

#[tokio::test]
async fn long_names_that_share_a_beginning_are_two_locks_with_the_full_name_inside() {
    let fixture = Fixture::new();
    let a = fixture.client().await;
    let names = ["x".repeat(1024), format!("{}y", "x".repeat(1023))];
    let guards = [take(&a, &names[0]).await, take(&a, &names[1]).await];
    assert!(guards.iter().all(Option::is_some));
    let listed = a.list("xxx", lock_core::Cursor::default()).await;
    let listed = listed.expect("a page").names;
    let listed: Vec<&str> = listed.iter().map(lock_core::LockName::as_str).collect();
    assert_eq!(listed, [names[0].as_str(), names[1].as_str()]);
}

#[tokio::test]
async fn directory_and_files_are_the_owners_alone_unless_told_otherwise() {
    let fixture = Fixture::new();
    let dir = fixture.path("made/by us");
    let url = format!("file://{}?mode=644", dir.display()).replace(' ', "%20");
    let registry = lock_file::register(lock_core::Registry::new());
    let locks = lock_core::Locks::connect_with(&registry, &url).await;
    let locks = locks.expect("connects");
    let guard = locks.mutex("n").acquire().await.expect("granted");
    let mode = |path: &std::path::Path| {
        let found = fs::metadata(path).expect("is there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("n.lock")) & 0o600, 0o600);
    guard.release().await.expect("an answer");
    let plain = fixture.client().await;
    let _held = take(&plain, "m").await.expect("the lock is free");
    assert_eq!(mode(&fixture.path("m.lock")), 0o600);
}
