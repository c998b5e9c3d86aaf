//! Servers that die, stop, or cannot be reached.

use std::sync::Arc;

use futures_util::StreamExt;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::EtcdServer;
use lock_core::{ClientOptions, Connect, ErrorKind, Event, Locks, Released, Renewal};
use lock_etcd::EtcdConfig;

use crate::fixture::*;

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let server = EtcdServer::start();
    let config = config(&server);
    server.kill();
    let error = soon(config.connect(context())).await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn server_that_does_not_answer_is_unavailable_in_time() {
    let server = EtcdServer::start();
    let config = config(&server);
    server.pause();
    let mut context = context();
    context.op_timeout = ms(500);
    // The connection is accepted by the kernel, and nobody ever speaks on it.
    let began = now();
    let error = soon(config.connect(context)).await.expect_err("stopped");
    let took = now().saturating_since(began);
    server.resume();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(took < ms(5000), "{took:?}");
}

#[tokio::test]
async fn unanswered_request_is_indeterminate_and_its_release_finds_out() {
    let server = EtcdServer::start();
    let one = hasty(config(&server), ms(600)).await;
    let two = client(&server).await;
    let warm = claim("warm");
    hold(&one, &warm).await;
    server.pause();
    let sent = claim("a");
    let error = soon(one.try_acquire(&sent)).await.expect_err("no answer");
    server.resume();
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    // It may have been executed by now, or never be: the release settles it either way.
    eventually(|| async { one.release(&sent).await.ok() }).await;
    hold(&two, &claim("a")).await;
    assert!(
        soon(one.release(&warm))
            .await
            .expect("the lease is as it was")
    );
}

#[tokio::test]
async fn one_of_three_that_is_stopped_holds_nobody_up() {
    let server = EtcdServer::builder().members(3).start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&server).await);
    }
    let leader = server.await_leader();
    let stopped = (leader + 1) % 3;
    server.member(stopped).pause();
    // Those who were connected to it as well as those who come now.
    clients.push(client(&server).await);
    for (n, client) in clients.iter().enumerate() {
        let grant = eventually(|| async {
            let claim = claim(&n.to_string());
            match client.try_acquire(&claim).await {
                Ok(grant) => grant,
                Err(_) => {
                    // As core would.
                    eventually(|| async { client.release(&claim).await.ok() }).await;
                    None
                }
            }
        })
        .await;
        assert!(matches!(renew(client, &grant).await, Renewal::Extended(_)));
    }
    server.member(stopped).resume();
}

#[tokio::test]
async fn connection_without_answers_is_left_for_one_that_works() {
    let server = EtcdServer::start();
    let proxy = Proxy::start(server.addr());
    let one = connect(through(&proxy)).await;
    let mut events = one.events();
    let held = claim("a");
    let grant = hold(&one, &held).await;
    proxy.black_hole();
    // Dropped by its caller long before the operation timeout, as core's keeper does.
    let clock = lock_core::Clock::system();
    let impatient = clock.timeout(ms(500), renew(&one, &grant));
    assert!(impatient.await.is_none());
    proxy.until(SOON, |stats| stats.accepted > 1).await;
    proxy.heal();
    assert_eq!(soon(events.next()).await, Some(Event::Reconnected));
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
}

#[tokio::test]
async fn waiter_whose_keep_alive_is_not_answered_keeps_its_place() {
    let server = EtcdServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    // An operation may take longer than the lease lasts.
    let one = hasty(through(&proxy), SOON).await;
    let (two, three) = (client(&server).await, client(&server).await);
    let held = claim_for("a", SOON);
    let (first, second) = (claim_for("a", ms(3000)), claim_for("a", SOON));
    hold(&two, &held).await;
    let waiting = queue(&one, &first).await;
    let behind = queue(&three, &second).await;
    proxy.hold_calls("Lease/LeaseKeepAlive", |_| true);
    proxy.until(SOON, |stats| stats.held_requests == 1).await;
    proxy.clear_calls();
    // The lease would have ended by then.
    let renewals = || {
        let calls = proxy.calls();
        let renewals = calls
            .iter()
            .filter(|call| call.name == "Lease/LeaseKeepAlive");
        renewals.count()
    };
    eventually(|| async { (renewals() >= 4).then_some(()) }).await;
    let waiters = look(&two, "a").await.waiters;
    let nonces: Vec<_> = waiters.iter().map(|waiter| waiter.nonce).collect();
    assert_eq!(nonces, [first.nonce, second.nonce]);
    assert!(soon(two.release(&held)).await.expect("released"));
    granted(waiting).await;
    assert!(!behind.is_finished());
}

/// `lease` as it stands in a request.
fn in_a_request(lease: i64) -> Vec<u8> {
    let mut rest = lease.cast_unsigned();
    let mut bytes = Vec::new();
    while rest > 0x7f {
        bytes.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

#[tokio::test]
async fn keep_alive_that_is_not_answered_costs_no_place_on_another_lease() {
    let server = EtcdServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    let one = hasty(through(&proxy), SOON).await;
    let two = client(&server).await;
    for name in ["a", "b"] {
        hold(&two, &claim_for(name, SOON * 3)).await;
    }
    let leases = || {
        let mut leases = counted(server.leases());
        leases.sort_unstable();
        leases
    };
    let before = leases();
    let long = queue(&one, &claim_for("a", ms(15_000))).await;
    let silent = leases().into_iter().find(|lease| !before.contains(lease));
    let silent = in_a_request(silent.expect("granted"));
    let short = queue(&one, &claim_for("b", ms(2000))).await;
    let before = leases();
    proxy.hold_calls("Lease/LeaseKeepAlive", move |request| {
        request.windows(silent.len()).any(|part| part == silent)
    });
    proxy.until(SOON, |stats| stats.held_requests == 1).await;
    // As long as it takes until that one is asked for again, at most.
    lock_core::Clock::system()
        .sleep_until(now() + ms(4000))
        .await;
    assert_eq!(leases(), before);
    long.abort();
    short.abort();
}

#[tokio::test]
async fn lock_whose_release_is_not_answered_is_free_when_it_says_though_a_waiter_had_renewed_its_lease()
 {
    let server = EtcdServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    let two = client(&server).await;
    hold(&two, &claim_for("b", SOON * 3)).await;
    let options = ClientOptions::default().with_op_timeout(ms(500));
    let one = Locks::open(through(&proxy), options).await.expect("opens");
    let ttl = ms(9000);
    let guard = soon(one.mutex("a").ttl(ttl).acquire())
        .await
        .expect("granted");
    let wanted = one.mutex("b").ttl(ttl);
    let waiting = tokio::spawn(async move { wanted.acquire().await });
    // The waiter's renewal comes before that of the keeper.
    let renewed = || {
        let calls = proxy.calls();
        calls.iter().any(|call| call.name == "Lease/LeaseKeepAlive")
    };
    eventually(|| async { renewed().then_some(()) }).await;
    tokio::time::sleep(ms(15)).await;
    proxy.black_hole();
    let Released::Unknown { free_by } = soon(guard.release()).await.expect("answered") else {
        panic!("answered");
    };
    eventually(|| async { stored(&server, "a").is_empty().then_some(()) }).await;
    let slack = two.capabilities().expiry_slack;
    let late = now().saturating_since(free_by);
    assert!(late < slack, "{late:?} late");
    waiting.abort();
}

#[tokio::test]
async fn replacement_that_is_answered_when_the_place_is_gone_leaves_nobody_in_the_queue() {
    let server = EtcdServer::start();
    let ways = [(); 2].map(|()| Proxy::start_with(server.addr(), Protocol::Http2));
    let ports = ways.iter().map(|way| ("127.0.0.1", way.addr().port()));
    let one = hasty(EtcdConfig::new(ports), SOON).await;
    let two = client(&server).await;
    let (held, waiting, next) = (claim("a"), claim("a"), claim("a"));
    hold(&two, &held).await;
    let holder = stored(&server, "a").remove(0);
    queue(&one, &waiting).await.abort();
    let (before, after) = match &ways {
        [before, after] if before.stats().open > 0 => (before, after),
        [after, before] => (before, after),
    };
    let asks_again = waiting.nonce.to_string();
    after.hold_requests_matching(move |request| {
        let nonce = asks_again.as_bytes();
        request.windows(nonce.len()).any(|part| part == nonce)
    });
    before.hold_replies();
    let replacing = tokio::spawn({
        let (one, waiting, next) = (Arc::clone(&one), waiting.clone(), next.clone());
        async move { one.replace(&waiting, &next).await }
    });
    // Written, and not answered. The client looks elsewhere, and the place is gone there.
    let waits = || async {
        look(&two, "a")
            .await
            .waiters
            .pop()
            .map(|waiter| waiter.nonce)
    };
    eventually(|| async { (waits().await == Some(next.nonce)).then_some(()) }).await;
    for key in stored(&server, "a") {
        if key != holder {
            counted(server.cli(&["del", &key]));
        }
    }
    after.until(SOON, |stats| stats.held_requests > 0).await;
    before.release_replies();
    let replaced = soon(replacing).await.expect("no panic");
    after.deliver_held();
    for claim in [&waiting, &next] {
        soon(one.release(claim)).await.expect("released");
    }
    assert_eq!(stored(&server, "a"), [holder], "{replaced:?}");
}
