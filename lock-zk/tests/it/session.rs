//! Sessions: their ends, and what comes after.

use std::sync::Arc;

use lock_conformance::fault::jute::request;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, Event, LossReason, Renewal};
use lock_core::{ClientOptions, Locks, Reach};
use lock_zk::ZkBackend;

use crate::fixture::{
    ROOT, claim, claim_for, client, config, config_of, connect, context, event, eventually,
    granted, hold, kill, lock_nodes, look, ms, now, queue, renew, soon,
};

#[tokio::test]
async fn lost_session_takes_exactly_its_own_holds_along() {
    let server = ZooKeeperServer::start();
    let (a, b) = (client(&server).await, client(&server).await);
    let mut events = a.events();
    let (one, two, theirs) = (claim("one"), claim("two"), claim("theirs"));
    let grant = hold(&a, &one).await;
    hold(&a, &two).await;
    let kept = hold(&b, &theirs).await;
    let session = a.session_id();
    kill(&server, session).await;
    let told = event(&mut events, |event| {
        matches!(event, Event::SessionEnded { .. })
    })
    .await;
    let Event::SessionEnded { mut nonces } = told else {
        unreachable!("just matched");
    };
    nonces.sort();
    let mut wanted = vec![one.nonce, two.nonce];
    wanted.sort();
    assert_eq!(nonces, wanted);
    assert_eq!(renew(&a, &grant).await, Renewal::Gone);
    assert!(!soon(a.release(&one)).await.expect("answered"));
    assert!(matches!(renew(&b, &kept).await, Renewal::Extended(_)));
    // Another session goes on with the same client.
    let next = claim("one");
    let new = eventually(|| async { a.try_acquire(&next).await.ok().flatten() }).await;
    assert!(new.token() > grant.token());
    assert_ne!(a.session_id(), session);
}

#[tokio::test]
async fn waiter_whose_session_is_lost_joins_again_in_the_next_one() {
    let server = ZooKeeperServer::start();
    let (a, b) = (client(&server).await, client(&server).await);
    let (one, two) = (claim("n"), claim("n"));
    hold(&a, &one).await;
    let waiting = queue(&b, &two).await;
    let session = b.session_id();
    kill(&server, session).await;
    eventually(|| async {
        let there = lock_nodes(&server).len() == 2 && two.progress.reach() == Reach::Queued;
        (there && b.session_id() != session).then_some(())
    })
    .await;
    let state = look(&a, "n").await;
    assert_eq!(state.holders[0].nonce, one.nonce);
    assert_eq!(state.waiters[0].nonce, two.nonce);
    assert!(soon(a.release(&one)).await.expect("answered"));
    granted(waiting).await;
    assert!(soon(b.release(&two)).await.expect("answered"));
    assert!(lock_nodes(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_whose_time_ran_out_between_two_sessions_keep_what_they_are_granted_in_the_third() {
    const WAITERS: u32 = 8;
    let server = ZooKeeperServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Jute);
    let session = ms(2_000);
    let mut hasty = context();
    hasty.op_timeout = ms(1_000);
    let through = config_of(&[proxy.addr().port()]).with_session_timeout(session);
    let a = client(&server).await;
    let b = eventually(|| async {
        let connecting = ZkBackend::connect(through.clone(), hasty.clone());
        Box::pin(connecting).await.ok().map(Arc::new)
    })
    .await;
    let mut waiting = Vec::new();
    for number in 0..WAITERS {
        let name = format!("n{number}");
        // Each one's time is over at another moment.
        let (one, two) = (claim(&name), claim_for(&name, session + number * ms(250)));
        hold(&a, &one).await;
        let acquiring = queue(&b, &two).await;
        waiting.push((one, two, acquiring));
    }
    // In the second session they ask for nodes, and hear nothing until their TTL is over.
    proxy.hold_requests_matching(|message| {
        request(message).is_some_and(|asked| asked.name == "create2" && asked.path.contains("/l/"))
    });
    kill(&server, b.session_id()).await;
    eventually(|| async { (proxy.stats().held_requests > 0).then_some(()) }).await;
    proxy.refuse();
    tokio::time::sleep(session * 4).await;
    proxy.discard_held();
    for (one, ..) in &waiting {
        assert!(soon(a.release(one)).await.expect("answered"));
    }
    proxy.accept();
    let mut held = Vec::new();
    for (_, _, acquiring) in waiting {
        let grant = granted(acquiring).await;
        held.push((grant.validity(), grant));
    }
    // Whatever was to give them up has tried that again by then.
    let mut lasted = true;
    for _ in 0..20 {
        for (validity, grant) in &mut held {
            let left = validity.expires_at().saturating_since(now());
            match renew(&b, grant).await {
                Renewal::Extended(longer) => *validity = longer,
                // On a busy machine this session may be lost as well, but not sooner than that.
                _ => {
                    assert!(left.is_zero(), "taken away while it was valid for {left:?}");
                    lasted = false;
                }
            }
        }
        tokio::time::sleep(ms(100)).await;
    }
    assert!(!lasted || lock_nodes(&server).len() == held.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_of_a_lost_session_is_told_that_it_was_the_session() {
    let server = ZooKeeperServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Jute);
    let locks = Locks::open(config_of(&[proxy.addr().port()]), ClientOptions::default());
    let locks = soon(locks).await.expect("opens");
    let guard = soon(locks.mutex("n").acquire()).await.expect("granted");
    let sessions = server.ephemerals().expect("listed");
    let mut owners = sessions.iter();
    let holder = owners.find(|(_, nodes)| nodes.iter().any(|node| node.contains("/l/n/")));
    let (session, _) = holder.expect("held");
    // The client would be fast enough to come back before its session is closed for it.
    proxy.black_hole();
    kill(&server, *session).await;
    proxy.heal();
    assert_eq!(soon(guard.lost()).await, LossReason::SessionEnded);
}

#[tokio::test]
async fn stopped_server_ends_the_session_here_before_it_can_end_there() {
    let server = ZooKeeperServer::start();
    let session = ms(2_000);
    let a = connect(config(&server).with_session_timeout(session)).await;
    let mut events = a.events();
    let held = claim_for("n", ms(60_000));
    hold(&a, &held).await;
    let stopped = now();
    server.pause();
    let told = event(&mut events, |event| {
        matches!(event, Event::SessionEnded { .. })
    })
    .await;
    let took = now().saturating_since(stopped);
    assert_eq!(
        told,
        Event::SessionEnded {
            nonces: vec![held.nonce]
        }
    );
    assert!(
        took <= session + ms(500),
        "told after {took:?} of a session of {session:?}"
    );
    server.resume();
    let next = claim("n");
    let new = eventually(|| async { a.try_acquire(&next).await.ok().flatten() }).await;
    assert!(soon(a.release(&next)).await.expect("answered"));
    assert!(new.token().get() > 0);
}

#[tokio::test]
async fn validity_of_a_grant_is_the_sessions_and_grows_with_its_heartbeats() {
    let server = ZooKeeperServer::start();
    let session = ms(3_000);
    let a = connect(config(&server).with_session_timeout(session)).await;
    let held = claim_for("n", ms(60_000));
    let grant = hold(&a, &held).await;
    let first = grant.validity().expires_at();
    assert!(first <= now() + session, "longer than the session");
    // The heartbeats go on without anybody asking.
    eventually(|| async {
        let Renewal::Extended(validity) = renew(&a, &grant).await else {
            panic!("a live hold");
        };
        assert!(validity.expires_at() <= now() + session);
        (validity.expires_at() > first + session).then_some(())
    })
    .await;
}

#[tokio::test]
async fn closed_backend_leaves_no_session() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    hold(&a, &claim("n")).await;
    let b = client(&server).await;
    let waiting = queue(&b, &claim("n")).await;
    soon(a.close()).await.expect("closed");
    granted(waiting).await;
    drop(b);
    eventually(|| async { (server.sessions().expect("listed").is_empty()).then_some(()) }).await;
    assert!(server.nodes(&format!("{ROOT}/l")).expect("listed").len() <= 1);
}
