//! Futures that are dropped.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::faulty::{Fault, Faulty, at_rest, until};

/// Polls `future` up to `polls` times, giving the background time in between, then drops it.
async fn drop_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn acquire_dropped_at_any_poll_leaves_nothing_behind() {
    for fault in [
        None,
        Some(Fault::ReplyLost),
        Some(Fault::Silent),
        Some(Fault::BlackHole),
    ] {
        let faulty = Faulty::new();
        let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
        for polls in 0..12 {
            faulty.plan.next("acquire", fault.as_slice());
            drop(drop_after(locks.mutex("a").acquire(), polls).await);
            faulty.plan.next("try_acquire", fault.as_slice());
            drop(drop_after(locks.mutex("b").try_acquire(), polls).await);
        }
        at_rest(&locks, &observer, "a").await;
        at_rest(&locks, &observer, "b").await;
    }
}

#[tokio::test]
async fn release_dropped_at_any_poll_still_releases() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    for polls in 0..6 {
        let guard = locks.mutex("a").acquire().await.expect("free");
        drop(drop_after(guard.release(), polls).await);
        at_rest(&locks, &observer, "a").await;
    }
}

#[tokio::test]
async fn cancelled_waiter_hands_its_place_to_the_next_task_of_its_client() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    let held = other.mutex("a").acquire().await.expect("free");
    let ask = |locks: &lock_core::Locks| {
        let locks = locks.clone();
        tokio::spawn(async move { locks.mutex("a").acquire().await })
    };
    let queue = |length| {
        let other = other.clone();
        move || {
            let other = other.clone();
            async move { other.inspect("a").await.expect("answers").waiters.len() == length }
        }
    };
    let first = ask(&locks);
    until("first in the queue", queue(1)).await;
    let behind = ask(&locks);
    until("second in line", || async { locks.stats().waiting == 2 }).await;
    let third = faulty.open_plain().await;
    let rival = ask(&third);
    until("the rival is behind", queue(2)).await;

    first.abort();
    until("the place has changed hands", || async {
        faulty.plan.calls("replace") == 1
    })
    .await;
    drop(held);
    let guard = behind.await.expect("no panic").expect("granted");
    assert!(!rival.is_finished(), "the rival came later");
    drop(guard);
    drop(rival.await.expect("no panic").expect("granted"));
    assert_eq!(
        faulty.plan.calls("acquire"),
        2,
        "the second attached to the place"
    );
}

#[tokio::test]
async fn waiters_withdrawn_behind_a_long_hold_do_not_pile_up() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let guard = locks.mutex("a").acquire().await.expect("free");
    for _ in 0..1000 {
        assert!(drop_after(locks.mutex("a").acquire(), 1).await.is_none());
    }
    until("all withdrawn", || async { locks.stats().waiting == 0 }).await;
    drop(guard);
}

#[tokio::test]
async fn bounded_wait_ends_in_time_and_gives_its_place_up() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    let held = other.mutex("a").acquire().await.expect("free");
    let wait = Duration::from_millis(50);
    let mutex = locks.mutex("a");
    let (first, behind) = tokio::join!(mutex.acquire_within(wait), mutex.acquire_within(wait * 2));
    assert!(first.expect("answers").is_none());
    assert!(behind.expect("answers").is_none());
    until("nobody waits", || async {
        other
            .inspect("a")
            .await
            .expect("answers")
            .waiters
            .is_empty()
    })
    .await;
    assert!(
        locks
            .mutex("a")
            .acquire_within(Duration::ZERO)
            .await
            .expect("answers")
            .is_none()
    );
    drop(held);
    at_rest(&locks, &other, "a").await;
}

#[tokio::test]
async fn crowd_that_is_cancelled_one_by_one_does_not_cost_the_client_its_leases() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let ttl = Duration::from_secs(2);
    let guard = locks.mutex("a").ttl(ttl).acquire().await.expect("free");
    let mutex = locks.mutex("a");
    let mut crowd: Vec<_> = (0..30_000).map(|_| Box::pin(mutex.acquire())).collect();
    for waiter in &mut crowd {
        let polled = waiter
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }
    // The last first: those who are behind are looked for the longest.
    while crowd.pop().is_some() {}
    until("all withdrawn", || async { locks.stats().waiting == 0 }).await;
    guard.check().expect("kept all the time");
}
