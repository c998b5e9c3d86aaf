//! Answers that are lost, and requests that arrive after they were given up.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::fault::jute::is_request;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, ClientOptions, ErrorKind, Locks, Renewal};
use lock_zk::{ZkBackend, ZkConfig};

use crate::fixture::{
    ROOT, claim, client, config_of, connect, context, eventually, granted, hold, lock_nodes, ms,
    queue, quiet_server, renew, soon,
};

/// Short enough that a connection which is silent is soon given up: at three fifths.
const SESSION: Duration = Duration::from_secs(3);

fn through(proxy: &Proxy) -> ZkConfig {
    config_of(&[proxy.addr().port()]).with_session_timeout(SESSION)
}

async fn hasty(proxy: &Proxy, op_timeout: Duration) -> Arc<ZkBackend> {
    let mut context = context();
    context.op_timeout = op_timeout;
    let connecting = ZkBackend::connect(through(proxy), context);
    Arc::new(soon(Box::pin(connecting)).await.expect("connects"))
}

fn start() -> (ZooKeeperServer, Proxy) {
    let server = quiet_server();
    let proxy = Proxy::start_with(server.addr(), Protocol::Jute);
    (server, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn acquire_whose_answer_is_lost_is_found_again_by_its_nonce() {
    let (server, proxy) = start();
    let a = hasty(&proxy, ms(10_000)).await;
    let one = claim("n");
    proxy.hold_replies();
    let acquiring = crate::fixture::acquire(&a, &one);
    eventually(|| async { (lock_nodes(&server).len() == 1).then_some(()) }).await;
    let asked = server.ephemerals().expect("listed");
    // The answer goes with its connection; the client comes back in the same session.
    proxy.reset();
    proxy.pass();
    granted(acquiring).await;
    assert_eq!(
        server.ephemerals().expect("listed"),
        asked,
        "the node that the lost answer told of"
    );
    assert!(soon(a.release(&one)).await.expect("answered"));
    assert!(lock_nodes(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn acquire_that_gives_up_on_its_answer_leaves_nothing_after_its_release() {
    let (server, proxy) = start();
    let a = hasty(&proxy, ms(1_000)).await;
    let one = claim("n");
    proxy.hold_replies();
    let refused = soon(a.acquire(&one)).await.expect_err("no answer");
    assert_eq!(refused.kind(), ErrorKind::Indeterminate);
    assert_eq!(lock_nodes(&server).len(), 1);
    proxy.reset();
    proxy.pass();
    eventually(|| async { a.release(&one).await.ok() }).await;
    assert!(lock_nodes(&server).is_empty());
    assert_eq!(a.registered_claims(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn create_that_arrives_after_its_release_makes_no_node() {
    let (server, proxy) = start();
    let (a, b) = (hasty(&proxy, ms(1_000)).await, client(&server).await);
    let warm = claim("n");
    hold(&a, &warm).await;
    assert!(soon(a.release(&warm)).await.expect("answered"));
    let one = claim("n");
    let session = a.session_id();
    proxy.hold_requests_matching(|message| is_request(message, "create2"));
    let refused = soon(a.acquire(&one)).await.expect_err("no answer");
    assert_eq!(refused.kind(), ErrorKind::Indeterminate);
    assert!(proxy.stats().held_requests > 0);
    // The client comes back by another connection, and its release is confirmed.
    proxy.reset();
    assert!(!eventually(|| async { a.release(&one).await.ok() }).await);
    assert_eq!(
        a.session_id(),
        session,
        "in the same session, which the late copy belongs to"
    );
    assert_eq!(a.registered_claims(), 0);
    proxy.deliver_held();
    let two = claim("n");
    let other = hold(&b, &two).await;
    assert!(other.token().get() > 0);
    assert_eq!(lock_nodes(&server).len(), 1, "a ghost");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiter_is_granted_although_its_watch_fired_while_it_was_away() {
    let (server, proxy) = start();
    let (a, b) = (client(&server).await, hasty(&proxy, ms(10_000)).await);
    let (one, two) = (claim("n"), claim("n"));
    hold(&a, &one).await;
    let waiting = queue(&b, &two).await;
    proxy.refuse();
    proxy.reset();
    assert!(soon(a.release(&one)).await.expect("answered"));
    proxy.accept();
    granted(waiting).await;
    assert!(soon(b.release(&two)).await.expect("answered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn contended_section_is_four_requests_and_five_when_another_waiter_was_ahead() {
    let (server, proxy) = start();
    let (a, b, c) = (
        client(&server).await,
        hasty(&proxy, ms(10_000)).await,
        client(&server).await,
    );
    let asked = || -> Vec<String> {
        let about = proxy
            .calls()
            .into_iter()
            .filter(|call| call.path.contains("/l/n"));
        about.map(|call| call.name).collect()
    };
    let section = async |claims: [&lock_core::Claim; 2], behind: bool| {
        let [one, two] = claims;
        let middle = claim("n");
        hold(&a, one).await;
        let ahead = if behind {
            Some(queue(&c, &middle).await)
        } else {
            None
        };
        proxy.clear_calls();
        let waiting = queue(&b, two).await;
        eventually(|| async { asked().iter().any(|name| name == "getData").then_some(()) }).await;
        assert!(soon(a.release(one)).await.expect("answered"));
        if let Some(ahead) = ahead {
            granted(ahead).await;
            assert!(soon(c.release(&middle)).await.expect("answered"));
        }
        granted(waiting).await;
        assert!(soon(b.release(two)).await.expect("answered"));
        asked()
    };
    // Once to know the parent.
    section([&claim("n"), &claim("n")], false).await;
    let requests = section([&claim("n"), &claim("n")], false).await;
    assert_eq!(requests, ["create2", "getChildren2", "getData", "delete"]);
    let requests = section([&claim("n"), &claim("n")], true).await;
    assert_eq!(
        requests,
        [
            "create2",
            "getChildren2",
            "getData",
            "getChildren2",
            "delete"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn uncontended_cycle_is_create_look_and_delete() {
    let (_server, proxy) = start();
    let a = hasty(&proxy, ms(10_000)).await;
    let wanted = ["createContainer", "create2", "getChildren2", "delete"];
    // The parent is asked for with the first one, in the same round trip.
    for wanted in [&wanted[..], &wanted[1..]] {
        proxy.clear_calls();
        let claim = claim("n");
        soon(a.acquire(&claim)).await.expect("granted");
        assert!(soon(a.release(&claim)).await.expect("answered"));
        let calls = proxy
            .calls()
            .into_iter()
            .filter(|call| call.path.contains("/l/n"));
        let calls: Vec<_> = calls.map(|call| call.name).collect();
        assert_eq!(calls, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_that_arrives_at_the_member_which_its_session_has_left_makes_no_node() {
    let server = ZooKeeperServer::builder().members(3).start();
    let leader = server.await_leader();
    let b = client(&server).await;
    for (left, next) in [
        (leader, (leader + 1) % 3),
        ((leader + 1) % 3, (leader + 2) % 3),
    ] {
        let [from, to] = [left, next]
            .map(|member| Proxy::start_with(server.member(member).addr(), Protocol::Jute));
        to.refuse();
        let mut context = context();
        context.op_timeout = ms(1_000);
        let config = config_of(&[from.addr().port(), to.addr().port()]);
        let a = eventually(|| async {
            let connecting = ZkBackend::connect(config.clone(), context.clone());
            Box::pin(connecting).await.ok()
        })
        .await;
        let warm = claim("n");
        soon(a.acquire(&warm)).await.expect("granted");
        assert!(soon(a.release(&warm)).await.expect("answered"));
        let (one, session) = (claim("n"), a.session_id());
        from.hold_requests_matching(|message| is_request(message, "create2"));
        let refused = soon(a.acquire(&one)).await.expect_err("no answer");
        assert_eq!(refused.kind(), ErrorKind::Indeterminate);
        from.refuse();
        to.accept();
        assert!(!eventually(|| async { a.release(&one).await.ok() }).await);
        assert_eq!(a.session_id(), session, "it has moved, and goes on");
        let connected = || {
            let connections = server.word(left, "cons").expect("the member tells");
            connections.contains(&format!("sid={session:#x},"))
        };
        assert!(connected(), "the way of the late copy");
        assert!(from.deliver_held() > 0);
        // The member refuses it by closing that connection.
        eventually(|| async { (!connected()).then_some(()) }).await;
        let two = claim("n");
        hold(&b, &two).await;
        assert_eq!(lock_nodes(&server).len(), 1, "a ghost");
        assert!(soon(b.release(&two)).await.expect("answered"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_of_a_request_that_is_refused_is_removed_also_when_its_removal_is_not_answered() {
    let (server, proxy) = start();
    let options = ClientOptions::default().with_op_timeout(ms(1_000));
    let locks = Locks::open(through(&proxy), options);
    let locks = soon(locks).await.expect("opens");
    for path in ["/l", "/l/n", "/l/n/not-a-request"] {
        let path = format!("{ROOT}{path}");
        server.create(&path, &[]).expect("made");
    }
    proxy.hold_requests_matching(|message| is_request(message, "delete"));
    let refused = soon(locks.mutex("n").acquire()).await;
    refused.expect_err("not a queue");
    assert!(proxy.stats().held_requests > 0);
    proxy.discard_held();
    eventually(|| async { (lock_nodes(&server).len() == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_waits_for_many_long_names_comes_back_in_the_same_session() {
    const WAITERS: usize = 60;
    let (server, proxy) = start();
    let a = client(&server).await;
    let b = connect(config_of(&[proxy.addr().port()])).await;
    let session = b.session_id();
    let held = claim("held");
    let grant = hold(&b, &held).await;
    let mut waiting = Vec::new();
    for number in 0..WAITERS {
        // Three bytes each in the name of a node.
        let name = format!("{}{number}", "\u{e9}".repeat(500));
        let (one, two) = (claim(&name), claim(&name));
        hold(&a, &one).await;
        waiting.push((one, queue(&b, &two).await));
    }
    proxy.reset();
    let renewed = || async { b.renew(&[&grant]).await.remove(0).ok() };
    assert!(matches!(eventually(renewed).await, Renewal::Extended(_)));
    for (one, waiting) in waiting {
        assert!(soon(a.release(&one)).await.expect("answered"));
        granted(waiting).await;
    }
    assert_eq!(b.session_id(), session);
    assert!(matches!(renew(&b, &grant).await, Renewal::Extended(_)));
}
