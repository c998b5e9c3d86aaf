//! Requests and replies that are lost.

use std::time::Duration;

use lock_core::{ClientOptions, ErrorKind, ManualClock, Released};

use crate::faulty::{Fault, Faulty, at_rest, until};

#[tokio::test]
async fn lost_reply_of_a_try_is_indeterminate_and_cleaned_up() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    faulty.plan.next("try_acquire", &[Fault::ReplyLost]);
    let error = locks.mutex("a").try_acquire().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert_eq!(error.name(), Some("a"));
    at_rest(&locks, &observer, "a").await;
    assert!(
        observer
            .mutex("a")
            .try_acquire()
            .await
            .expect("works")
            .is_some()
    );
}

#[tokio::test]
async fn silent_backend_is_indeterminate_after_the_operation_timeout() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    for fault in [Fault::Silent, Fault::BlackHole] {
        faulty.plan.next("acquire", &[fault]);
        let error = locks.mutex("a").acquire().await.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::Indeterminate);
        at_rest(&locks, &observer, "a").await;
    }
}

#[tokio::test]
async fn acquire_whose_reply_was_lost_is_reconciled_and_tried_again_under_a_fresh_nonce() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    faulty.plan.next("acquire", &[Fault::ReplyLost]);
    let guard = locks
        .mutex("a")
        .acquire()
        .await
        .expect("the second attempt is answered");
    assert_eq!(faulty.plan.calls("acquire"), 2);
    assert_eq!(
        faulty.plan.calls("release"),
        1,
        "the first nonce was given up before"
    );
    assert_eq!(
        observer.inspect("a").await.expect("answers").holders.len(),
        1
    );
    assert_eq!(guard.release().await.expect("answers"), Released::Clean);
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn backend_that_is_never_reached_is_unavailable() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    faulty.plan.next("acquire", &[Fault::Unsent; 100]);
    let error = locks.mutex("a").acquire().await.expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    faulty.plan.next("try_acquire", &[Fault::Unsent]);
    let error = locks
        .mutex("a")
        .try_acquire()
        .await
        .expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        faulty.plan.calls("release"),
        0,
        "what was never sent needs no cleanup"
    );
}

#[tokio::test]
async fn bounded_wait_for_a_backend_that_never_answers_is_not_called_busy() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    faulty
        .plan
        .next("acquire", &[Fault::BlackHole, Fault::BlackHole]);
    let wait = Duration::from_millis(50);
    let mutex = locks.mutex("a");
    let (first, behind) = tokio::join!(mutex.acquire_within(wait), mutex.acquire_within(wait));
    assert_eq!(first.expect_err("no answer").kind(), ErrorKind::Unavailable);
    assert_eq!(
        behind.expect_err("no answer").kind(),
        ErrorKind::Unavailable
    );
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn release_whose_reply_was_lost_is_repeated_and_clean() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks.mutex("a").acquire().await.expect("free");
    faulty.plan.next("release", &[Fault::ReplyLost]);
    assert_eq!(guard.release().await.expect("answers"), Released::Clean);
    assert_eq!(faulty.plan.calls("release"), 2);
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn release_without_an_answer_says_when_the_lock_is_free_and_goes_on_in_the_background() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    let guard = locks.mutex("a").acquire().await.expect("free");
    faulty
        .plan
        .next("release", &[Fault::BlackHole, Fault::BlackHole]);
    let released = guard.release().await.expect("answers");
    assert!(matches!(released, Released::Unknown { .. }), "{released:?}");
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn pass_whose_reply_was_lost_leaves_no_ghost_and_the_next_in_line_gets_the_lock() {
    for fault in [
        Fault::ReplyLost,
        Fault::Silent,
        Fault::BlackHole,
        Fault::Unsent,
    ] {
        let faulty = Faulty::new();
        let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
        let first = locks.mutex("a").acquire().await.expect("free");
        let token = first.token();
        until("the first task is not counted any more", || async {
            locks.stats().waiting == 0
        })
        .await;
        let next = tokio::spawn({
            let locks = locks.clone();
            async move { locks.mutex("a").acquire().await }
        });
        until("the second task stands in line", || async {
            next_in_line(&locks)
        })
        .await;
        faulty.plan.next("pass", &[fault]);
        first.release().await.expect("answers");
        let second = next.await.expect("no panic").expect("granted");
        assert!(second.token() > token);
        drop(second);
        at_rest(&locks, &observer, "a").await;
        assert_eq!(
            faulty.plan.calls("pass"),
            1,
            "{fault:?}: a pass is never repeated"
        );
    }
}

/// Whether the task that was just spawned has been polled: it has one more handle to the client.
fn next_in_line(locks: &lock_core::Locks) -> bool {
    locks.stats().waiting == 1
}

#[tokio::test]
async fn replace_whose_reply_was_lost_leaves_no_ghost_and_the_next_in_line_gets_the_lock() {
    for fault in [
        Fault::ReplyLost,
        Fault::Silent,
        Fault::BlackHole,
        Fault::Unsent,
    ] {
        let faulty = Faulty::new();
        let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
        let held = observer.mutex("a").acquire().await.expect("free");
        let ask = || {
            let locks = locks.clone();
            tokio::spawn(async move { locks.mutex("a").acquire().await })
        };
        let cancelled = ask();
        until("the first waits at the backend", || async {
            observer.inspect("a").await.expect("answers").waiters.len() == 1
        })
        .await;
        let behind = ask();
        until("the second stands in line", || async {
            locks.stats().waiting == 2
        })
        .await;
        faulty.plan.next("replace", &[fault]);
        cancelled.abort();
        until("the replacement was tried", || async {
            faulty.plan.calls("replace") == 1
        })
        .await;
        drop(held);
        drop(behind.await.expect("no panic").expect("granted"));
        at_rest(&locks, &observer, "a").await;
    }
}

#[tokio::test]
async fn failed_renewals_do_not_lose_the_lock_as_long_as_one_comes_through() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    faulty
        .plan
        .next("renew", &[Fault::Unsent, Fault::ReplyLost, Fault::Unsent]);
    let ttl = Duration::from_millis(600);
    let guard = locks.mutex("a").ttl(ttl).acquire().await.expect("free");
    until("five renewals", || async {
        faulty.plan.calls("renew") >= 5
    })
    .await;
    guard.check().expect("still held");
    assert_eq!(guard.release().await.expect("answers"), Released::Clean);
}

#[tokio::test]
async fn release_whose_pass_was_executed_but_not_answered_is_clean() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let held = locks.mutex("a").acquire().await.expect("free");
    let mutex = locks.mutex("a");
    let next = tokio::spawn(async move { mutex.acquire().await });
    until("the second task stands in line", || async {
        next_in_line(&locks)
    })
    .await;
    faulty.plan.next("pass", &[Fault::ReplyLost]);
    assert_eq!(held.release().await.expect("answers"), Released::Clean);
    drop(next.await.expect("no panic").expect("granted"));
}

#[tokio::test]
async fn break_without_an_answer_may_have_happened() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let held = locks.mutex("a").acquire().await.expect("free");
    faulty.plan.next("break_hold", &[Fault::BlackHole]);
    let error = locks
        .break_hold("a", held.token())
        .await
        .expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    faulty.plan.next("inspect", &[Fault::BlackHole]);
    let error = locks.inspect("a").await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn lock_without_an_answered_release_is_free_by_the_time_said_although_a_renewal_came_through()
{
    let hand = ManualClock::new();
    let faulty = Faulty::new();
    let options = ClientOptions::default()
        .with_clock(hand.clock())
        .with_op_timeout(Duration::from_secs(2));
    let locks = faulty.open_with(options).await;
    faulty.plan.next("renew", &[Fault::Silent; 10]);
    faulty.plan.next("release", &[Fault::BlackHole; 10]);
    let ttl = Duration::from_secs(60);
    let guard = locks.mutex("a").ttl(ttl).acquire().await.expect("free");
    let granted = hand.clock().now();
    hand.advance(ttl / 2);
    until("renewed", || async { faulty.plan.calls("renew") == 1 }).await;
    let releasing = tokio::spawn(guard.release());
    until("released", || async { faulty.plan.calls("release") == 1 }).await;
    hand.advance(Duration::from_secs(2));
    let released = releasing.await.expect("no panic").expect("answers");
    let Released::Unknown { free_by } = released else {
        panic!("{released:?}");
    };
    assert!(
        free_by >= granted + ttl / 2 + ttl,
        "the renewal was executed, and nothing else was"
    );
}

#[tokio::test]
async fn grant_that_ended_before_it_was_heard_of_is_no_loss() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    faulty.plan.next("acquire", &[Fault::GivenUp]);
    let guard = locks.mutex("a").acquire().await.expect("asked for again");
    assert_eq!(faulty.plan.calls("acquire"), 2);
    guard.release().await.expect("answers");
    faulty.plan.next("try_acquire", &[Fault::GivenUp]);
    let error = locks.mutex("a").try_acquire().await.expect_err("only once");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    at_rest(&locks, &observer, "a").await;
}
