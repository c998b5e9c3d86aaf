//! Waiting: order, places that are given up, and places that change hands.

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, Replaced, Standing};
use lock_zk::zookeeper_client::{Acls, CreateMode};

use crate::fixture::{
    ROOT, claim, claim_for, client, config_of, connect, eventually, granted, hold, lock_nodes,
    look, ms, now, queue, raw, soon,
};

#[tokio::test]
async fn waiter_in_the_middle_that_leaves_wakes_nobody_too_early() {
    let server = ZooKeeperServer::start();
    let clients = [
        client(&server).await,
        client(&server).await,
        client(&server).await,
        client(&server).await,
    ];
    let claims = [claim("n"), claim("n"), claim("n"), claim("n")];
    let first = hold(&clients[0], &claims[0]).await;
    let mut waiting = Vec::new();
    for place in 1..4 {
        waiting.push(queue(&clients[place], &claims[place]).await);
    }
    // The second of the waiters goes: the third now waits for the first.
    waiting.remove(1).abort();
    assert!(
        !soon(clients[2].release(&claims[2]))
            .await
            .expect("answered")
    );
    eventually(|| async { (look(&clients[0], "n").await.waiters.len() == 2).then_some(()) }).await;
    // Then the first goes as well, and the third waits for the holder.
    waiting.remove(0).abort();
    assert!(
        !soon(clients[1].release(&claims[1]))
            .await
            .expect("answered")
    );
    eventually(|| async { (look(&clients[0], "n").await.waiters.len() == 1).then_some(()) }).await;
    assert!(!waiting[0].is_finished(), "granted while the holder holds");
    assert!(
        soon(clients[0].release(&claims[0]))
            .await
            .expect("answered")
    );
    let last = granted(waiting.remove(0)).await;
    assert!(last.token() > first.token());
}

#[tokio::test]
async fn client_that_only_looks_knows_since_when_a_lock_is_held() {
    let server = ZooKeeperServer::start();
    let (holder, onlooker) = (client(&server).await, client(&server).await);
    let _held = hold(&holder, &claim("n")).await;
    eventually(|| async {
        let state = look(&onlooker, "n").await;
        (state.holders[0].age >= ms(50)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn place_that_changes_hands_keeps_its_place_and_shows_the_new_nonce() {
    let server = ZooKeeperServer::start();
    let (a, b, c) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let (holder, waits, next, behind) = (claim("n"), claim("n"), claim("n"), claim("n"));
    hold(&a, &holder).await;
    queue(&b, &waits).await.abort();
    let last = queue(&c, &behind).await;
    let before = server.writes().expect("counted");
    let replaced = soon(b.replace(&waits, &next)).await.expect("answered");
    assert!(matches!(replaced, Replaced::Now(Standing::Queued)));
    // The note for operators, and nothing else.
    assert_eq!(server.writes().expect("counted") - before, 1);
    let shown: Vec<_> = look(&a, "n")
        .await
        .waiters
        .iter()
        .map(|waiter| waiter.nonce)
        .collect();
    assert_eq!(shown, [next.nonce, behind.nonce]);
    assert!(
        !soon(b.release(&waits)).await.expect("answered"),
        "it has no place any more"
    );
    let attached = queue(&b, &next).await;
    assert!(soon(a.release(&holder)).await.expect("answered"));
    granted(attached).await;
    assert!(!last.is_finished());
    assert!(soon(b.release(&next)).await.expect("answered"));
    granted(last).await;
    assert_eq!(lock_nodes(&server).len(), 1);
}

#[tokio::test]
async fn queue_goes_on_where_the_servers_counter_wraps() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    let raw = raw(&server).await;
    // A counter cannot be set; nodes of the same form can be made, as the server would name them.
    let warm = claim("n");
    hold(&a, &warm).await;
    let plain = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let own = lock_nodes(&server);
    let (_, sequence) = own[0].rsplit_once('-').expect("a request");
    assert_eq!(sequence, "0000000000");
    // Counted 2^31 - 1 before and one after a wrap: both behind what comes next to zero.
    let before = format!("{ROOT}/l/n/{}--2147483647", lock_core::Nonce::new());
    let data = soon(raw.get_data(&own[0])).await.expect("read").0;
    soon(raw.create(&before, &data, &plain))
        .await
        .expect("made");
    let state = look(&a, "n").await;
    assert_eq!(
        state.holders[0].nonce, warm.nonce,
        "the wrapped number is not before zero"
    );
    assert_eq!(state.waiters.len(), 1);
    server.delete(&before).expect("deleted");
    assert!(soon(a.release(&warm)).await.expect("answered"));
}

#[tokio::test]
async fn waiter_is_granted_after_its_watch_was_dropped_and_set_again() {
    let server = ZooKeeperServer::start();
    let (a, b) = (client(&server).await, client(&server).await);
    let (one, two) = (claim("n"), claim("n"));
    let base = server.watches().expect("counted");
    hold(&a, &one).await;
    for _ in 0..3 {
        let waiting = queue(&b, &two).await;
        eventually(|| async { (server.watches().expect("counted") == base + 1).then_some(()) })
            .await;
        waiting.abort();
        // The watch goes with the future; the place stays until it is given up.
        eventually(|| async { (server.watches().expect("counted") == base).then_some(()) }).await;
        assert_eq!(look(&a, "n").await.waiters.len(), 1);
    }
    let waiting = queue(&b, &two).await;
    assert!(soon(a.release(&one)).await.expect("answered"));
    granted(waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notification_that_is_lost_behind_many_others_costs_less_than_the_ttl() {
    const AHEAD: usize = 14;
    let server = ZooKeeperServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Jute);
    let session = ms(3_000);
    let last = connect(config_of(&[proxy.addr().port()]).with_session_timeout(session)).await;
    let mut ahead = Vec::new();
    for _ in 0..AHEAD {
        let (a, one) = (client(&server).await, claim("n"));
        let acquiring = crate::fixture::acquire(&a, &one);
        let place = ahead.len() + 1;
        eventually(|| async { (lock_nodes(&server).len() == place).then_some(()) }).await;
        ahead.push((a, one, acquiring));
    }
    let mine = claim_for("n", session);
    let waits = server.watches().expect("counted");
    let waiting = queue(&last, &mine).await;
    eventually(|| async { (server.watches().expect("counted") > waits).then_some(()) }).await;
    proxy.drop_pushes();
    for (a, one, acquiring) in ahead {
        granted(acquiring).await;
        assert!(soon(a.release(&one)).await.expect("answered"));
    }
    let free = now();
    granted(waiting).await;
    let idle = now().saturating_since(free);
    assert!(idle < session, "free for {idle:?}");
}
