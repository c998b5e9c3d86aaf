//! From one holder to the next.

use std::sync::Arc;

use lock_conformance::fault::Proxy;
use lock_conformance::servers::RedisServer;
use lock_core::{Passed, Reach, Renewal, Replaced, Standing};

use crate::fixture::*;

#[tokio::test]
async fn release_hands_the_lock_to_the_first_waiter_by_a_push() {
    let server = RedisServer::start();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    let held = hold(&one, &first).await;
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&three, &third).await;
    let state = look(&one, "a").await;
    let waiting: Vec<_> = state.waiters.iter().map(|waiter| waiter.nonce).collect();
    assert_eq!(waiting, [second.nonce, third.nonce]);

    let mut monitor = server.monitor().expect("monitors");
    assert!(soon(one.release(&first)).await.expect("released"));
    let next = granted(second_waits).await;
    assert!(next.token() > held.token());
    assert!(next.is_provisional());
    let lines = monitor.lua_lines().expect("lines");
    let publishes = lines
        .iter()
        .filter(|line| line.to_lowercase().contains("\"publish\""));
    assert_eq!(
        publishes.count(),
        1,
        "one wake-up for one release: {lines:#?}"
    );
    assert!(!third_waits.is_finished());
    // The claim window, until the first renewal makes the lease whole.
    assert!(next.validity().expires_at() <= now() + ms(2000));
    let Renewal::Extended(validity) = renew(&two, &next).await else {
        panic!("extended")
    };
    assert!(validity.expires_at() > now() + ms(5000));
    assert!(soon(two.release(&second)).await.expect("released"));
    let last = granted(third_waits).await;
    assert!(last.token() > next.token());
    assert!(soon(three.release(&third)).await.expect("released"));
    assert!(is_free(&one, "a").await);
}

#[tokio::test]
async fn waiter_that_leaves_is_not_granted() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&two, &third).await;
    second_waits.abort();
    assert!(!soon(two.release(&second)).await.expect("released"));
    assert!(soon(one.release(&first)).await.expect("released"));
    granted(third_waits).await;
}

#[tokio::test]
async fn every_push_lost_and_waiters_still_progress() {
    let server = RedisServer::start();
    let one = client(&server).await;
    let proxy = Proxy::start(server.addr());
    proxy.drop_pushes();
    let two = connect(through(&proxy)).await;
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&two, &third).await;
    let lateness = Lateness::watch();
    let released = now();
    assert!(soon(one.release(&first)).await.expect("released"));
    let next = granted(second_waits).await;
    assert!(next.validity().expires_at() > now());
    assert!(proxy.stats().pushes_dropped > 0);
    assert!(soon(two.release(&second)).await.expect("released"));
    granted(third_waits).await;
    // One place renewal at the head for each; far less than the claim window.
    let took = now().saturating_since(released);
    let late = lateness.worst();
    assert!(took < ms(2 * 500 + 500) + late * 4, "{took:?}, {late:?}");
}

/// A hand-off lasts no longer than the lease that was asked for: whoever missed the push has to ask within that.
#[tokio::test]
async fn waiter_with_a_short_lease_keeps_its_turn_although_its_push_is_lost() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two, three) = (
        client(&server).await,
        connect(through(&proxy)).await,
        client(&server).await,
    );
    let (first, third) = (claim("a"), claim("a"));
    let second = claim_for("a", ms(400));
    hold(&one, &first).await;
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&three, &third).await;
    proxy.drop_pushes();
    assert!(soon(one.release(&first)).await.expect("released"));
    let next = granted(second_waits).await;
    assert!(proxy.stats().pushes_dropped > 0);
    assert!(soon(two.release(&second)).await.expect("released"));
    let last = granted(third_waits).await;
    assert!(last.token() > next.token());
}

#[tokio::test]
async fn dead_holder_is_replaced_soon_after_its_ttl() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let lateness = Lateness::watch();
    let held = hold(&one, &claim_for("a", ms(700))).await;
    let next = granted(acquire(&two, &claim("a"))).await;
    assert!(next.token() > held.token());
    assert!(
        now() > held.validity().expires_at(),
        "lost before it is granted again"
    );
    let slack = one.capabilities().expiry_slack;
    assert!(now() < held.validity().free_by() + slack + lateness.worst() * 4);
}

#[tokio::test]
async fn dead_waiter_at_the_head_costs_at_most_the_claim_window() {
    let server = RedisServer::start();
    let (one, three) = (client(&server).await, client(&server).await);
    let proxy = Proxy::start(server.addr());
    let two = connect(through(&proxy)).await;
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&three, &third).await;
    // As good as dead: nothing from it arrives any more, and nothing reaches it.
    proxy.black_hole();
    let lateness = Lateness::watch();
    let released = now();
    assert!(soon(one.release(&first)).await.expect("released"));
    let next = granted(third_waits).await;
    let took = now().saturating_since(released);
    let late = lateness.worst();
    assert!(took < ms(2000 + 500) + late * 4, "{took:?}, {late:?}");
    assert_eq!(next.claim().nonce, third.nonce);
    second_waits.abort();
}

#[tokio::test]
async fn pass_to_a_task_of_the_same_client_is_one_script_and_no_push() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    let held = hold(&backend, &first).await;
    soon(backend.pass(&first, &second)).await.expect("passed");
    let mut monitor = server.monitor().expect("monitors");
    let passed = soon(backend.pass(&second, &third)).await.expect("passed");
    let lines = monitor.client_lines().expect("lines");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        !monitor
            .lua_lines()
            .expect("lines")
            .iter()
            .any(|line| line.contains("PUBLISH"))
    );
    let Passed {
        released: true,
        next: Standing::Granted(grant),
        ..
    } = passed
    else {
        panic!("{passed:?}")
    };
    assert!(grant.token() > held.token());
    assert!(!grant.is_provisional());
    assert_eq!(renew(&backend, &held).await, Renewal::Gone);
}

#[tokio::test]
async fn pass_serves_another_client_first() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (first, theirs, second) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let they_wait = queue(&two, &theirs).await;
    let passed = soon(one.pass(&first, &second)).await.expect("passed");
    assert!(passed.released);
    assert!(matches!(passed.next, Standing::Queued), "{passed:?}");
    granted(they_wait).await;
    assert_eq!(second.progress.reach(), Reach::Queued);
    // Attaches without a command of its own.
    let mut monitor = server.monitor().expect("monitors");
    let we_wait = acquire(&one, &second);
    tokio::task::yield_now().await;
    assert!(soon(two.release(&theirs)).await.expect("released"));
    granted(we_wait).await;
    let lines = monitor.client_lines().expect("lines");
    let enqueues = lines
        .iter()
        .filter(|line| line.contains("\"wait\""))
        .count();
    assert_eq!(enqueues, 0, "{lines:#?}");
}

#[tokio::test]
async fn replaced_waiter_keeps_its_place() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (first, second, third, fourth) = (claim("a"), claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let second_waits = queue(&one, &second).await;
    let third_waits = queue(&two, &third).await;
    second_waits.abort();
    let replaced = soon(one.replace(&second, &fourth)).await.expect("replaced");
    assert!(
        matches!(replaced, Replaced::Now(Standing::Queued)),
        "{replaced:?}"
    );
    let waiting: Vec<_> = look(&one, "a")
        .await
        .waiters
        .iter()
        .map(|w| w.nonce)
        .collect();
    assert_eq!(waiting, [fourth.nonce, third.nonce]);
    assert_eq!(
        server
            .cli(&["EXISTS", &tombstone(&second)])
            .expect("answers"),
        "1"
    );
    let fourth_waits = acquire(&one, &fourth);
    assert!(soon(one.release(&first)).await.expect("released"));
    granted(fourth_waits).await;
    assert!(!third_waits.is_finished());
}

#[tokio::test]
async fn replaced_claim_that_was_granted_meanwhile_gives_way_to_a_larger_token() {
    let server = RedisServer::start();
    let one = client(&server).await;
    let (second, third) = (claim("a"), claim("a"));
    let before = hold(&one, &second).await;
    let replaced = soon(one.replace(&second, &third)).await.expect("replaced");
    let Replaced::Now(Standing::Granted(grant)) = replaced else {
        panic!("{replaced:?}")
    };
    assert!(grant.token() > before.token());
    assert_eq!(look(&one, "a").await.holders[0].nonce, third.nonce);
    assert_eq!(renew(&one, &before).await, Renewal::Gone);
}

#[tokio::test]
async fn replacing_a_claim_that_is_not_there_puts_nothing_anywhere() {
    let server = RedisServer::start();
    let one = client(&server).await;
    let (second, third) = (claim("a"), claim("a"));
    let replaced = soon(one.replace(&second, &third)).await.expect("replaced");
    assert!(matches!(replaced, Replaced::Gone), "{replaced:?}");
    assert!(is_free(&one, "a").await);
    assert_eq!(
        server
            .cli(&["EXISTS", &tombstone(&second)])
            .expect("answers"),
        "1"
    );
}

#[tokio::test]
async fn broken_holder_is_told_and_the_next_waiter_served() {
    use futures_util::StreamExt;
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let mut events = one.events();
    let (first, second) = (claim("a"), claim("a"));
    let held = hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    let wrong = lock_core::FencingToken::new(held.token().get() + 1).expect("a token");
    assert!(
        !soon(two.break_hold(&name("a"), wrong))
            .await
            .expect("answered")
    );
    assert!(
        soon(two.break_hold(&name("a"), held.token()))
            .await
            .expect("answered")
    );
    let event = soon(events.next()).await.expect("an event");
    assert_eq!(event, lock_core::Event::Broken { nonce: first.nonce });
    let next = granted(waits).await;
    assert!(next.token() > held.token());
    assert!(
        !soon(two.break_hold(&name("a"), held.token()))
            .await
            .expect("answered")
    );
    assert!(!soon(one.release(&first)).await.expect("released"));
}

#[tokio::test]
async fn holder_is_not_told_of_a_break_that_was_refused() {
    use futures_util::{FutureExt, StreamExt};
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let mut events = one.events();
    let held = hold(&one, &claim("a")).await;
    server
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .expect("set");
    soon(two.break_hold(&name("a"), held.token()))
        .await
        .expect_err("refused");
    // What was pushed before this answer is here with it.
    assert_eq!(look(&one, "a").await.holders.len(), 1);
    assert_eq!(events.next().now_or_never(), None);
}

#[tokio::test]
async fn contended_section_costs_two_scripts_and_turns_are_fair() {
    const CLIENTS: usize = 8;
    const SECTIONS: usize = 40;
    let server = RedisServer::start();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&server).await);
    }
    // Everybody queues before anybody is served.
    let first = claim("a");
    hold(&clients[0], &first).await;
    let mut monitor = server.monitor().expect("monitors");
    let (log, mut turns) = tokio::sync::mpsc::unbounded_channel();
    let mut running = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        let first_claim = claim("a");
        let waiting = queue(client, &first_claim).await;
        let (client, log) = (Arc::clone(client), log.clone());
        running.push(tokio::spawn(async move {
            let mut grant = granted(waiting).await;
            for _ in 1..SECTIONS {
                log.send((at, grant.token())).expect("logged");
                assert!(client.release(grant.claim()).await.expect("released"));
                grant = client.acquire(&claim("a")).await.expect("granted");
            }
            log.send((at, grant.token())).expect("logged");
            assert!(client.release(grant.claim()).await.expect("released"));
        }));
    }
    assert!(soon(clients[0].release(&first)).await.expect("released"));
    for one in running {
        soon(one).await.expect("done");
    }
    drop(log);
    let mut tokens = Vec::new();
    let mut in_turn = Vec::new();
    while let Some((at, token)) = turns.recv().await {
        tokens.push(token);
        in_turn.push(at);
    }
    assert_eq!(tokens.len(), CLIENTS * SECTIONS);
    assert!(tokens.is_sorted_by(|a, b| a < b), "in grant order");
    // As long as all of them want it, nobody is served twice before everybody was once.
    for round in in_turn.chunks(CLIENTS).take(SECTIONS - 1) {
        let mut served = round.to_vec();
        served.sort_unstable();
        served.dedup();
        assert_eq!(served.len(), CLIENTS, "{round:?}");
    }
    let scripts = scripts(&monitor.client_lines().expect("lines"));
    // The first holder's release, and place renewals of a wait that outlasts half a second on a
    // machine that is busy.
    assert!(
        scripts <= 2 * CLIENTS * SECTIONS + 1 + CLIENTS * SECTIONS / 10,
        "{scripts} scripts"
    );
    let lines = monitor.lua_lines().expect("lines");
    let publishes = lines
        .iter()
        .filter(|line| line.contains("\"PUBLISH\""))
        .count();
    let releases = CLIENTS * SECTIONS;
    assert!(
        (releases / 2..=releases).contains(&publishes),
        "one wake-up for one release, not {publishes} for {releases}"
    );
}

#[tokio::test]
async fn claim_window_shorter_than_the_round_trip_does_not_keep_the_lock_from_everybody() {
    let server = RedisServer::start();
    let quick = |config: lock_redis::RedisConfig| config.with_claim(ms(100));
    let one = connect(quick(config(&server))).await;
    let proxy = Proxy::start(server.addr());
    let two = connect(quick(through(&proxy))).await;
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    proxy.delay(ms(70));
    let waits = queue(&two, &second).await;
    assert!(soon(one.release(&first)).await.expect("released"));
    let grant = granted(waits).await;
    // Not to be used as it is; whole after a renewal, or over. Never neither.
    if matches!(renew(&two, &grant).await, Renewal::Gone) {
        assert!(
            soon(one.try_acquire(&claim("a")))
                .await
                .expect("answered")
                .is_some()
        );
    }
}

#[tokio::test]
async fn claim_window_starts_again_when_a_waiter_finds_its_grant_late() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two) = (client(&server).await, connect(through(&proxy)).await);
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    proxy.drop_pushes();
    proxy.black_hole();
    assert!(soon(one.release(&first)).await.expect("released"));
    // Half of the window has passed.
    let [holder, ..] = keys("a");
    let granted_at = server.cli(&["HGET", &holder, "since"]).expect("answers");
    let half = granted_at.parse::<u64>().expect("a number") + 1_000_000;
    server
        .cli(&["HSET", &holder, "expires", &half.to_string()])
        .expect("set");
    proxy.heal();
    let grant = granted(waits).await;
    assert!(grant.validity().expires_at() > now() + ms(1200));
}
