//! Requests that were sent and not answered: lost replies, dropped futures, copies that arrive late.

use std::future::Future;
use std::sync::Arc;

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::EtcdServer;
use lock_core::{Backend, Claim, ErrorKind, Lease, Passed, Renewal, Replaced, Result, Standing};

use crate::fixture::*;

struct Faulty {
    server: EtcdServer,
    proxy: Proxy,
    /// Behind the proxy, and quick to give up.
    one: Arc<dyn Backend>,
    /// Straight to the server.
    two: Arc<dyn Backend>,
}

impl Faulty {
    async fn new() -> Self {
        let server = EtcdServer::start();
        let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
        let faulty = Self {
            one: hasty(through(&proxy), ms(1000)).await,
            two: client(&server).await,
            server,
            proxy,
        };
        // The lease is there: the fault is to hit the request for the lock.
        let warm = claim("warm");
        hold(&faulty.one, &warm).await;
        assert!(soon(faulty.one.release(&warm)).await.expect("released"));
        faulty
    }

    /// Runs `work` while its transaction on the lock "a" is held back.
    async fn held_back<T>(&self, work: impl Future<Output = Result<T>>) {
        self.held_back_with("", work).await;
    }

    /// As [`held_back`](Self::held_back), for one that also contains `part`.
    async fn held_back_with<T>(&self, part: &str, work: impl Future<Output = Result<T>>) {
        let (key, part) = (keys_of("a").into_bytes(), part.as_bytes().to_vec());
        self.proxy.hold_requests_matching(move |request| {
            let has = |wanted: &[u8]| {
                wanted.is_empty() || request.windows(wanted.len()).any(|part| part == wanted)
            };
            has(&key) && has(&part)
        });
        let accepted = self.proxy.stats().accepted;
        unanswered(work).await;
        assert!(self.proxy.stats().held_requests > 0);
        // What is delivered from now on comes from a connection that nobody listens to any more.
        self.proxy
            .until(SOON, |stats| stats.accepted > accepted && stats.open == 1)
            .await;
    }

    /// The copy that was held back reaches the server now, and is executed.
    async fn deliver(&self) {
        assert!(self.proxy.deliver_held() > 0);
        self.proxy.until(SOON, |stats| stats.late_replies > 0).await;
    }

    /// Runs `work`, which the server executes and whose answer is lost.
    async fn reply_lost<T>(&self, work: impl Future<Output = Result<T>>) {
        self.proxy.drop_replies();
        unanswered(work).await;
        self.proxy.pass();
    }

    /// Waits until the client has a connection again.
    async fn connected(&self) {
        eventually(|| async { self.one.inspect(&name("elsewhere")).await.ok() }).await;
    }

    async fn release(&self, claim: &Claim) -> bool {
        // The connection may be being replaced; core repeats as well.
        eventually(|| async { self.one.release(claim).await.ok() }).await
    }

    async fn assert_free(&self) {
        let state = look(&self.two, "a").await;
        assert!(
            state.holders.is_empty() && state.waiters.is_empty(),
            "{state:?}"
        );
    }
}

async fn unanswered<T>(work: impl Future<Output = Result<T>>) {
    match soon(work).await {
        Ok(_) => panic!("answered"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}"),
    }
}

#[tokio::test]
async fn late_copy_of_a_request_nobody_released_does_win() {
    // The proof that the next tests bite.
    let faulty = Faulty::new().await;
    let claim = claim("a");
    faulty.held_back(faulty.one.try_acquire(&claim)).await;
    faulty.deliver().await;
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, claim.nonce);
}

#[tokio::test]
async fn late_copy_of_a_try_does_not_win_after_the_release() {
    let faulty = Faulty::new().await;
    let claim = claim("a");
    faulty.held_back(faulty.one.try_acquire(&claim)).await;
    assert!(!faulty.release(&claim).await);
    faulty.deliver().await;
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_a_fixed_claim_does_not_win_after_the_release() {
    let faulty = Faulty::new().await;
    let claim = claim("a").with_lease(Lease::Fixed);
    faulty.held_back(faulty.one.try_acquire(&claim)).await;
    assert!(!faulty.release(&claim).await);
    faulty.deliver().await;
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_an_enqueue_neither_waits_nor_wins_after_the_release() {
    let faulty = Faulty::new().await;
    let (held, waiting) = (claim("a"), claim("a"));
    hold(&faulty.two, &held).await;
    faulty.held_back(faulty.one.acquire(&waiting)).await;
    assert!(!faulty.release(&waiting).await);
    faulty.deliver().await;
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
    assert!(soon(faulty.two.release(&held)).await.expect("released"));
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_a_pass_changes_nothing_after_both_are_released() {
    let faulty = Faulty::new().await;
    let (held, next) = (claim("a"), claim("a"));
    hold(&faulty.one, &held).await;
    faulty.held_back(faulty.one.pass(&held, &next)).await;
    assert!(!faulty.release(&next).await);
    assert!(faulty.release(&held).await);
    faulty.deliver().await;
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_a_replacement_changes_nothing_after_both_are_released() {
    let faulty = Faulty::new().await;
    let (held, waiting, next) = (claim("a"), claim("a"), claim("a"));
    hold(&faulty.two, &held).await;
    queue(&faulty.one, &waiting).await.abort();
    // Not the look at a place, which contains the key as well.
    let replacing = faulty.one.replace(&waiting, &next);
    faulty
        .held_back_with(&next.nonce.to_string(), replacing)
        .await;
    assert!(!faulty.release(&waiting).await);
    assert!(!faulty.release(&next).await);
    faulty.deliver().await;
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
    assert!(soon(faulty.two.release(&held)).await.expect("released"));
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_a_release_does_not_free_the_next_hold_of_the_same_key() {
    let faulty = Faulty::new().await;
    let (first, second) = (claim("a"), claim("a"));
    hold(&faulty.one, &first).await;
    faulty.held_back(faulty.one.release(&first)).await;
    assert!(faulty.release(&first).await);
    let grant = hold(&faulty.one, &second).await;
    faulty.deliver().await;
    let renewed = renew(&faulty.one, &grant).await;
    assert!(matches!(renewed, Renewal::Extended(_)), "{renewed:?}");
}

#[tokio::test]
async fn late_copy_of_a_burial_does_not_free_the_next_hold_of_the_same_key() {
    let faulty = Faulty::new().await;
    let (lost, next) = (claim("a"), claim("a"));
    faulty.held_back(faulty.one.try_acquire(&lost)).await;
    faulty.held_back(faulty.one.release(&lost)).await;
    assert!(!faulty.release(&lost).await);
    let grant = hold(&faulty.one, &next).await;
    assert_eq!(faulty.proxy.deliver_held(), 2);
    faulty
        .proxy
        .until(SOON, |stats| stats.late_replies >= 2)
        .await;
    let other = soon(faulty.two.try_acquire(&claim("a"))).await;
    assert!(other.expect("answered").is_none(), "two holders");
    let renewed = renew(&faulty.one, &grant).await;
    assert!(matches!(renewed, Renewal::Extended(_)), "{renewed:?}");
}

#[tokio::test]
async fn burial_after_the_generation_has_moved_on_removes_what_was_put_and_says_so() {
    let faulty = Faulty::new().await;
    let (first, second) = (claim("a"), claim("b"));
    faulty.reply_lost(faulty.one.try_acquire(&first)).await;
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, first.nonce);
    // Another one that was not answered moves it on; the client does not hear that it did.
    faulty.connected().await;
    faulty.reply_lost(faulty.one.try_acquire(&second)).await;
    faulty.connected().await;
    faulty.reply_lost(faulty.one.release(&second)).await;
    assert!(faulty.release(&first).await);
    faulty.assert_free().await;
    assert!(!faulty.release(&second).await);
    assert_eq!(counted(faulty.server.leases()).len(), 1, "it is kept");
}

#[tokio::test]
async fn late_copy_on_a_lease_whose_grant_is_late_as_well_does_not_win_after_the_release() {
    for lease in [Lease::Kept, Lease::Fixed] {
        let server = EtcdServer::start();
        let far = Proxy::start_with(server.addr(), Protocol::Http2);
        let near = Proxy::start_with(far.addr(), Protocol::Http2);
        let one = hasty(through(&near), ms(1000)).await;
        let key = keys_of("a").into_bytes();
        near.hold_calls("Lease/LeaseGrant", |_| true);
        far.hold_requests_matching(move |sent| sent.windows(key.len()).any(|part| part == key));
        let claim = claim("a").with_lease(lease);
        assert!(soon(one.try_acquire(&claim)).await.is_err(), "no answer");
        assert!(!eventually(|| async { one.release(&claim).await.ok() }).await);
        let revoked = || async { counted(server.requests()).contains_key("Lease/LeaseRevoke") };
        eventually(|| async { revoked().await.then_some(()) }).await;
        near.deliver_held();
        near.until(SOON, |stats| stats.late_replies > 0).await;
        assert!(far.deliver_held() > 0);
        far.until(SOON, |stats| stats.late_replies > 0).await;
        assert!(stored(&server, "a").is_empty(), "{lease:?}");
    }
}

#[tokio::test]
async fn release_of_a_claim_whose_reply_was_lost_says_that_it_held() {
    let faulty = Faulty::new().await;
    let claim = claim("a");
    faulty.reply_lost(faulty.one.try_acquire(&claim)).await;
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, claim.nonce);
    assert!(faulty.release(&claim).await);
    faulty.assert_free().await;
    assert!(!faulty.release(&claim).await);
}

#[tokio::test]
async fn release_of_an_enqueue_whose_reply_was_lost_says_that_it_waited() {
    let faulty = Faulty::new().await;
    let (held, waiting) = (claim("a"), claim("a"));
    hold(&faulty.two, &held).await;
    faulty.reply_lost(faulty.one.acquire(&waiting)).await;
    assert_eq!(look(&faulty.two, "a").await.waiters.len(), 1);
    assert!(!faulty.release(&waiting).await);
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
}

#[tokio::test]
async fn pass_whose_reply_was_lost_is_undone_half_by_half() {
    let faulty = Faulty::new().await;
    let (held, next) = (claim("a"), claim("a"));
    hold(&faulty.one, &held).await;
    faulty.reply_lost(faulty.one.pass(&held, &next)).await;
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, next.nonce);
    assert!(!faulty.release(&held).await, "its half was done");
    assert!(faulty.release(&next).await);
    faulty.assert_free().await;
}

#[tokio::test]
async fn locks_on_the_same_lease_survive_a_burial() {
    let faulty = Faulty::new().await;
    let (kept, lost) = (claim("kept"), claim("a"));
    let grant = hold(&faulty.one, &kept).await;
    faulty.held_back(faulty.one.try_acquire(&lost)).await;
    assert!(!faulty.release(&lost).await);
    let renewed = renew(&faulty.one, &grant).await;
    assert!(matches!(renewed, Renewal::Extended(_)), "{renewed:?}");
    // And new ones are put with the new generation.
    let new = claim("b");
    hold(&faulty.one, &new).await;
    faulty.deliver().await;
    faulty.assert_free().await;
    assert_eq!(counted(faulty.server.leases()).len(), 1);
}

#[tokio::test]
async fn nonce_that_is_asked_for_again_is_settled_first() {
    let faulty = Faulty::new().await;
    let claim = claim("a");
    faulty.held_back(faulty.one.try_acquire(&claim)).await;
    let grant = eventually(|| async { faulty.one.try_acquire(&claim).await.ok() }).await;
    let grant = grant.expect("free");
    faulty.deliver().await;
    let state = look(&faulty.two, "a").await;
    assert_eq!(state.holders[0].token, grant.token());
    assert!(state.waiters.is_empty());
    assert!(faulty.release(&claim).await);
    faulty.assert_free().await;
}

#[tokio::test]
async fn place_that_is_replaced_before_its_answer_is_not_left_behind() {
    let faulty = Faulty::new().await;
    let (held, waiting, next) = (claim("a"), claim("a"), claim("a"));
    hold(&faulty.two, &held).await;
    faulty.proxy.hold_replies();
    let asking = acquire(&faulty.one, &waiting);
    eventually(|| async { (look(&faulty.two, "a").await.waiters.len() == 1).then_some(()) }).await;
    // Its caller goes while the answer is on its way.
    asking.abort();
    let replacing = tokio::spawn({
        let (one, waiting, next) = (Arc::clone(&faulty.one), waiting.clone(), next.clone());
        async move { one.replace(&waiting, &next).await }
    });
    faulty.proxy.release_replies();
    let replaced = soon(replacing).await.expect("no panic").expect("answered");
    assert!(matches!(replaced, Replaced::Now(Standing::Queued)));
    let waiters = look(&faulty.two, "a").await.waiters;
    assert_eq!(waiters.len(), 1);
    assert_eq!(waiters[0].nonce, next.nonce);
}

#[tokio::test]
async fn pass_of_what_was_lost_meanwhile_queues_the_next() {
    let faulty = Faulty::new().await;
    let (held, other, next) = (claim("a"), claim("a"), claim("a"));
    let grant = hold(&faulty.one, &held).await;
    assert!(
        soon(faulty.two.break_hold(&held.name, grant.token()))
            .await
            .expect("broken")
    );
    hold(&faulty.two, &other).await;
    let Passed {
        released,
        next: standing,
    } = soon(faulty.one.pass(&held, &next)).await.expect("passed");
    assert!(!released);
    assert!(matches!(standing, Standing::Queued), "{standing:?}");
}
