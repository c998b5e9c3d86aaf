//! The end of a client.

use std::time::Duration;

use lock_core::{ClientOptions, ErrorKind, LossReason, Released};

use crate::faulty::{Fault, Faulty, until};

#[tokio::test]
async fn shutdown_refuses_new_work_and_sends_waiters_away() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    let held = other.mutex("a").acquire().await.expect("free");
    let waits = |locks: &lock_core::Locks| {
        let locks = locks.clone();
        tokio::spawn(async move { locks.mutex("a").acquire().await })
    };
    let (standing, in_line) = (waits(&locks), waits(&locks));
    until("both wait", || async { locks.stats().waiting == 2 }).await;
    let report = locks
        .shutdown(Duration::from_secs(10))
        .await
        .expect("first");
    assert!(report.is_clean(), "{report:?}");
    for waiter in [standing, in_line] {
        assert_eq!(
            waiter.await.expect("no panic").expect_err("closed").kind(),
            ErrorKind::Closed
        );
    }
    assert!(
        other
            .inspect("a")
            .await
            .expect("answers")
            .waiters
            .is_empty()
    );
    assert_eq!(
        locks.mutex("b").acquire().await.expect_err("closed").kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        locks.inspect("b").await.expect_err("closed").kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        locks
            .shutdown(Duration::ZERO)
            .await
            .expect_err("closed before")
            .kind(),
        ErrorKind::Closed
    );
    drop(held);
}

#[tokio::test]
async fn shutdown_waits_for_releases_and_tells_who_still_holds() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    let dropped = locks.mutex("dropped").acquire().await.expect("free");
    let kept = locks.mutex("kept").acquire().await.expect("free");
    drop(dropped);
    let report = locks
        .shutdown(Duration::from_millis(200))
        .await
        .expect("first");
    assert_eq!((report.still_held, report.unconfirmed), (1, 0));
    assert_eq!(kept.lost().await, LossReason::Closed);
    assert_eq!(
        kept.release().await.expect("answers"),
        Released::WasLost(LossReason::Closed)
    );
    assert!(
        other
            .mutex("dropped")
            .try_acquire()
            .await
            .expect("answers")
            .is_some()
    );
    assert!(
        other
            .mutex("kept")
            .try_acquire()
            .await
            .expect("answers")
            .is_none(),
        "what a user may still act on ends with its TTL, not before"
    );
}

#[tokio::test]
async fn shutdown_ends_in_time_although_the_backend_is_silent() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    drop(locks.mutex("a").acquire().await.expect("free"));
    faulty.plan.next("release", &[Fault::BlackHole; 100]);
    faulty.plan.next("close", &[Fault::BlackHole]);
    let report = locks
        .shutdown(Duration::from_millis(100))
        .await
        .expect("first");
    assert_eq!((report.still_held, report.unconfirmed), (0, 1));
}

#[tokio::test]
async fn guard_outlives_the_last_handle_and_still_releases() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks
        .mutex("a")
        .ttl(Duration::from_millis(1500))
        .acquire()
        .await
        .expect("free");
    drop(locks);
    until("renewed", || async { faulty.plan.calls("renew") >= 2 }).await;
    guard.check().expect("kept alive");
    drop(guard);
    drop(
        other
            .mutex("a")
            .acquire_within(Duration::from_secs(10))
            .await
            .expect("answers")
            .expect("free"),
    );
    until("closed", || async { faulty.plan.calls("close") == 1 }).await;
}

#[tokio::test]
async fn everything_dropped_at_once_is_released_and_closed() {
    let faulty = Faulty::new();
    let other = faulty.open_plain().await;
    let locks = faulty.open().await;
    let guards = [
        locks.mutex("a").acquire().await,
        locks.mutex("b").acquire().await,
    ];
    drop((locks, guards));
    until("closed", || async { faulty.plan.calls("close") == 1 }).await;
    for name in ["a", "b"] {
        assert!(
            other
                .mutex(name)
                .try_acquire()
                .await
                .expect("answers")
                .is_some(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn shutdown_that_cuts_a_release_short_is_not_clean() {
    let faulty = Faulty::new();
    let options = ClientOptions::default().with_op_timeout(Duration::from_secs(20));
    let locks = faulty.open_with(options).await;
    faulty.plan.next("release", &[Fault::BlackHole]);
    drop(locks.mutex("a").acquire().await.expect("free"));
    until("released", || async { faulty.plan.calls("release") == 1 }).await;
    let report = locks
        .shutdown(Duration::from_millis(50))
        .await
        .expect("first");
    assert_eq!((report.still_held, report.unconfirmed), (0, 1));
}

#[tokio::test]
async fn second_shutdown_does_not_wait_for_the_first() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let _held = locks.mutex("a").acquire().await.expect("free");
    let first = tokio::spawn({
        let locks = locks.clone();
        async move { locks.shutdown(Duration::MAX).await }
    });
    until("closing", || async {
        locks.mutex("b").acquire().await.is_err()
    })
    .await;
    let second = tokio::time::timeout(Duration::from_secs(10), locks.shutdown(Duration::ZERO));
    let error = second.await.expect("at once").expect_err("closed before");
    assert_eq!(error.kind(), ErrorKind::Closed);
    first.abort();
}

#[tokio::test]
async fn longest_durations_do_not_overflow() {
    let faulty = Faulty::new().without_ttl();
    let options = ClientOptions::default()
        .with_op_timeout(Duration::MAX)
        .with_outage_limit(Duration::MAX)
        .with_max_hold(Duration::MAX);
    let locks = faulty.open_with(options).await;
    let mutex = locks.mutex("a").ttl(Duration::MAX);
    let guard = mutex
        .acquire_within(Duration::MAX)
        .await
        .expect("answers")
        .expect("free");
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.acquire_within(Duration::MAX).await }
    });
    until("in line", || async { locks.stats().waiting == 1 }).await;
    guard.renew().await.expect("held");
    faulty.plan.next("pass", &[Fault::ReplyLost]);
    drop(guard);
    drop(
        waiting
            .await
            .expect("no panic")
            .expect("answers")
            .expect("granted"),
    );
    until("all is cleaned up", || async {
        faulty.plan.calls("release") == 3 && locks.stats().cleanups == 0
    })
    .await;
    drop((mutex, locks));
    until("closed", || async { faulty.plan.calls("close") == 1 }).await;
}
