//! Tokens that grow whatever the server forgets, and clocks that were set back.

use lock_conformance::servers::RedisServer;
use lock_core::{Connect, ErrorKind, Standing};

use crate::fixture::*;

const HOUR_US: u64 = 3_600_000_000;

/// What the server's clock says, in microseconds.
fn server_time(server: &RedisServer) -> u64 {
    let time = server.cli(&["TIME"]).expect("answers");
    let (seconds, micros) = time.split_once('\n').expect("two lines");
    seconds.parse::<u64>().expect("a number") * 1_000_000 + micros.parse::<u64>().expect("a number")
}

#[tokio::test]
async fn tokens_grow_through_release_flush_and_restart() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let mut last = 0;
    for step in 0..6 {
        let claim = claim("a");
        let backend = if step % 2 == 0 { &one } else { &two };
        let grant = eventually(|| async { backend.try_acquire(&claim).await.ok().flatten() }).await;
        assert!(grant.token().get() > last, "step {step}");
        last = grant.token().get();
        match step {
            1 => drop(server.cli(&["FLUSHALL"]).expect("flushes")),
            3 => server.restart(),
            _ => assert!(soon(backend.release(&claim)).await.expect("released")),
        }
    }
}

#[tokio::test]
async fn token_is_larger_than_any_that_this_client_has_seen_though_the_server_forgot() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    // A token from a clock that stood an hour ahead.
    let ahead = server_time(&server) + HOUR_US;
    let [holder, ..] = keys("a");
    server
        .cli(&["HSET", &holder, "last", &ahead.to_string()])
        .expect("set");
    server.cli(&["PEXPIRE", &holder, "60000"]).expect("set");
    let grant = hold(&backend, &claim("a")).await;
    assert_eq!(grant.token().get(), ahead + 1);
    server.cli(&["FLUSHALL"]).expect("flushes");
    assert_eq!(hold(&backend, &claim("a")).await.token().get(), ahead + 2);
}

#[tokio::test]
async fn waiter_is_granted_more_than_it_has_seen_by_a_promoter_that_has_not() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let ahead = server_time(&server) + HOUR_US;
    let [other, ..] = keys("other");
    server
        .cli(&["HSET", &other, "last", &ahead.to_string()])
        .expect("set");
    server.cli(&["PEXPIRE", &other, "60000"]).expect("set");
    hold(&two, &claim("other")).await;
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    assert!(soon(one.release(&first)).await.expect("released"));
    assert!(granted(waits).await.token().get() > ahead);
}

#[tokio::test]
async fn fence_base_lifts_every_token() {
    let server = RedisServer::start();
    let mut context = context();
    context.fence_base = server_time(&server) + HOUR_US;
    let base = context.fence_base;
    let backend = config(&server)
        .connect(context.clone())
        .await
        .expect("connects");
    let (first, second) = (claim("a"), claim("a"));
    assert_eq!(hold(&backend, &first).await.token().get(), base + 1);
    let passed = soon(backend.pass(&first, &second)).await.expect("passed");
    let Standing::Granted(grant) = passed.next else {
        panic!("{passed:?}")
    };
    assert_eq!(grant.token().get(), base + 2);
    context.fence_base = 1 << 53;
    let error = soon(config(&server).connect(context))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn tokens_are_exact_at_the_end_of_their_range_and_never_wrap() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let largest = (1_u64 << 53) - 1;
    let [holder, ..] = keys("a");
    server
        .cli(&["HSET", &holder, "last", &(largest - 1).to_string()])
        .expect("set");
    server.cli(&["PEXPIRE", &holder, "60000"]).expect("set");
    let claim = claim("a");
    assert_eq!(hold(&backend, &claim).await.token().get(), largest);
    assert!(soon(backend.release(&claim)).await.expect("released"));
    let error = soon(backend.try_acquire(&self::claim("a")))
        .await
        .expect_err("used up");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn last_token_outlives_the_hold_for_its_retention_only() {
    let server = RedisServer::start();
    let backend = connect(config(&server).with_fence_retention(ms(1000))).await;
    let claim = claim("a");
    let grant = hold(&backend, &claim).await;
    assert!(soon(backend.release(&claim)).await.expect("released"));
    assert_eq!(look(&backend, "a").await.last_token, Some(grant.token()));
    eventually(|| async {
        let keys = server.keys().expect("keys");
        (keys == ["distlock:namespace"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn last_token_is_not_forgotten_before_the_clock_is_past_it() {
    let server = RedisServer::start();
    let ahead = server_time(&server) + HOUR_US;
    // A token from a clock that stood an hour ahead and was set back.
    let [holder, ..] = keys("stepped");
    server
        .cli(&["HSET", &holder, "last", &ahead.to_string()])
        .expect("set");
    server.cli(&["PEXPIRE", &holder, "60000"]).expect("set");
    for (text, base) in [("based", ahead), ("stepped", 0)] {
        let mut last = 0;
        for _ in 0..2 {
            // A client that has seen nothing yet.
            let mut context = context();
            context.fence_base = base;
            let config = config(&server).with_fence_retention(ms(1000));
            let backend = config.connect(context).await.expect("connects");
            let claim = claim(text);
            let token = hold(&backend, &claim).await.token().get();
            assert!(token > last, "{text}: {token} after {last}");
            last = token;
            assert!(soon(backend.release(&claim)).await.expect("released"));
            tokio::time::sleep(ms(1300)).await;
        }
    }
}

#[tokio::test]
async fn lease_from_a_clock_that_was_set_back_ends_after_its_own_length() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let first = claim_for("a", ms(500));
    hold(&one, &first).await;
    let [holder, ..] = keys("a");
    let ahead = (server_time(&server) + HOUR_US).to_string();
    server
        .cli(&["HSET", &holder, "expires", &ahead])
        .expect("set");
    let lateness = Lateness::watch();
    let began = now();
    granted(acquire(&two, &claim("a"))).await;
    let took = now().saturating_since(began);
    let latest = ms(500 + 1000) + lateness.worst() * 4;
    assert!(took > ms(400) && took < latest, "{took:?}");
}

#[tokio::test]
async fn dead_waiters_are_swept_before_the_lock_comes_to_them_also_after_a_step_back() {
    let server = RedisServer::start();
    let quick = || config(&server).with_claim(ms(200));
    let (one, dead, live) = (
        connect(quick()).await,
        connect(quick()).await,
        connect(quick()).await,
    );
    hold(&one, &claim_for("a", TTL * 60)).await;
    let (second, third) = (claim("a"), claim("a"));
    drop(queue(&dead, &second).await);
    dead.close().await.expect("closed");
    let _third_waits = queue(&live, &third).await;
    let [_, _, waiters] = keys("a");
    let nonce = second.nonce.to_string();
    let record = server.cli(&["HGET", &waiters, &nonce]).expect("a record");
    let (_, rest) = record.split_once('\t').expect("fields");
    let ahead = format!("{}\t{rest}", server_time(&server) + HOUR_US);
    server
        .cli(&["HSET", &waiters, &nonce, &ahead])
        .expect("set");
    eventually(|| async {
        let raw = server.cli(&["HKEYS", &waiters]).expect("answers");
        (raw == third.nonce.to_string()).then_some(())
    })
    .await;
}
