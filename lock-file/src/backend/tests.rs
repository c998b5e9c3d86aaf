//! What the kernel tells a client, and one that it does not notify: who has no inotify instance left.

use std::os::unix::fs::MetadataExt;

use lock_core::{Identity, Nonce};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Long enough for anything that is not broken.
const SOON: Duration = Duration::from_secs(10);

fn claim() -> Claim {
    let name = LockName::new("n").expect("a good name");
    Claim::new(name, Identity::of_this_process("x"), SOON)
}

fn deaf_client(dir: &TempDir) -> FileBackend {
    let context = Context::new(Identity::of_this_process("x"));
    FileBackend::with(&FileConfig::new(dir.path()), context, None)
}

fn client(dir: &TempDir) -> FileBackend {
    let context = Context::new(Identity::of_this_process("x"));
    FileBackend::open(&FileConfig::new(dir.path()), context).expect("a directory")
}

/// Whether an inotify instance of this process watches the file.
fn is_watched(path: &Path) -> bool {
    let number = path.metadata().expect("is there").ino();
    let watch = format!(" ino:{number:x} ");
    let infos = std::fs::read_dir("/proc/self/fdinfo").expect("reads");
    infos
        .filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok())
        .any(|info| info.contains("inotify wd:") && info.contains(&watch))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect(what);
}

async fn told(backend: &FileBackend) -> Nonce {
    match timeout(SOON, backend.events().next()).await {
        Ok(Some(Event::Gone { nonce })) => nonce,
        other => panic!("another event: {other:?}"),
    }
}

#[tokio::test]
async fn holder_is_told_by_the_clock_that_its_file_was_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = deaf_client(&dir);
    let claim = claim();
    let grant = backend.try_acquire(&claim).await.expect("an answer");
    assert!(grant.is_some());
    std::fs::remove_file(dir.path().join("n.lock")).expect("removes");
    assert_eq!(told(&backend).await, claim.nonce);
}

#[tokio::test]
async fn waiter_sees_by_the_clock_that_the_lock_was_given_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = (deaf_client(&dir), deaf_client(&dir));
    let (first, second) = (claim(), claim());
    let held = a.try_acquire(&first).await.expect("an answer");
    let held = held.expect("the lock is free");
    let waiting = tokio::spawn(async move { b.acquire(&second).await });
    while waiters(dir.path(), &first.name).expect("reads").is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(a.release(&first).await.expect("an answer"));
    let granted = timeout(SOON, waiting).await.expect("in time");
    let granted = granted.expect("no panic").expect("granted");
    assert!(granted.token() > held.token());
}

#[tokio::test]
async fn lock_whose_file_was_removed_is_not_handed_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = deaf_client(&dir);
    let (first, second) = (claim(), claim());
    let grant = backend.try_acquire(&first).await.expect("an answer");
    assert!(grant.is_some());
    std::fs::remove_file(dir.path().join("n.lock")).expect("removes");
    let replaced = backend.replace(&first, &second).await;
    let replaced = replaced.expect("an answer");
    assert!(
        matches!(replaced, Replaced::Now(Standing::Queued)),
        "{replaced:?}"
    );
}

#[tokio::test]
async fn waiter_is_notified_of_the_file_that_came_in_the_place_of_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b, c) = (client(&dir), client(&dir), client(&dir));
    let (first, second, third) = (claim(), claim(), claim());
    let path = dir.path().join("n.lock");
    let _old = a.try_acquire(&first).await.expect("an answer");
    let waiting = tokio::spawn(async move { b.acquire(&second).await });
    until("waits for the old file", || is_watched(&path)).await;
    std::fs::remove_file(&path).expect("removes");
    let new = c.try_acquire(&third).await.expect("an answer");
    assert!(new.is_some(), "the new file is free");
    until("waits for the new file", || is_watched(&path)).await;
    assert!(c.release(&third).await.expect("an answer"));
    let granted = timeout(SOON, waiting).await.expect("in time");
    granted.expect("no panic").expect("granted");
}

#[tokio::test]
async fn lock_is_not_kept_from_a_waiter_whose_ticket_cannot_be_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = deaf_client(&dir);
    let (first, second, other) = (claim(), claim(), claim());
    let grant = backend.try_acquire(&first).await.expect("an answer");
    assert!(grant.is_some());
    let _ticket = Ticket::new(dir.path(), &other).expect("a ticket");
    // Root, who runs the tests in many places, may read everything: there is nothing to be read.
    let ticket = format!("{}/n.lock.{}", crate::ticket::DIR, other.nonce);
    std::fs::write(dir.path().join(ticket), "").expect("writes");
    tokio::time::sleep(LONGEST_STREAK).await;
    let passed = backend.pass(&first, &second).await.expect("an answer");
    assert!(matches!(passed.next, Standing::Queued), "{passed:?}");
}
