//! Tasks of one client that stand in line for one name, while time and the backend work against them.
//!
//! The clock is moved by hand, so that "longer than the operation timeout" takes no time.

use std::time::Duration;

use lock_core::{ClientOptions, Guard, Locks, ManualClock, Result};
use tokio::task::JoinHandle;

use crate::faulty::{Fault, Faulty, until};

/// Much longer than any of the waits below, so that it cannot be what ends them.
const OP_TIMEOUT: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(5);
const NETWORK: Duration = Duration::from_millis(20);

struct Scene {
    faulty: Faulty,
    hand: ManualClock,
    locks: Locks,
    other: Locks,
}

/// Two clients whose clock is moved by hand; the plan is for `locks` only.
async fn scene(op_timeout: Duration) -> Scene {
    let (faulty, hand) = (Faulty::new(), ManualClock::new());
    let options = ClientOptions::default()
        .with_clock(hand.clock())
        .with_op_timeout(op_timeout)
        .with_ttl(Duration::from_secs(3600));
    let locks = faulty.open_with(options.clone()).await;
    let other = Locks::open(faulty.store.clone(), options)
        .await
        .expect("memory is always there");
    Scene {
        faulty,
        hand,
        locks,
        other,
    }
}

impl Scene {
    fn ask(&self) -> JoinHandle<Result<Guard>> {
        let mutex = self.locks.mutex("a");
        tokio::spawn(async move { mutex.acquire().await })
    }

    fn ask_within(&self, wait: Duration) -> JoinHandle<Result<Option<Guard>>> {
        let mutex = self.locks.mutex("a");
        tokio::spawn(async move { mutex.acquire_within(wait).await })
    }

    async fn until_waiting(&self, count: usize) {
        until("they wait", || async {
            self.locks.stats().waiting == count
        })
        .await;
    }

    async fn until_queued(&self) {
        until("one stands in the backend's queue", || async {
            self.other
                .inspect("a")
                .await
                .expect("answers")
                .waiters
                .len()
                == 1
        })
        .await;
    }

    async fn until_called(&self, op: &'static str) {
        until(op, || async { self.faulty.plan.calls(op) == 1 }).await;
    }
}

/// What the task comes to, without anybody moving the clock any more.
async fn outcome<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(10), task)
        .await
        .expect("ends without more time passing")
        .expect("no panic")
}

#[tokio::test]
async fn loss_of_a_long_hold_leaves_the_next_in_line_the_time_to_ask() {
    let s = scene(Duration::from_millis(300)).await;
    let held = s.ask().await.expect("no panic").expect("free");
    let behind = s.ask();
    s.until_waiting(1).await;
    s.hand.advance(WAIT);
    s.faulty.plan.next("acquire", &[Fault::Slow(NETWORK)]);
    assert!(
        s.other
            .break_hold("a", held.token())
            .await
            .expect("answers")
    );
    drop(outcome(behind).await.expect("the backend works"));
}

#[tokio::test]
async fn place_that_cannot_be_handed_on_leaves_the_next_in_line_the_time_to_ask() {
    let s = scene(Duration::from_millis(300)).await;
    let held = s.other.mutex("a").acquire().await.expect("free");
    let cancelled = s.ask();
    s.until_queued().await;
    let behind = s.ask();
    s.until_waiting(2).await;
    s.hand.advance(WAIT);
    s.faulty.plan.next("replace", &[Fault::Unsent]);
    s.faulty.plan.next("acquire", &[Fault::Slow(NETWORK)]);
    cancelled.abort();
    s.until_called("replace").await;
    drop(held);
    drop(outcome(behind).await.expect("the backend works"));
}

#[tokio::test]
async fn grant_that_comes_too_late_after_a_long_wait_does_not_end_the_wait() {
    let s = scene(Duration::from_millis(300)).await;
    let held = s.other.mutex("a").acquire().await.expect("free");
    s.faulty.plan.next("acquire", &[Fault::Late]);
    let waiting = s.ask();
    s.until_queued().await;
    drop(held);
    s.until_called("deliver").await;
    s.hand.advance(2 * Duration::from_secs(3600));
    s.faulty.plan.deliver();
    until("the pause before the next attempt is over", || async {
        s.hand.advance(NETWORK);
        waiting.is_finished()
    })
    .await;
    let guard = outcome(waiting).await.expect("the backend works");
    guard.check().expect("held");
}

#[tokio::test]
async fn bounded_wait_ends_in_time_while_a_lost_request_is_given_up() {
    let s = scene(OP_TIMEOUT).await;
    s.faulty.plan.next("acquire", &[Fault::ReplyLost]);
    s.faulty.plan.next("release", &[Fault::BlackHole]);
    let waiting = s.ask_within(WAIT);
    s.until_called("release").await;
    s.hand.advance(WAIT);
    outcome(waiting).await.expect_err("never answered");
}

#[tokio::test]
async fn bounded_wait_ends_in_time_while_a_grant_is_confirmed() {
    let s = scene(2 * OP_TIMEOUT).await;
    s.faulty.plan.next("acquire", &[Fault::Late]);
    s.faulty.plan.next("renew", &[Fault::BlackHole]);
    let mutex = s.locks.mutex("a").ttl(WAIT).fixed();
    let waiting = tokio::spawn(async move { mutex.acquire_within(2 * WAIT).await });
    s.until_called("acquire").await;
    s.hand.advance(WAIT);
    s.faulty.plan.deliver();
    s.until_called("renew").await;
    s.hand.advance(WAIT);
    outcome(waiting).await.expect_err("never confirmed");
}

#[tokio::test]
async fn bounded_wait_ends_in_time_while_the_lock_is_passed_on() {
    let s = scene(OP_TIMEOUT).await;
    let held = s.ask().await.expect("no panic").expect("free");
    let behind = s.ask_within(WAIT);
    s.until_waiting(1).await;
    s.faulty.plan.next("pass", &[Fault::BlackHole]);
    drop(held);
    s.until_called("pass").await;
    s.hand.advance(WAIT);
    assert!(outcome(behind).await.expect("it stood in line").is_none());
}

#[tokio::test]
async fn bounded_wait_ends_in_time_while_a_place_is_handed_on() {
    let s = scene(OP_TIMEOUT).await;
    let _held = s.other.mutex("a").acquire().await.expect("free");
    let cancelled = s.ask();
    s.until_queued().await;
    let behind = s.ask_within(WAIT);
    s.until_waiting(2).await;
    s.faulty.plan.next("replace", &[Fault::BlackHole]);
    cancelled.abort();
    s.until_called("replace").await;
    s.hand.advance(WAIT);
    assert!(outcome(behind).await.expect("it stood in line").is_none());
}
