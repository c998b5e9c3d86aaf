//! Three members: leaders that die or change, members without a quorum, restarts with old data.

use std::sync::Arc;

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::EtcdServer;
use lock_core::{Connect, ErrorKind, FencingToken, Locks, Released, Renewal};
use lock_etcd::EtcdConfig;

use crate::fixture::*;

fn cluster() -> EtcdServer {
    EtcdServer::builder().members(3).start()
}

async fn open(config: EtcdConfig) -> Locks {
    Locks::open(config, lock_core::ClientOptions::default())
        .await
        .expect("opens")
}

/// A client that knows this member only.
fn only(server: &EtcdServer, member: usize) -> EtcdConfig {
    EtcdConfig::new([("127.0.0.1", server.member(member).port())])
}

/// Makes some other member the leader.
fn next_leader(server: &EtcdServer) {
    let leader = server.await_leader();
    counted(server.move_leader((leader + 1) % 3));
}

#[tokio::test]
async fn lock_outlives_its_leader() {
    let server = cluster();
    let (one, two) = (open(config(&server)).await, open(config(&server)).await);
    let guard = soon(one.mutex("a").ttl(ms(5000)).acquire())
        .await
        .expect("granted");
    let dead = server.await_leader();
    server.member(dead).kill();
    let leader = server.await_leader();
    assert_ne!(leader, dead);
    // Longer than the lease was when the leader died: only a renewal with the new one keeps it.
    let end = now() + ms(6000);
    while now() < end {
        let refused = two.mutex("a").try_acquire().await;
        assert!(!matches!(refused, Ok(Some(_))), "a held lock was granted");
        guard.check().expect("still held");
        tokio::time::sleep(ms(50)).await;
    }
    assert_eq!(
        soon(guard.release()).await.expect("answered"),
        Released::Clean
    );
    drop(soon(two.mutex("a").acquire()).await.expect("granted"));
}

#[tokio::test]
async fn waiter_outlives_its_leader_and_keeps_its_place() {
    let server = cluster();
    let clients = [
        client(&server).await,
        client(&server).await,
        client(&server).await,
    ];
    let claims = [claim("a"), claim("a"), claim("a")];
    let held = hold(&clients[0], &claims[0]).await;
    let first = queue(&clients[1], &claims[1]).await;
    let second = queue(&clients[2], &claims[2]).await;
    server.member(server.await_leader()).kill();
    let leader = server.await_leader();
    let state = eventually(|| async { clients[0].inspect(&name("a")).await.ok() }).await;
    let waiting: Vec<_> = state.waiters.iter().map(|waiter| waiter.nonce).collect();
    assert_eq!(
        waiting,
        [claims[1].nonce, claims[2].nonce],
        "leader {leader}"
    );
    eventually(|| async { clients[0].release(&claims[0]).await.ok() }).await;
    let next = granted(first).await;
    assert!(next.token() > held.token());
    eventually(|| async { clients[1].release(&claims[1]).await.ok() }).await;
    assert!(granted(second).await.token() > next.token());
}

#[tokio::test]
async fn nobody_overlaps_and_tokens_grow_while_leaders_change() {
    let server = Arc::new(cluster());
    let busy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..4 {
        let (locks, busy) = (open(config(&server)).await, Arc::clone(&busy));
        running.push(tokio::spawn(async move {
            let mut tokens: Vec<FencingToken> = Vec::new();
            while tokens.len() < 40 {
                // What was in flight while the leader changed may be unanswered: asked again.
                let Ok(guard) = locks.mutex("a").ttl(ms(10_000)).acquire().await else {
                    continue;
                };
                let alone = !busy.swap(true, std::sync::atomic::Ordering::SeqCst);
                assert!(alone || guard.check().is_err(), "two holders");
                tokens.push(guard.token());
                tokio::task::yield_now().await;
                busy.store(false, std::sync::atomic::Ordering::SeqCst);
                // An unanswered one is repeated in the background.
                let _ = guard.release().await;
            }
            tokens
        }));
    }
    let changing = Arc::clone(&server);
    let changes = tokio::task::spawn_blocking(move || {
        for _ in 0..4 {
            next_leader(&changing);
        }
    });
    let mut all = Vec::new();
    for task in running {
        let tokens = soon(task).await.expect("no panic");
        assert!(tokens.is_sorted(), "{tokens:?}");
        all.extend(tokens);
    }
    soon(changes).await.expect("leaders changed");
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "a token was handed out twice");
}

#[tokio::test]
async fn minority_grants_nothing() {
    let server = cluster();
    let left = 0;
    let alone = hasty(only(&server, left), ms(2000)).await;
    let warm = claim("warm");
    hold(&alone, &warm).await;
    for member in 1..3 {
        server.member(member).kill();
    }
    let claim = claim("a");
    let error = soon(alone.try_acquire(&claim))
        .await
        .expect_err("no quorum");
    assert!(error.is_retryable(), "{error}");
    let mut context = context();
    context.op_timeout = ms(1500);
    let error = soon(only(&server, left).connect(context))
        .await
        .expect_err("no quorum");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    for member in 1..3 {
        server.member(member).restart();
    }
    // Whatever was under way is settled by the release.
    eventually(|| async { alone.release(&claim).await.ok() }).await;
    let next = crate::fixture::claim("a");
    eventually(|| async { alone.try_acquire(&next).await.ok() }).await;
}

#[tokio::test]
async fn member_that_comes_back_with_its_data_serves_again() {
    let server = cluster();
    let backend = client(&server).await;
    let follower = (server.await_leader() + 1) % 3;
    let old = claim("a");
    let before = hold(&backend, &old).await;
    server.member(follower).kill();
    eventually(|| async { backend.release(&old).await.ok() }).await;
    let held = claim("a");
    let after = eventually(|| async { backend.try_acquire(&held).await.ok().flatten() }).await;
    assert!(after.token() > before.token());
    server.member(follower).restart();
    // By what it had when it was killed the old claim holds; it knows better.
    let through = connect(only(&server, follower)).await;
    assert_eq!(look(&through, "a").await.holders[0].token, after.token());
    assert!(
        soon(through.try_acquire(&claim("a")))
            .await
            .expect("answered")
            .is_none()
    );
    assert!(soon(backend.release(&held)).await.expect("released"));
    let new = hold(&through, &claim("a")).await;
    assert!(new.token() > after.token());
}

#[tokio::test]
async fn member_that_is_cut_off_from_the_others_loses_its_clients_no_locks() {
    let server = cluster();
    let locks = open(config(&server)).await;
    let guard = soon(locks.mutex("a").ttl(ms(5000)).acquire())
        .await
        .expect("granted");
    // Each of them once, whichever the client talks to.
    for stopped in 0..3 {
        server.member(stopped).pause();
        let end = now() + ms(3000);
        while now() < end {
            guard.check().expect("still held");
            tokio::time::sleep(ms(20)).await;
        }
        server.member(stopped).resume();
        let _ = server.await_leader();
    }
    assert_eq!(
        soon(guard.release()).await.expect("answered"),
        Released::Clean
    );
}

#[tokio::test]
async fn holder_at_a_leader_that_is_cut_off_knows_of_its_loss_before_the_next_grant() {
    let server = EtcdServer::builder().members(3).isolatable().start();
    let leader = server.await_leader();
    let (cut_off, other) = (
        open(only(&server, leader)).await,
        open(only(&server, (leader + 1) % 3)).await,
    );
    let mutex = cut_off.mutex("a").ttl(ms(2000));
    let guard = soon(mutex.acquire()).await.expect("granted");
    server.isolate(leader);
    // The old leader believes in itself for a while, and answers; a quorum does not.
    let waiting = other.mutex("a");
    let next = eventually(|| async { waiting.acquire_within(ms(5000)).await.ok().flatten() }).await;
    assert!(guard.check().is_err(), "two holders");
    assert!(next.token() > guard.token());
    server.heal(leader);
    next.check().expect("held");
    assert!(matches!(
        soon(guard.release()).await,
        Ok(Released::WasLost(_))
    ));
    assert_eq!(
        soon(next.release()).await.expect("answered"),
        Released::Clean
    );
}

#[tokio::test]
async fn client_of_a_member_that_is_cut_off_goes_to_another() {
    let server = EtcdServer::builder().members(3).isolatable().start();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(open(config(&server)).await);
    }
    let cut_off = server.await_leader();
    server.isolate(cut_off);
    for (n, locks) in clients.iter().enumerate() {
        let name = n.to_string();
        let guard = eventually(|| async { locks.mutex(&name).acquire().await.ok() }).await;
        assert_eq!(
            soon(guard.release()).await.expect("answered"),
            Released::Clean
        );
    }
    // Who connects now does not stay with a member that talks to nobody.
    drop(open(config(&server)).await);
    server.heal(cut_off);
}

#[tokio::test]
async fn keep_alive_is_not_confirmed_by_a_term_that_only_another_connection_has_heard_of() {
    let server = cluster();
    let ways =
        [0, 1].map(|member| Proxy::start_with(server.member(member).addr(), Protocol::Http2));
    let ports = ways.iter().map(|way| ("127.0.0.1", way.addr().port()));
    let one = hasty(EtcdConfig::new(ports), SOON).await;
    let minute = ms(60_000);
    let (held, asked) = (claim_for("a", minute), claim_for("b", minute));
    let grant = hold(&one, &held).await;
    let (before, after) = match &ways {
        [before, after] if before.stats().open > 0 => (before, after),
        [after, before] => (before, after),
    };
    // A request stays under way on a connection that falls silent, and is given up.
    before.hold_calls("KV/Txn", |_| true);
    let asking = acquire(&one, &asked);
    before.until(SOON, |stats| stats.held_requests == 1).await;
    before.hold_replies();
    let looking = tokio::spawn({
        let one = Arc::clone(&one);
        async move { one.inspect(&name("c")).await }
    });
    after.until(SOON, |stats| stats.open == 1).await;
    eventually(|| async { one.inspect(&name("c")).await.ok() }).await;
    // The answer to it comes from the term of another leader.
    next_leader(&server);
    before.deliver_held();
    before.release_replies();
    granted(asking).await;
    soon(looking).await.expect("no panic").expect("answered");
    after.clear_calls();
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
    let calls = after.calls();
    let sent = calls
        .iter()
        .filter(|call| call.name == "Lease/LeaseKeepAlive");
    assert!(
        sent.count() > 1,
        "the first may have been answered by a leader of before"
    );
}
