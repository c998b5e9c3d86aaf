//! Explicit owners.

use lock_core::{LossReason, OwnerId, Released};

use crate::faulty::{Faulty, at_rest, until};

#[tokio::test]
async fn same_owner_gets_the_same_token_without_a_request() {
    let faulty = Faulty::new();
    let (locks, observer) = (faulty.open().await, faulty.open_plain().await);
    let mutex = locks.mutex("a").owner(OwnerId::new());
    let outer = mutex.acquire().await.expect("free");
    let inner = mutex.acquire().await.expect("re-entrant");
    let tried = mutex
        .try_acquire()
        .await
        .expect("answers")
        .expect("re-entrant");
    assert_eq!(outer.token(), inner.token());
    assert_eq!(
        faulty.plan.calls("acquire") + faulty.plan.calls("try_acquire"),
        1
    );
    assert_eq!(
        inner.release().await.expect("answers"),
        Released::StillHeld(2)
    );
    drop(tried);
    assert_eq!(outer.release().await.expect("answers"), Released::Clean);
    assert_eq!(faulty.plan.calls("release"), 1);
    at_rest(&locks, &observer, "a").await;
}

#[tokio::test]
async fn nothing_is_reentrant_by_accident() {
    let faulty = Faulty::new();
    let locks = faulty.open().await;
    let guard = locks
        .mutex("a")
        .owner(OwnerId::new())
        .acquire()
        .await
        .expect("free");
    assert!(
        locks
            .mutex("a")
            .try_acquire()
            .await
            .expect("answers")
            .is_none()
    );
    let other = locks.mutex("a").owner(OwnerId::new());
    assert!(other.try_acquire().await.expect("answers").is_none());
    drop(guard);
    let plain = locks.mutex("a").acquire().await.expect("free");
    assert!(
        locks
            .mutex("a")
            .try_acquire()
            .await
            .expect("answers")
            .is_none()
    );
    drop(plain);
}

#[tokio::test]
async fn owner_that_waits_twice_is_let_in_twice() {
    let faulty = Faulty::new();
    let (locks, other) = (faulty.open().await, faulty.open_plain().await);
    let held = other.mutex("a").acquire().await.expect("free");
    let mutex = locks.mutex("a").owner(OwnerId::new());
    let both = tokio::spawn(async move { tokio::try_join!(mutex.acquire(), mutex.acquire()) });
    until("both wait", || async { locks.stats().waiting == 2 }).await;
    drop(held);
    let (first, second) = both.await.expect("no panic").expect("granted");
    assert_eq!(first.token(), second.token());
}

#[tokio::test]
async fn loss_hits_every_level() {
    let faulty = Faulty::new();
    let (locks, operator) = (faulty.open().await, faulty.open_plain().await);
    let mutex = locks.mutex("a").owner(OwnerId::new());
    let outer = mutex.acquire().await.expect("free");
    let inner = mutex.acquire().await.expect("re-entrant");
    operator
        .break_hold("a", outer.token())
        .await
        .expect("answers");
    assert_eq!(outer.lost().await, LossReason::Broken);
    assert_eq!(inner.lost().await, LossReason::Broken);
    assert!(outer.check().is_err() && inner.check().is_err());
    let fresh = mutex.acquire().await.expect("free again");
    assert!(fresh.token() > outer.token());
    assert_eq!(
        inner.release().await.expect("answers"),
        Released::WasLost(LossReason::Broken)
    );
    fresh
        .check()
        .expect("the old levels do not count for the new hold");
    drop(outer);
    fresh
        .check()
        .expect("the old levels do not count for the new hold");
    assert_eq!(fresh.release().await.expect("answers"), Released::Clean);
}
