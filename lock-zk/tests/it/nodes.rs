//! What is left in the ensemble, and what is removed from it.

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, ErrorKind, Event, LossReason, Renewal};
use lock_core::{ClientOptions, Locks};
use lock_zk::zookeeper_client::{Acls, CreateMode};

use crate::fixture::{
    ROOT, claim, claim_for, client, config, event, eventually, granted, hold, lock_nodes, look, ms,
    name, queue, quiet_server, raw, renew, soon,
};

#[tokio::test]
async fn everything_but_the_root_is_gone_after_the_last_client() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    for label in 0..20 {
        let claim = claim(&format!("n{label}"));
        hold(&a, &claim).await;
        assert!(soon(a.release(&claim)).await.expect("answered"));
    }
    let left = claim("left behind");
    hold(&a, &left).await;
    soon(a.close()).await.expect("closed");
    // The containers go by themselves: the server of this test looks every second.
    eventually(|| async { (server.nodes(ROOT).expect("listed").is_empty()).then_some(()) }).await;
    assert_eq!(server.nodes("/").expect("listed"), [ROOT]);
    assert!(server.sessions().expect("listed").is_empty());
    assert_eq!(server.watches().expect("counted"), 0);
}

#[tokio::test]
async fn unused_parents_are_removed_by_the_client_and_used_ones_stay() {
    // This server does not do it.
    let server = quiet_server();
    let (a, b) = (client(&server).await, client(&server).await);
    let theirs = claim("theirs");
    for label in ["n", "theirs"] {
        let claim = claim(label);
        hold(&a, &claim).await;
        assert!(soon(a.release(&claim)).await.expect("answered"));
    }
    hold(&b, &theirs).await;
    let gone = || async {
        let nodes = server.nodes(&format!("{ROOT}/l")).expect("listed");
        (!nodes.iter().any(|node| node.ends_with("/n"))).then_some(())
    };
    eventually(gone).await;
    assert_eq!(lock_nodes(&server).len(), 1);
    assert_eq!(look(&a, "theirs").await.holders.len(), 1);
}

#[tokio::test]
async fn parent_of_a_hold_that_was_lost_is_removed_as_well() {
    // This server does not do it.
    let server = quiet_server();
    let a = client(&server).await;
    let (told, found) = (claim("told"), claim("found"));
    hold(&a, &told).await;
    let grant = hold(&a, &found).await;
    let mut events = a.events();
    let broken = a.break_hold(&told.name, look(&a, "told").await.holders[0].token);
    assert!(soon(broken).await.expect("answered"));
    event(&mut events, |event| !matches!(event, Event::Reconnected)).await;
    server.delete(&lock_nodes(&server)[0]).expect("deleted");
    assert_eq!(renew(&a, &grant).await, Renewal::Gone);
    for claim in [&told, &found] {
        assert!(!soon(a.release(claim)).await.expect("answered"));
    }
    let parents = || server.nodes(&format!("{ROOT}/l")).expect("listed");
    eventually(|| async { parents().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn hold_that_somebody_deletes_by_hand_is_told_as_not_held() {
    let server = ZooKeeperServer::start();
    let locks = Locks::open(config(&server), ClientOptions::default());
    let locks = soon(locks).await.expect("opens");
    let guard = soon(locks.mutex("n").acquire()).await.expect("granted");
    server.delete(&lock_nodes(&server)[0]).expect("deleted");
    assert_eq!(soon(guard.lost()).await, LossReason::NotHeld);
}

#[tokio::test]
async fn client_whose_own_node_is_removed_looks_at_its_holds_and_makes_it_again() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    let mut events = a.events();
    let (lost, kept) = (claim("lost"), claim("kept"));
    hold(&a, &lost).await;
    hold(&a, &kept).await;
    let own = || server.nodes(&format!("{ROOT}/c")).expect("listed");
    let before = own();
    assert_eq!(before.len(), 1);
    let gone = lock_nodes(&server)
        .into_iter()
        .find(|node| node.contains("/lost/"));
    server.delete(&gone.expect("held")).expect("deleted");
    server.delete(&before[0]).expect("deleted");
    let told = event(&mut events, |event| !matches!(event, Event::Reconnected)).await;
    assert_eq!(told, Event::Gone { nonce: lost.nonce });
    eventually(|| async { (own() == before).then_some(()) }).await;
    assert!(soon(a.release(&kept)).await.expect("answered"));
}

#[tokio::test]
async fn waiter_whose_node_is_deleted_by_hand_comes_back_to_the_queue() {
    let server = ZooKeeperServer::start();
    let (a, b) = (client(&server).await, client(&server).await);
    let (one, two) = (claim("n"), claim("n"));
    hold(&a, &one).await;
    let waiting = queue(&b, &two).await;
    let node = lock_nodes(&server)
        .into_iter()
        .find(|node| node.contains(&two.nonce.to_string()));
    let node = node.expect("queued");
    server.delete(&node).expect("deleted");
    let again = || async {
        let nodes = lock_nodes(&server);
        let there = nodes
            .iter()
            .any(|now| now.contains(&two.nonce.to_string()) && *now != node);
        there.then_some(())
    };
    eventually(again).await;
    assert!(soon(a.release(&one)).await.expect("answered"));
    granted(waiting).await;
}

#[tokio::test]
async fn root_that_is_removed_is_made_again() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    server.wipe().expect("wiped");
    let claim = claim("n");
    eventually(|| async { a.try_acquire(&claim).await.ok().flatten() }).await;
    assert!(soon(a.release(&claim)).await.expect("answered"));
}

#[tokio::test]
async fn foreign_nodes_are_an_error_and_are_left_alone() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    let mine = claim("n");
    hold(&a, &mine).await;
    let raw = raw(&server).await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let foreign = format!("{ROOT}/l/n/not-a-request");
    soon(raw.create(&foreign, &[], &options))
        .await
        .expect("made");
    let b = client(&server).await;
    for _ in 0..2 {
        let tried = soon(b.try_acquire(&claim("n"))).await.expect_err("foreign");
        assert_eq!(tried.kind(), ErrorKind::WrongType);
        let waited = soon(b.acquire(&claim("n"))).await.expect_err("foreign");
        assert_eq!(waited.kind(), ErrorKind::WrongType);
    }
    let looked = soon(b.inspect(&name("n"))).await.expect_err("foreign");
    assert_eq!(looked.kind(), ErrorKind::WrongType);
    assert_eq!(b.registered_claims(), 0);
    // Neither the holder nor the foreign node was disturbed.
    assert_eq!(lock_nodes(&server).len(), 2);
    assert!(soon(a.release(&mine)).await.expect("answered"));
}

#[tokio::test]
async fn hold_without_renewals_ends_at_its_ttl_and_not_before() {
    let server = ZooKeeperServer::start();
    let (a, b) = (client(&server).await, client(&server).await);
    let short = claim_for("n", ms(700)).with_lease(lock_core::Lease::Fixed);
    let before = crate::fixture::now();
    let grant = hold(&a, &short).await;
    assert!(
        grant.validity().expires_at()
            < before + ms(700) + (crate::fixture::now().saturating_since(before))
    );
    let next = claim("n");
    granted(queue(&b, &next).await).await;
    let held = crate::fixture::now().saturating_since(before);
    assert!(held >= ms(700), "replaced after {held:?}");
    assert!(
        !soon(a.release(&short)).await.expect("answered"),
        "it had ended"
    );
    assert_eq!(a.registered_claims(), 0);
}
