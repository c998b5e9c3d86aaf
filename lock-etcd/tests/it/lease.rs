//! Leases: what they carry, and what becomes of it when they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::EtcdServer;
use lock_core::{
    Backend, Claim, ErrorKind, Event, Grant, Lease, Reach, Renewal, Replaced, Standing,
};

use crate::fixture::*;

/// Revokes all leases that the server has.
fn revoke_all(server: &EtcdServer) {
    for lease in counted(server.leases()) {
        counted(server.cli(&["lease", "revoke", &format!("{lease:x}")]));
    }
}

#[tokio::test]
async fn lost_lease_loses_exactly_its_own_locks() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let mut events = one.events();
    let (asked, silent) = (claim("asked"), claim("silent"));
    let asked_for = hold(&one, &asked).await;
    hold(&one, &silent).await;
    revoke_all(&server);
    let other = claim_for("other", TTL * 2);
    let kept = hold(&one, &other).await;
    assert_eq!(renew(&one, &asked_for).await, Renewal::Gone);
    let nonces = match soon(events.next()).await.expect("told") {
        Event::SessionEnded { nonces } => nonces,
        event => panic!("told of {event:?}"),
    };
    assert_eq!(nonces, [silent.nonce], "who asked was answered");
    assert!(matches!(renew(&one, &kept).await, Renewal::Extended(_)));
    assert!(!soon(one.release(&asked)).await.expect("answered"));
    assert!(soon(one.release(&other)).await.expect("answered"));
}

#[tokio::test]
async fn next_claim_after_a_lost_lease_gets_a_new_one() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    hold(&one, &claim("a")).await;
    revoke_all(&server);
    hold(&one, &claim("b")).await;
    assert_eq!(counted(server.leases()).len(), 1);
}

#[tokio::test]
async fn waiter_whose_lease_is_lost_joins_the_queue_again() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (held, waiting) = (claim_for("a", TTL * 2), claim("a"));
    hold(&one, &held).await;
    let before = counted(server.leases());
    let task = queue(&two, &waiting).await;
    for lease in counted(server.leases()) {
        if !before.contains(&lease) {
            counted(server.cli(&["lease", "revoke", &format!("{lease:x}")]));
        }
    }
    assert_eq!(stored(&server, "a").len(), 1, "only the holder is left");
    eventually(|| async { (look(&one, "a").await.waiters.len() == 1).then_some(()) }).await;
    assert!(soon(one.release(&held)).await.expect("released"));
    granted(task).await;
    assert_eq!(waiting.progress.reach(), Reach::Queued);
}

#[tokio::test]
async fn waiter_keeps_its_own_lease_alive_and_a_holder_without_core_does_not() {
    let server = EtcdServer::start();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let second = ms(1000);
    let held = claim_for("a", second * 3);
    hold(&one, &held).await;
    let waiting = claim_for("a", second);
    let task = queue(&two, &waiting).await;
    let behind = queue(&three, &claim_for("a", second)).await;
    // Only the end of the holder's lease can let the waiters on, whose own are shorter.
    granted(task).await;
    granted(behind).await;
    assert!(!soon(one.release(&held)).await.expect("answered"));
}

#[tokio::test]
async fn waiter_with_the_shortest_lease_is_never_without_it() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    hold(&one, &claim_for("a", TTL * 3)).await;
    let shortest = one.capabilities().ttl.expect("leases end").min;
    let task = queue(&two, &claim_for("a", shortest)).await;
    let leases = || {
        let mut leases = counted(server.leases());
        leases.sort_unstable();
        leases
    };
    let before = leases();
    // The server looks for leases that have ended twice a second.
    let clock = lock_core::Clock::system();
    clock.sleep_until(now() + shortest * 5).await;
    assert_eq!(
        leases(),
        before,
        "a waiter lost its lease, and its place with it"
    );
    task.abort();
}

#[tokio::test]
async fn claim_on_an_aged_lease_is_given_at_least_two_thirds_of_its_ttl() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let ttl = ms(3000);
    let old = hold(&one, &claim_for("a", ttl)).await;
    let aged = old.validity().expires_at().saturating_sub(ttl / 2);
    lock_core::Clock::system().sleep_until(aged).await;
    let before = now();
    let new = hold(&one, &claim_for("b", ttl)).await;
    assert!(new.validity().expires_at() >= before + ttl * 2 / 3);
    assert_eq!(counted(server.leases()).len(), 1, "the same lease");
}

#[tokio::test]
async fn idle_lease_is_revoked_before_it_ends_by_itself() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let claim = claim_for("a", TTL * 6);
    hold(&one, &claim).await;
    assert_eq!(counted(server.leases()).len(), 1);
    assert!(soon(one.release(&claim)).await.expect("released"));
    eventually(|| async { counted(server.leases()).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn waiting_fixed_claim_is_granted_provisionally_and_made_whole() {
    let server = EtcdServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (held, fixed) = (claim("a"), claim("a").with_lease(Lease::Fixed));
    hold(&one, &held).await;
    let task = queue(&two, &fixed).await;
    assert!(soon(one.release(&held)).await.expect("released"));
    let grant = granted(task).await;
    assert!(grant.is_provisional());
    let before = now();
    match renew(&two, &grant).await {
        Renewal::Extended(validity) => {
            assert!(validity.expires_at() > before + TTL * 9 / 10);
        }
        Renewal::Gone => panic!("it is held"),
    }
}

#[tokio::test]
async fn renewal_finds_out_what_was_deleted_by_hand() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let (kept, deleted) = (claim("kept"), claim("deleted"));
    let (a, b) = (hold(&one, &kept).await, hold(&one, &deleted).await);
    counted(server.cli(&["del", &stored(&server, "deleted")[0]]));
    let renewed = soon(one.renew(&[&a, &b])).await;
    assert!(
        matches!(renewed[0], Ok(Renewal::Extended(_))),
        "{renewed:?}"
    );
    assert!(matches!(renewed[1], Ok(Renewal::Gone)), "{renewed:?}");
}

/// Whether somebody has been woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks once for a claim that waits, and releases the one before it: the claim is granted, and its caller has
/// not looked yet.
async fn granted_unseen<'a>(
    (one, waiting): (&'a Arc<dyn Backend>, &'a Claim),
    (two, first): (&Arc<dyn Backend>, &Claim),
) -> BoxFuture<'a, lock_core::Result<Grant>> {
    let mut acquiring = one.acquire(waiting);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let polled = acquiring.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    assert!(soon(two.release(first)).await.expect("released"));
    eventually(|| async { woken.0.load(Ordering::Acquire).then_some(()) }).await;
    acquiring
}

#[tokio::test]
async fn grant_that_its_caller_has_not_seen_yet_is_not_made_of_a_lease_that_is_over() {
    let server = EtcdServer::start();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let (first, other, waiting, next) = (claim("a"), claim("b"), claim("a"), claim("a"));
    hold(&two, &first).await;
    let shared = hold(&one, &other).await;
    queue(&one, &waiting).await.abort();
    // Its caller is slow.
    let acquiring = granted_unseen((&one, &waiting), (&two, &first)).await;
    revoke_all(&server);
    hold(&three, &next).await;
    assert_eq!(renew(&one, &shared).await, Renewal::Gone);
    let error = soon(acquiring).await.expect_err("it has ended");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!soon(one.release(&waiting)).await.expect("answered"));
    assert_eq!(look(&three, "a").await.holders[0].nonce, next.nonce);
}

#[tokio::test]
async fn lease_of_a_dropped_claim_goes_although_its_grant_is_answered_after_its_revocation() {
    let server = EtcdServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    let one = hasty(through(&proxy), SOON).await;
    let claim = claim_for("a", ms(3_600_000)).with_lease(Lease::Fixed);
    proxy.hold_calls("Lease/LeaseGrant", |_| true);
    let asking = acquire(&one, &claim);
    proxy.until(SOON, |stats| stats.held_requests == 1).await;
    let revocations = || async {
        let sent = counted(server.requests());
        sent.get("Lease/LeaseRevoke").copied().unwrap_or(0)
    };
    assert_eq!(revocations().await, 0);
    asking.abort();
    assert!(!soon(one.release(&claim)).await.expect("answered"));
    eventually(|| async { (revocations().await > 0).then_some(()) }).await;
    proxy.deliver_held();
    eventually(|| async { (revocations().await > 1).then_some(()) }).await;
    eventually(|| async { counted(server.leases()).is_empty().then_some(()) }).await;
    assert!(stored(&server, "a").is_empty());
}

#[tokio::test]
async fn place_that_was_granted_already_is_handed_on_before_those_behind_it() {
    let server = EtcdServer::start();
    let (one, two, three) = (
        client(&server).await,
        client(&server).await,
        client(&server).await,
    );
    let (first, waiting, behind, next) = (claim("a"), claim("a"), claim("a"), claim("a"));
    hold(&two, &first).await;
    queue(&one, &waiting).await.abort();
    let task = queue(&three, &behind).await;
    // Its caller goes without having looked.
    drop(granted_unseen((&one, &waiting), (&two, &first)).await);
    let replaced = soon(one.replace(&waiting, &next)).await.expect("replaced");
    assert!(
        matches!(replaced, Replaced::Now(Standing::Granted(_))),
        "{replaced:?}"
    );
    assert_eq!(look(&three, "a").await.holders[0].nonce, next.nonce);
    assert!(!soon(one.release(&waiting)).await.expect("answered"));
    assert!(!task.is_finished());
    assert!(soon(one.release(&next)).await.expect("released"));
    granted(task).await;
}

#[tokio::test]
async fn leases_of_fixed_claims_that_were_released_are_gone_when_the_client_has_closed() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let hour = ms(3_600_000);
    let fixed = |n: u32| claim_for(&n.to_string(), hour).with_lease(Lease::Fixed);
    let claims: Vec<_> = (0..20).map(fixed).collect();
    for claim in &claims {
        hold(&one, claim).await;
    }
    for claim in &claims {
        assert!(soon(one.release(claim)).await.expect("released"));
    }
    soon(one.close()).await.expect("closed");
    assert_eq!(counted(server.leases()), [0_i64; 0]);
}

#[tokio::test]
async fn revocation_without_an_answer_holds_up_no_other() {
    let server = EtcdServer::start();
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    let one = hasty(through(&proxy), SOON * 3).await;
    proxy.hold_calls("Lease/LeaseRevoke", |_| true);
    for _ in 0..5 {
        let claim = claim_for("a", ms(3_600_000)).with_lease(Lease::Fixed);
        hold(&one, &claim).await;
        assert!(soon(one.release(&claim)).await.expect("released"));
    }
    eventually(|| async { (counted(server.leases()).len() == 1).then_some(()) }).await;
    assert_eq!(proxy.stats().held_requests, 1);
}
