//! Holds that end without being released.

use std::sync::Arc;
use std::time::Duration;

use lock_core::{ClientOptions, ErrorKind, Locks, LossReason, MemoryStore, Released};
use tokio::sync::Notify;

use crate::faulty::{Fault, Faulty, at_rest, until};

const TTL: Duration = Duration::from_millis(300);
/// Longer than any test waits.
const LONG_TTL: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn kept_lock_without_renewals_is_lost_before_another_gets_it() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    faulty.plan.next("renew", &[Fault::BlackHole; 200]);
    let guard = locks.mutex("a").ttl(TTL).acquire().await.expect("free");
    let lost = guard.lost();
    let successor = tokio::spawn({
        let other = other.clone();
        async move { other.mutex("a").acquire().await }
    });
    let successor = successor
        .await
        .expect("no panic")
        .expect("granted after the TTL");
    let reason = futures_util::FutureExt::now_or_never(lost).expect("told before");
    assert_eq!(reason, LossReason::Expired);
    assert_eq!(guard.check().expect_err("lost").kind(), ErrorKind::Lost);
    assert_eq!(guard.remaining(), Duration::ZERO);
    let token = guard.token();
    assert_eq!(
        guard.release().await.expect("answers"),
        Released::WasLost(LossReason::Expired)
    );
    assert!(successor.token() > token);
    successor
        .check()
        .expect("the late release did not free the successor");
}

#[tokio::test]
async fn extension_that_was_executed_but_not_answered_is_cleaned_up_after_the_loss() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    faulty.plan.next("renew", &[Fault::Silent; 200]);
    let guard = locks
        .mutex("a")
        .ttl(Duration::from_secs(1))
        .acquire()
        .await
        .expect("free");
    assert_eq!(guard.lost().await, LossReason::Expired);
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn longest_hold_ends_a_forgotten_guard() {
    let options = ClientOptions::default().with_max_hold(TTL);
    let locks = Locks::open(MemoryStore::new(), options)
        .await
        .expect("memory is always there");
    let guard = locks.mutex("a").ttl(TTL).acquire().await.expect("free");
    assert_eq!(guard.lost().await, LossReason::MaxHold);
    drop(locks.mutex("a").acquire().await.expect("free again"));
}

#[tokio::test]
async fn broken_hold_is_told_and_its_release_is_no_success() {
    let faulty = Faulty::new();
    let (locks, operator) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks.mutex("a").acquire().await.expect("free");
    assert!(
        operator
            .break_hold("a", guard.token())
            .await
            .expect("answers")
    );
    assert!(
        !operator
            .break_hold("a", guard.token())
            .await
            .expect("answers"),
        "only once"
    );
    assert_eq!(guard.lost().await, LossReason::Broken);
    assert_eq!(
        guard.release().await.expect("answers"),
        Released::WasLost(LossReason::Broken)
    );
    let next = operator
        .mutex("a")
        .try_acquire()
        .await
        .expect("answers")
        .expect("free");
    drop(next);
    at_rest(&locks, &operator, "a").await;
}

#[tokio::test]
async fn work_is_stopped_when_the_lock_is_lost() {
    let faulty = Faulty::new();
    let (locks, operator) = (faulty.open().await, faulty.open_plain().await);
    let guard = Arc::new(locks.mutex("a").acquire().await.expect("free"));
    let started = Arc::new(Notify::new());
    let work = tokio::spawn({
        let (guard, started) = (Arc::clone(&guard), Arc::clone(&started));
        async move {
            guard
                .run(async {
                    started.notify_one();
                    std::future::pending::<()>().await;
                })
                .await
        }
    });
    started.notified().await;
    operator
        .break_hold("a", guard.token())
        .await
        .expect("answers");
    let error = work.await.expect("no panic").expect_err("stopped");
    assert_eq!((error.reason, error.output), (LossReason::Broken, None));
    let refused = guard
        .run(async { unreachable!("a lost lock runs nothing") })
        .await;
    assert_eq!(refused.expect_err("lost").reason, LossReason::Broken);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_finished_after_the_loss_hands_its_result_over_in_the_error() {
    let faulty = Faulty::new();
    let (locks, operator) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks.mutex("a").acquire().await.expect("free");
    let token = guard.token();
    let started = Arc::new(Notify::new());
    let breaking = tokio::spawn({
        let started = Arc::clone(&started);
        async move {
            started.notified().await;
            operator.break_hold("a", token).await
        }
    });
    let outcome = guard
        .run(async {
            started.notify_one();
            // Work that blocks its thread, so that nothing can stop it before it has finished.
            while guard.check().is_ok() {
                std::thread::yield_now();
            }
            7
        })
        .await;
    assert!(breaking.await.expect("no panic").expect("answers"));
    let error = outcome.expect_err("lost");
    assert_eq!(error.output, Some(7));
    assert_eq!(lock_core::Error::from(error).kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn renewal_by_hand_extends_a_fixed_lease_and_never_revives_it() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let guard = locks
        .mutex("a")
        .ttl(Duration::from_secs(2))
        .fixed()
        .acquire()
        .await
        .expect("free");
    until("some of the lease is used", || async {
        guard.remaining() < Duration::from_millis(1900)
    })
    .await;
    guard.renew().await.expect("held");
    assert!(guard.remaining() > Duration::from_millis(1900));
    assert_eq!(guard.lost().await, LossReason::Expired);
    assert_eq!(
        guard.renew().await.expect_err("lost").kind(),
        ErrorKind::Lost
    );
    assert_eq!(
        faulty.plan.calls("renew"),
        1,
        "a lost lock is not asked to be renewed"
    );
}

#[tokio::test]
async fn panic_of_the_backend_ends_no_more_than_the_calls_of_that_moment() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    faulty.plan.next("acquire", &[Fault::Panic]);
    let error = locks.mutex("a").acquire().await.expect_err("the line died");
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    until("a new line took over", || async {
        locks.mutex("a").acquire().await.is_ok()
    })
    .await;
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn panic_of_the_backend_in_a_release_tells_the_guard() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks.mutex("a").ttl(TTL).acquire().await.expect("free");
    let lost = guard.lost();
    faulty.plan.next("release", &[Fault::Panic]);
    let released = guard.release().await.expect("answers");
    assert!(matches!(released, Released::Unknown { .. }), "{released:?}");
    assert_eq!(lost.await, LossReason::Released);
    drop(
        observer
            .mutex("a")
            .acquire()
            .await
            .expect("free after the TTL"),
    );
}

#[tokio::test]
async fn panic_of_the_backend_in_a_hand_over_leaves_no_ghost() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    let ask = || {
        let mutex = locks.mutex("a").ttl(LONG_TTL);
        tokio::spawn(async move { mutex.acquire().await })
    };
    let held = ask().await.expect("no panic").expect("free");
    let next = ask();
    until("in line", || async { locks.stats().waiting == 1 }).await;
    faulty.plan.next("pass", &[Fault::Panic]);
    drop(held);
    next.await.expect("no panic").expect_err("the line died");
    at_rest(&locks, &observer, "a").await;

    let held = observer.mutex("a").acquire().await.expect("free");
    let cancelled = ask();
    until("queued", || async {
        observer.inspect("a").await.expect("answers").waiters.len() == 1
    })
    .await;
    let next = ask();
    until("in line", || async { locks.stats().waiting == 2 }).await;
    faulty.plan.next("replace", &[Fault::Panic]);
    cancelled.abort();
    next.await.expect("no panic").expect_err("the line died");
    until("nobody waits", || async {
        let state = observer.inspect("a").await.expect("answers");
        state.waiters.is_empty()
    })
    .await;
    drop(held);
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn panic_of_the_backend_in_a_renewal_loses_no_lock() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    faulty.plan.next("renew", &[Fault::Panic]);
    let ttl = Duration::from_secs(1);
    let guard = locks.mutex("a").ttl(ttl).acquire().await.expect("free");
    until("renewed again, or lost", || async {
        faulty.plan.calls("renew") == 3 || guard.check().is_err()
    })
    .await;
    guard.check().expect("one panic is one failed renewal");
}

#[tokio::test]
async fn panic_of_the_backend_in_a_cleanup_leaves_no_ghost() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks.mutex("a").ttl(LONG_TTL).acquire().await;
    faulty
        .plan
        .next("release", &[Fault::BlackHole, Fault::Panic]);
    drop(guard.expect("free"));
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn panic_of_the_backend_in_a_call_is_not_taken_for_a_closed_client() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let guard = locks.mutex("a").acquire().await.expect("free");
    for op in ["inspect", "break_hold", "renew"] {
        faulty.plan.next(op, &[Fault::Panic]);
    }
    let error = locks.inspect("a").await.expect_err("it panicked");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let broken = locks.break_hold("a", guard.token()).await;
    let error = broken.expect_err("it panicked");
    assert_eq!(
        error.kind(),
        ErrorKind::Indeterminate,
        "it may have happened"
    );
    let error = guard.renew().await.expect_err("it panicked");
    assert_eq!(
        error.kind(),
        ErrorKind::Indeterminate,
        "it may have happened"
    );
    guard.check().expect("still held");
}

#[tokio::test]
async fn grant_that_was_said_to_have_ended_before_it_was_answered_is_asked_about() {
    let faulty = Faulty::new();
    let (locks, operator) = (faulty.open().await, faulty.open_plain().await);
    let marker = locks.mutex("marker").acquire().await.expect("free");
    faulty.plan.next("acquire", &[Fault::Late]);
    let asking = tokio::spawn({
        let locks = locks.clone();
        async move { locks.mutex("a").fixed().acquire().await }
    });
    until("granted, but not answered", || async {
        let state = operator.inspect("a").await.expect("answers");
        !state.holders.is_empty()
    })
    .await;
    let state = operator.inspect("a").await.expect("answers");
    let broken = operator.break_hold("a", state.holders[0].token).await;
    assert!(broken.expect("answers"));
    // Pushes are heard in their order: when this one was, the one before it was too.
    let broken = operator.break_hold("marker", marker.token()).await;
    assert!(broken.expect("answers"));
    assert_eq!(marker.lost().await, LossReason::Broken);
    faulty.plan.deliver();
    let guard = asking.await.expect("no panic").expect("asked for again");
    assert!(
        guard.token() > state.holders[0].token,
        "the broken grant is not handed out"
    );
    guard.check().expect("this one is nobody else's");
}
