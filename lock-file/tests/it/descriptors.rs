//! What the kernel does with the lock when processes die and descriptors are handed on.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use lock_core::{Claim, Connect, Context, Identity, LockName};
use lock_file::HeldFile;

use crate::fixture::{Fixture, SOON, take, until};

#[tokio::test]
async fn lock_outlives_its_client_in_a_process_that_was_given_the_descriptor() {
    let fixture = Fixture::new();
    let witness = fixture.client().await;
    let identity = Identity::of_this_process("holder");
    let name = LockName::new("n").expect("a good name");
    let claim = Claim::new(name, identity.clone(), Duration::from_secs(1));
    let backend = fixture.config().connect(Context::new(identity)).await;
    let backend = backend.expect("a directory");
    let grant = backend.try_acquire(&claim).await.expect("an answer");
    let grant = grant.expect("the lock is free");
    let record = grant.record::<HeldFile>().expect("the backend's record");
    let descriptor = record.as_fd().try_clone_to_owned().expect("duplicates");
    // Its standard input is the lock's file: it keeps it open until it is killed.
    let mut keeper = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::from(descriptor))
        .spawn()
        .expect("starts");
    // As when a process dies: nothing is released, its descriptors are closed.
    let grant_token = grant.token();
    drop((grant, backend));
    for _ in 0..50 {
        tokio::task::yield_now().await;
        assert!(
            take(&witness, "n").await.is_none(),
            "the other process has it"
        );
    }
    let waiting = tokio::spawn({
        let mutex = witness.mutex("n");
        async move { mutex.acquire().await }
    });
    keeper.kill().expect("kills");
    keeper.wait().expect("ends");
    let guard = tokio::time::timeout(SOON, waiting).await.expect("in time");
    let guard = guard.expect("no panic").expect("granted");
    assert!(guard.token() > grant_token);
}

#[tokio::test]
async fn release_frees_the_lock_although_a_duplicate_is_open() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.client().await, fixture.client().await);
    let guard = take(&a, "n").await.expect("the lock is free");
    let record = guard.record::<HeldFile>().expect("the backend's record");
    let _duplicate = record.as_fd().try_clone_to_owned().expect("duplicates");
    guard.release().await.expect("an answer");
    assert!(take(&b, "n").await.is_some());
}

#[tokio::test]
async fn descriptors_do_not_grow_with_operations() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.client().await, fixture.client().await);
    let open = || std::fs::read_dir("/proc/self/fd").expect("reads").count();
    let before = open();
    for number in 0..200 {
        let name = format!("n{}", number % 7);
        let guard = a.mutex(&name).acquire().await.expect("granted");
        let mutex = b.mutex(&name);
        let bounded = mutex.acquire_within(Duration::from_millis(1)).await;
        assert!(bounded.expect("an answer").is_none());
        guard.release().await.expect("an answer");
    }
    // Other tests of this process open and close theirs beside it.
    until("descriptors are closed", || open() <= before + 20).await;
}
