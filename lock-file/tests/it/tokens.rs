//! Tokens across clients, sweeps and crashes.

use std::fs;
use std::time::Duration;

use lock_core::ClientOptions;

use crate::fixture::{Fixture, take, until};

#[tokio::test]
async fn token_in_the_file_counts_when_it_is_ahead_of_the_clock() {
    let fixture = Fixture::new();
    let ahead = 1_u64 << 60;
    let content = format!("{{\"distlock\":1,\"name\":\"n\",\"token\":{ahead},\"holder\":null}}\n");
    fs::write(fixture.path("n.lock"), content).expect("writes");
    for grown in 1..=3 {
        // A new client each time: only the file remembers.
        let locks = fixture.client().await;
        let guard = take(&locks, "n").await.expect("the lock is free");
        assert_eq!(guard.token().get(), ahead + grown);
        guard.release().await.expect("an answer");
    }
}

#[tokio::test]
async fn token_of_a_client_grows_although_the_files_are_removed() {
    let fixture = Fixture::new();
    let ahead = 1_u64 << 60;
    let content = format!("{{\"distlock\":1,\"name\":\"n\",\"token\":{ahead},\"holder\":null}}\n");
    fs::write(fixture.path("n.lock"), content).expect("writes");
    let locks = fixture.client().await;
    let first = take(&locks, "n").await.expect("the lock is free");
    let token = first.token();
    first.release().await.expect("an answer");
    fs::remove_file(fixture.path("n.lock")).expect("removes");
    let second = take(&locks, "n").await.expect("the lock is free");
    assert!(second.token() > token);
}

#[tokio::test]
async fn token_above_a_base_does_not_come_again_when_the_file_was_swept() {
    let fixture = Fixture::new();
    let config = fixture.config().with_retention(Duration::from_secs(1));
    let options = ClientOptions::default().with_fence_base(1 << 60);
    let locks = fixture.client_with(config.clone(), options.clone()).await;
    let first = take(&locks, "n").await.expect("the lock is free");
    let token = first.token();
    first.release().await.expect("an answer");
    until("swept", || fixture.files().is_empty()).await;
    // A new client: nobody remembers.
    let locks = fixture.client_with(config, options).await;
    let second = take(&locks, "n").await.expect("the lock is free");
    assert!(second.token() > token);
}

#[tokio::test]
async fn holder_in_a_record_that_nobody_locks_is_not_shown() {
    let fixture = Fixture::new();
    // What a process that was killed leaves behind.
    let content = "{\"distlock\":1,\"name\":\"n\",\"token\":5,\"holder\":{\"nonce\":\"00000000000000000000000000000001\",\"identity\":\"1 host x\",\"since\":1}}\n";
    fs::write(fixture.path("n.lock"), content).expect("writes");
    let locks = fixture.client().await;
    let state = locks.inspect("n").await.expect("a state");
    assert!(state.holders.is_empty());
    assert_eq!(state.last_token.map(lock_core::FencingToken::get), Some(5));
    let page = locks.list("", lock_core::Cursor::default()).await;
    assert!(page.expect("a page").names.is_empty());
}
