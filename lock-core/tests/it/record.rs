//! What a backend keeps with a grant reaches whoever holds the guard.

use lock_core::{LockName, Nonce};

use crate::faulty::Faulty;

#[tokio::test]
async fn record_of_the_backend_is_reached_through_the_guard() {
    let locks = Faulty::new().open().await;
    let guard = locks.mutex("a").try_acquire().await.expect("an answer");
    let guard = guard.expect("the lock is free");
    let state = locks.inspect("a").await.expect("a state");
    assert_eq!(guard.record::<Nonce>(), Some(&state.holders[0].nonce));
    assert_eq!(guard.record::<LockName>(), None, "a record of another type");
    guard.release().await.expect("an answer");
}
