//! Waiting: one event for each release, whatever happens to keys, streams and history.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::EtcdServer;
use lock_core::{Backend, ErrorKind, Event, Reach};

use crate::fixture::*;

/// Takes turns until everybody has had `rounds`.
async fn rotate(clients: &[Arc<dyn Backend>], name: &'static str, rounds: u64) {
    let turns = clients.iter().map(|client| {
        let client = Arc::clone(client);
        tokio::spawn(async move {
            for _ in 0..rounds {
                let claim = claim(name);
                soon(client.acquire(&claim)).await.expect("granted");
                assert!(soon(client.release(&claim)).await.expect("released"));
            }
        })
    });
    for turn in turns.collect::<Vec<_>>() {
        soon(turn).await.expect("no panic");
    }
}

#[tokio::test]
async fn release_in_a_rotation_is_one_event_to_one_client() {
    const CLIENTS: usize = 4;
    const ROUNDS: u64 = 100;
    let server = EtcdServer::start();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&server).await);
    }
    rotate(&clients, "a", 5).await;
    let before = counted(server.watch_events());
    rotate(&clients, "a", ROUNDS).await;
    let events = counted(server.watch_events()) - before;
    let releases = ROUNDS * CLIENTS as u64;
    // Whoever comes or goes at either end of the rotation may be followed by two for a moment.
    assert!(
        events * 10 <= releases * 11,
        "{events} events for {releases} releases"
    );
    assert!(
        events * 10 >= releases * 9,
        "{events} events for {releases} releases: not pushed"
    );
}

/// Passes on within each client, for so many rounds.
async fn pass_around(clients: &[Arc<dyn Backend>], name: &'static str, rounds: u64) {
    let turns = clients.iter().map(|client| {
        let client = Arc::clone(client);
        tokio::spawn(async move {
            let mut held = claim(name);
            soon(client.acquire(&held)).await.expect("granted");
            for _ in 0..rounds {
                let next = claim(name);
                soon(client.pass(&held, &next)).await.expect("passed");
                soon(client.acquire(&next)).await.expect("granted");
                held = next;
            }
            assert!(soon(client.release(&held)).await.expect("released"));
        })
    });
    for turn in turns.collect::<Vec<_>>() {
        soon(turn).await.expect("no panic");
    }
}

#[tokio::test]
async fn passing_on_in_a_rotation_reads_nothing() {
    const CLIENTS: usize = 4;
    const ROUNDS: u64 = 100;
    let server = EtcdServer::start();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&server).await);
    }
    pass_around(&clients, "a", 5).await;
    let before = counted(server.requests());
    pass_around(&clients, "a", ROUNDS).await;
    let after = counted(server.requests());
    let sent = |method: &str| {
        after.get(method).copied().unwrap_or(0) - before.get(method).copied().unwrap_or(0)
    };
    let passes = ROUNDS * CLIENTS as u64;
    let (reads, steps) = (sent("KV/Range"), sent("KV/Txn"));
    // The first and the last of each client, and what a busy machine makes wait for long.
    assert!(reads * 5 <= passes, "{reads} reads for {passes} passes");
    assert!(steps * 5 <= passes * 6, "{steps} steps for {passes} passes");
}

#[tokio::test]
async fn keys_of_a_lock_are_few_however_often_it_is_used() {
    let server = EtcdServer::start();
    let clients = [client(&server).await, client(&server).await];
    let mut names = BTreeSet::new();
    for _ in 0..25 {
        let held = claim("a");
        hold(&clients[0], &held).await;
        let waiting = claim("a");
        let task = queue(&clients[1], &waiting).await;
        let next = claim("a");
        soon(clients[0].pass(&held, &next)).await.expect("passed");
        names.extend(stored(&server, "a"));
        granted(task).await;
        let attached = acquire(&clients[0], &next);
        assert!(soon(clients[1].release(&waiting)).await.expect("released"));
        granted(attached).await;
        assert!(soon(clients[0].release(&next)).await.expect("released"));
    }
    assert!(names.len() <= 4, "{names:?}");
    // Key names are used again and again; nobody mistakes one life of a key for another.
    rotate(&clients, "a", 200).await;
}

#[tokio::test]
async fn compaction_costs_no_place() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (held, waiting) = (claim("a"), claim("a"));
    hold(&one, &held).await;
    let task = queue(&two, &waiting).await;
    let before = look(&one, "a").await.waiters[0].nonce;
    for n in 0..20 {
        counted(server.cli(&["put", "elsewhere", &n.to_string()]));
    }
    counted(server.compact());
    assert_eq!(look(&one, "a").await.waiters[0].nonce, before);
    assert!(soon(one.release(&held)).await.expect("released"));
    granted(task).await;
}

#[tokio::test]
async fn stream_that_dies_costs_no_place_and_holds_are_verified() {
    let server = EtcdServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two) = (client(&server).await, connect(through(&proxy)).await);
    let mut events = two.events();
    let (held, waiting) = (claim("a"), claim("a"));
    hold(&one, &held).await;
    let task = queue(&two, &waiting).await;
    let before = look(&one, "a").await.waiters[0].nonce;
    for _ in 0..3 {
        proxy.cut();
        assert_eq!(soon(events.next()).await, Some(Event::Reconnected));
    }
    assert_eq!(look(&one, "a").await.waiters[0].nonce, before);
    assert!(soon(one.release(&held)).await.expect("released"));
    granted(task).await;
}

#[tokio::test]
async fn grant_is_not_believed_when_the_waiters_own_key_went_with_the_holders() {
    let server = EtcdServer::start();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let (held, waiting) = (claim("a"), claim("a"));
    hold(&one, &held).await;
    let task = queue(&two, &waiting).await;
    // Not in the moment of its coming, of which it needs no proof.
    let has_stood = || async {
        let waiters = look(&one, "a").await.waiters;
        (waiters.first()?.age > ms(100)).then_some(())
    };
    eventually(has_stood).await;
    // Both in one revision.
    counted(server.cli(&["del", "--prefix", &keys_of("a")]));
    granted(task).await;
    assert_eq!(
        stored(&server, "a").len(),
        1,
        "it holds by a key of its own"
    );
    let refused = soon(three.try_acquire(&claim("a"))).await;
    assert!(refused.expect("answered").is_none());
    assert!(soon(two.release(&waiting)).await.expect("released"));
}

#[tokio::test]
async fn waiter_in_the_middle_that_leaves_is_closed_up_to() {
    let server = EtcdServer::start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&server).await);
    }
    let claims = [claim("a"), claim("a"), claim("a"), claim("a")];
    hold(&clients[0], &claims[0]).await;
    let first = queue(&clients[1], &claims[1]).await;
    queue(&clients[2], &claims[2]).await.abort();
    let last = queue(&clients[3], &claims[3]).await;
    assert!(!soon(clients[2].release(&claims[2])).await.expect("left"));
    assert!(
        soon(clients[0].release(&claims[0]))
            .await
            .expect("released")
    );
    granted(first).await;
    assert!(
        soon(clients[1].release(&claims[1]))
            .await
            .expect("released")
    );
    granted(last).await;
}

#[tokio::test]
async fn victim_of_a_break_is_told_at_once_and_its_inbox_is_emptied() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let mut events = one.events();
    let held = claim("a");
    let grant = hold(&one, &held).await;
    let broken = soon(two.break_hold(&held.name, grant.token())).await;
    assert!(broken.expect("answered"));
    let told = soon(events.next()).await;
    assert_eq!(told, Some(Event::Broken { nonce: held.nonce }));
    eventually(|| async { counted(server.keys()).is_empty().then_some(()) }).await;
    assert!(!soon(one.release(&held)).await.expect("answered"));
}

#[tokio::test]
async fn victim_that_is_broken_before_it_has_heard_of_its_grant_is_told() {
    let server = EtcdServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    let (one, two) = (hasty(through(&proxy), SOON).await, client(&server).await);
    let mut events = one.events();
    let ttl = ms(6000);
    let old = hold(&one, &claim_for("old", ttl)).await;
    let aged = old.validity().expires_at().saturating_sub(ttl / 2);
    lock_core::Clock::system().sleep_until(aged).await;
    // The grant waits until the lease is whole again.
    proxy.hold_calls("Lease/LeaseKeepAlive", |_| true);
    let victim = claim_for("a", ttl);
    let asking = acquire(&one, &victim);
    let holder = eventually(|| async { look(&two, "a").await.holders.pop() }).await;
    let broken = soon(two.break_hold(&victim.name, holder.token)).await;
    assert!(broken.expect("answered"));
    let inbox = || {
        counted(server.keys())
            .into_iter()
            .find(|key| key.contains("/b/"))
    };
    eventually(|| async { inbox().is_none().then_some(()) }).await;
    proxy.deliver_held();
    let grant = granted(asking).await;
    assert_eq!(grant.claim().nonce, victim.nonce);
    let told = Event::Broken {
        nonce: victim.nonce,
    };
    assert_eq!(soon(events.next()).await, Some(told));
}

#[tokio::test]
async fn something_else_in_the_way_is_said_and_left_alone() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let key = format!("{}stranger/j0", keys_of("a"));
    counted(server.cli(&["put", &key, "not a lock"]));
    let tried = soon(one.try_acquire(&claim("a"))).await;
    assert_eq!(tried.expect_err("in the way").kind(), ErrorKind::WrongType);
    let waited = soon(one.acquire(&claim("a"))).await;
    assert_eq!(waited.expect_err("in the way").kind(), ErrorKind::WrongType);
    assert_eq!(stored(&server, "a"), [key]);
}

#[tokio::test]
async fn long_queue_of_many_names_is_looked_at_in_few_requests() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let mut waiting = Vec::new();
    for n in 0..80 {
        let name = n.to_string();
        hold(&one, &claim(&name)).await;
        let claim = claim(&name);
        waiting.push((queue(&two, &claim).await, claim));
    }
    let before = counted(server.requests());
    lock_core::Clock::system().sleep(ms(3000)).await;
    let after = counted(server.requests());
    let looks = after["KV/Txn"] - before["KV/Txn"];
    // Eighty places, every three quarters of a second, forty-two to a request.
    assert!(looks <= 80, "{looks} requests in 3 s");
    for (task, claim) in waiting {
        assert_eq!(claim.progress.reach(), Reach::Queued);
        task.abort();
    }
}
