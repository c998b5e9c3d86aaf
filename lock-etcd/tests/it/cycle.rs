//! What a lock costs, counted at the server.

use lock_conformance::servers::EtcdServer;
use lock_core::{Lease, Passed, Reach, Renewal, Replaced, Standing};

use crate::fixture::*;

#[tokio::test]
async fn uncontended_cycle_is_two_quorum_writes_and_two_requests() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let first = claim("a");
    hold(&one, &first).await;
    assert!(soon(one.release(&first)).await.expect("released"));
    let (writes, before) = (counted(server.writes()), counted(server.requests()));
    for _ in 0..50 {
        let claim = claim("a");
        hold(&one, &claim).await;
        assert!(soon(one.release(&claim)).await.expect("released"));
    }
    assert_eq!(counted(server.writes()) - writes, 100);
    let after = counted(server.requests());
    let asked: u64 = after.values().sum::<u64>() - before.values().sum::<u64>();
    assert_eq!(asked, 100, "{before:?} {after:?}");
}

#[tokio::test]
async fn failed_try_changes_nothing() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let held = claim("a");
    hold(&one, &held).await;
    // The lease of the other client.
    let elsewhere = claim("b");
    hold(&two, &elsewhere).await;
    let revision = counted(server.revision());
    for _ in 0..50 {
        let refused = soon(two.try_acquire(&claim("a"))).await.expect("answered");
        assert!(refused.is_none());
    }
    assert_eq!(counted(server.revision()), revision);
}

#[tokio::test]
async fn waiter_is_handed_the_lock_and_tokens_grow() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (held, waiting) = (claim("a"), claim("a"));
    let first = hold(&one, &held).await;
    let task = queue(&two, &waiting).await;
    assert!(soon(one.release(&held)).await.expect("released"));
    let second = granted(task).await;
    assert!(second.token() > first.token());
    assert!(soon(two.release(&waiting)).await.expect("released"));
    assert!(is_free(&one, "a").await);
}

#[tokio::test]
async fn one_step_releases_and_queues() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (held, next, other) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &held).await;
    let waiting = queue(&two, &other).await;
    let writes = counted(server.writes());
    let Passed {
        released,
        next: standing,
    } = soon(one.pass(&held, &next)).await.expect("passed");
    assert!(released);
    assert!(matches!(standing, Standing::Queued), "{standing:?}");
    assert_eq!(counted(server.writes()) - writes, 1);
    granted(waiting).await;
    let attached = acquire(&one, &next);
    assert!(soon(two.release(&other)).await.expect("released"));
    granted(attached).await;
    assert!(soon(one.release(&next)).await.expect("released"));
    assert!(stored(&server, "a").is_empty());
}

#[tokio::test]
async fn pass_without_anybody_waiting_grants_the_next() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let (held, next) = (claim("a"), claim("a"));
    let old = hold(&one, &held).await;
    match soon(one.pass(&held, &next)).await.expect("passed").next {
        Standing::Granted(grant) => assert!(grant.token() > old.token()),
        Standing::Queued => panic!("nobody is before it"),
    }
    assert_eq!(stored(&server, "a").len(), 1);
}

#[tokio::test]
async fn replaced_waiter_keeps_its_place_and_shows_its_own_nonce() {
    let server = EtcdServer::start();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let (held, waiting, next, last) = (claim("a"), claim("a"), claim("a"), claim("a"));
    hold(&one, &held).await;
    queue(&two, &waiting).await.abort();
    let behind = queue(&three, &last).await;
    let replaced = soon(two.replace(&waiting, &next)).await.expect("replaced");
    assert!(matches!(replaced, Replaced::Now(Standing::Queued)));
    assert_eq!(look(&one, "a").await.waiters[0].nonce, next.nonce);
    assert!(!soon(two.release(&waiting)).await.expect("released"));
    let attached = acquire(&two, &next);
    assert!(soon(one.release(&held)).await.expect("released"));
    granted(attached).await;
    assert!(soon(two.release(&next)).await.expect("released"));
    granted(behind).await;
}

#[tokio::test]
async fn thousand_held_locks_are_one_lease_and_one_keep_alive() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let mut grants = Vec::new();
    for n in 0..1000 {
        grants.push(hold(&one, &claim(&n.to_string())).await);
    }
    assert_eq!(counted(server.leases()).len(), 1);
    let before = counted(server.requests());
    let all: Vec<_> = grants.iter().collect();
    for renewed in soon(one.renew(&all)).await {
        assert!(matches!(renewed, Ok(Renewal::Extended(_))), "{renewed:?}");
    }
    let after = counted(server.requests());
    let sent = |method: &str| {
        after.get(method).copied().unwrap_or(0) - before.get(method).copied().unwrap_or(0)
    };
    assert_eq!(sent("Lease/LeaseKeepAlive"), 1);
    assert_eq!(sent("KV/Txn"), 8, "1000 keys are read, 128 at a time");
}

#[tokio::test]
async fn many_cycles_leave_no_keys_and_no_leases() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    for n in 0..10_000_u32 {
        let claim = claim(&format!("name/{}", n % 100));
        hold(&one, &claim).await;
        assert!(soon(one.release(&claim)).await.expect("released"));
    }
    assert_eq!(counted(server.keys()), Vec::<String>::new());
    soon(one.close()).await.expect("closed");
    assert_eq!(counted(server.leases()), Vec::<i64>::new());
}

#[tokio::test]
async fn fixed_claim_has_a_lease_of_its_own_and_takes_it_along() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let kept = claim("a");
    let fixed = claim("b").with_lease(Lease::Fixed);
    hold(&one, &kept).await;
    hold(&one, &fixed).await;
    assert_eq!(counted(server.leases()).len(), 2);
    assert!(soon(one.release(&fixed)).await.expect("released"));
    eventually(|| async { (counted(server.leases()).len() == 1).then_some(()) }).await;
    assert_eq!(fixed.progress.reach(), Reach::Sent);
}
