//! Requests that were sent and not answered: lost replies, dropped futures, copies that arrive late.

use std::future::Future;
use std::sync::Arc;

use lock_conformance::fault::{Proxy, Stats};
use lock_conformance::servers::RedisServer;
use lock_core::{Backend, Claim, ErrorKind, Passed, Renewal, Replaced, Result, Standing};

use crate::fixture::*;

struct Faulty {
    server: RedisServer,
    proxy: Proxy,
    /// Behind the proxy, and quick to give up.
    one: Arc<dyn Backend>,
    /// Straight to the server.
    two: Arc<dyn Backend>,
}

impl Faulty {
    async fn new() -> Self {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.addr());
        let faulty = Self {
            one: hasty(through(&proxy), ms(600)).await,
            two: client(&server).await,
            server,
            proxy,
        };
        faulty.teach().await;
        faulty
    }

    /// Runs every script once: the fault is to hit the request, not the answer that the server does
    /// not know the script yet.
    async fn teach(&self) {
        let (first, second, third) = (claim("lesson"), claim("lesson"), claim("lesson"));
        hold(&self.two, &first).await;
        soon(self.two.pass(&first, &second)).await.expect("passed");
        soon(self.two.replace(&second, &third))
            .await
            .expect("replaced");
        assert!(soon(self.two.release(&third)).await.expect("released"));
    }

    /// Runs `work` while its request, recognised by the nonce of `claim`, is held back.
    async fn held_back<T>(&self, claim: &Claim, work: impl Future<Output = Result<T>>) {
        self.proxy
            .hold_requests_matching(script_with(&claim.nonce.to_string()));
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

    async fn release(&self, claim: &Claim) -> bool {
        // The connection is being replaced; core repeats as well.
        eventually(|| async { self.one.release(claim).await.ok() }).await
    }

    async fn assert_free(&self) {
        let state = look(&self.two, "a").await;
        assert!(
            state.holders.is_empty() && state.waiters.is_empty(),
            "{state:?}"
        );
    }

    fn is_buried(&self, claim: &Claim) -> bool {
        self.server
            .cli(&["EXISTS", &tombstone(claim)])
            .expect("answers")
            == "1"
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
    faulty
        .held_back(&claim, faulty.one.try_acquire(&claim))
        .await;
    faulty.deliver().await;
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, claim.nonce);
}

#[tokio::test]
async fn late_copy_of_a_try_does_not_win_after_the_release() {
    let faulty = Faulty::new().await;
    let claim = claim("a");
    faulty
        .held_back(&claim, faulty.one.try_acquire(&claim))
        .await;
    assert!(!faulty.release(&claim).await);
    assert!(faulty.is_buried(&claim));
    faulty.deliver().await;
    faulty.assert_free().await;
}

#[tokio::test]
async fn request_that_was_not_sent_does_not_answer_for_the_one_that_was() {
    let faulty = Faulty::new().await;
    let mine = claim("a");
    faulty.held_back(&mine, faulty.one.try_acquire(&mine)).await;
    faulty.proxy.refuse();
    faulty.proxy.reset();
    eventually(|| async {
        let error = faulty.one.inspect(&mine.name).await.err()?;
        (error.kind() == ErrorKind::Unavailable).then_some(())
    })
    .await;
    let error = soon(faulty.one.try_acquire(&mine))
        .await
        .expect_err("no connection");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    faulty.proxy.accept();
    assert!(!faulty.release(&mine).await);
    assert!(faulty.is_buried(&mine), "the first copy is under way");
    faulty.deliver().await;
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_an_enqueue_neither_waits_nor_wins_after_the_release() {
    let faulty = Faulty::new().await;
    let (theirs, mine) = (claim("a"), claim("a"));
    hold(&faulty.two, &theirs).await;
    faulty.held_back(&mine, faulty.one.acquire(&mine)).await;
    assert!(!faulty.release(&mine).await);
    faulty.deliver().await;
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
    assert!(soon(faulty.two.release(&theirs)).await.expect("released"));
    faulty.assert_free().await;
}

#[tokio::test]
async fn late_copy_of_a_pass_releases_and_queues_nobody() {
    let faulty = Faulty::new().await;
    let (mine, next) = (claim("a"), claim("a"));
    hold(&faulty.one, &mine).await;
    faulty.held_back(&next, faulty.one.pass(&mine, &next)).await;
    assert!(faulty.release(&mine).await, "it had not arrived");
    assert!(!faulty.release(&next).await);
    let theirs = claim("a");
    hold(&faulty.two, &theirs).await;
    faulty.deliver().await;
    let state = look(&faulty.two, "a").await;
    assert_eq!(state.holders[0].nonce, theirs.nonce);
    assert!(state.waiters.is_empty());
}

#[tokio::test]
async fn late_copy_of_a_replace_puts_nobody_anywhere() {
    let faulty = Faulty::new().await;
    let (theirs, mine, next) = (claim("a"), claim("a"), claim("a"));
    hold(&faulty.two, &theirs).await;
    let waiting = queue(&faulty.one, &mine).await;
    waiting.abort();
    faulty
        .held_back(&next, faulty.one.replace(&mine, &next))
        .await;
    assert!(!faulty.release(&next).await);
    assert!(!faulty.release(&mine).await);
    faulty.deliver().await;
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
}

#[tokio::test]
async fn late_copy_of_a_replace_respects_the_tombstone_of_the_next_claim_alone() {
    let faulty = Faulty::new().await;
    let (theirs, mine, next) = (claim("a"), claim("a"), claim("a"));
    hold(&faulty.two, &theirs).await;
    let waiting = queue(&faulty.one, &mine).await;
    waiting.abort();
    faulty
        .held_back(&next, faulty.one.replace(&mine, &next))
        .await;
    // The old one still waits when the copy arrives.
    assert!(!faulty.release(&next).await);
    faulty.deliver().await;
    let waiters = look(&faulty.two, "a").await.waiters;
    assert!(
        waiters.iter().all(|waiter| waiter.nonce != next.nonce),
        "{waiters:?}"
    );
    faulty.release(&mine).await;
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
}

#[tokio::test]
async fn late_copy_of_a_place_renewal_leaves_the_hold_that_came_of_it_alone() {
    let faulty = Faulty::new().await;
    let (held, waiting) = (claim("a"), claim("a"));
    hold(&faulty.two, &held).await;
    let waits = queue(&faulty.one, &waiting).await;
    let accepted = faulty.proxy.stats().accepted;
    faulty
        .proxy
        .hold_requests_matching(script_with(&waiting.nonce.to_string()));
    // Its place is renewed by itself; unanswered, the client goes to another connection.
    let moved = |stats: &Stats| stats.held_requests > 0 && stats.accepted > accepted;
    faulty
        .proxy
        .until(SOON, |stats| moved(stats) && stats.open == 1)
        .await;
    assert!(soon(faulty.two.release(&held)).await.expect("released"));
    let grant = granted(waits).await;
    assert!(matches!(
        renew(&faulty.one, &grant).await,
        Renewal::Extended(_)
    ));
    faulty.deliver().await;
    let state = look(&faulty.two, "a").await;
    let [holder] = &state.holders[..] else {
        panic!("one holder: {state:?}");
    };
    assert_eq!((holder.nonce, holder.token), (waiting.nonce, grant.token()));
    // Far more than the claim window, which is all that a place renewal gives.
    assert!(holder.remaining > Some(TTL / 2), "{holder:?}");
    assert!(state.waiters.is_empty(), "{state:?}");
}

#[tokio::test]
async fn release_answers_whether_a_lost_try_had_won() {
    let faulty = Faulty::new().await;
    let claim = claim("a");
    faulty.reply_lost(faulty.one.try_acquire(&claim)).await;
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, claim.nonce);
    assert!(faulty.release(&claim).await, "it had won");
    faulty.assert_free().await;
    assert!(faulty.is_buried(&claim));
}

#[tokio::test]
async fn lost_answer_of_a_pass_leaves_nothing_after_both_releases() {
    let faulty = Faulty::new().await;
    let (mine, next) = (claim("a"), claim("a"));
    hold(&faulty.one, &mine).await;
    faulty.reply_lost(faulty.one.pass(&mine, &next)).await;
    assert!(!faulty.release(&mine).await, "it was executed");
    assert!(faulty.release(&next).await, "it was executed");
    faulty.assert_free().await;
}

#[tokio::test]
async fn lost_answer_of_a_replace_leaves_nothing_after_both_releases() {
    let faulty = Faulty::new().await;
    let (theirs, mine, next) = (claim("a"), claim("a"), claim("a"));
    hold(&faulty.two, &theirs).await;
    let waiting = queue(&faulty.one, &mine).await;
    waiting.abort();
    faulty.reply_lost(faulty.one.replace(&mine, &next)).await;
    assert_eq!(look(&faulty.two, "a").await.waiters[0].nonce, next.nonce);
    assert!(!faulty.release(&mine).await);
    assert!(!faulty.release(&next).await);
    assert!(look(&faulty.two, "a").await.waiters.is_empty());
}

#[tokio::test]
async fn lost_answer_of_a_release_is_repeated_without_harm() {
    let faulty = Faulty::new().await;
    let (mine, theirs) = (claim("a"), claim("a"));
    hold(&faulty.one, &mine).await;
    faulty.reply_lost(faulty.one.release(&mine)).await;
    hold(&faulty.two, &theirs).await;
    assert!(!faulty.release(&mine).await);
    assert_eq!(look(&faulty.two, "a").await.holders[0].nonce, theirs.nonce);
}

#[tokio::test]
async fn dropped_acquire_counts_as_unanswered() {
    let faulty = Faulty::new().await;
    let mine = claim("a");
    faulty.proxy.hold_replies();
    let asking = acquire(&faulty.one, &mine);
    faulty
        .proxy
        .until(SOON, |stats| stats.held_replies > 0)
        .await;
    asking.abort();
    assert!(asking.await.is_err());
    faulty.proxy.release_replies();
    assert!(faulty.release(&mine).await, "it had won");
    assert!(faulty.is_buried(&mine));
    faulty.assert_free().await;
}

#[tokio::test]
async fn answered_requests_need_no_tombstone() {
    let faulty = Faulty::new().await;
    let (theirs, mine) = (claim("a"), claim("a"));
    hold(&faulty.two, &theirs).await;
    let waiting = queue(&faulty.one, &mine).await;
    waiting.abort();
    assert!(!faulty.release(&mine).await);
    assert!(!faulty.is_buried(&mine));
    assert!(soon(faulty.two.release(&theirs)).await.expect("released"));
    assert!(!faulty.is_buried(&theirs));
}

#[tokio::test]
async fn grant_pushed_to_a_claim_that_is_being_released_goes_on_to_the_next() {
    let faulty = Faulty::new().await;
    let (theirs, mine, last) = (claim("a"), claim("a"), claim("a"));
    hold(&faulty.two, &theirs).await;
    let waiting = queue(&faulty.one, &mine).await;
    let last_waits = queue(&faulty.two, &last).await;
    waiting.abort();
    // The hand-off crosses the release on the way.
    assert!(soon(faulty.two.release(&theirs)).await.expect("released"));
    assert!(faulty.release(&mine).await);
    granted(last_waits).await;
}

#[tokio::test]
async fn acquire_of_a_released_claim_is_refused_when_it_was_buried() {
    let faulty = Faulty::new().await;
    let mine = claim("a");
    faulty.reply_lost(faulty.one.try_acquire(&mine)).await;
    faulty.release(&mine).await;
    let error = soon(faulty.one.try_acquire(&mine))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = soon(faulty.one.acquire(&mine)).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    faulty.assert_free().await;
}

#[tokio::test]
async fn pass_and_replace_keep_working_after_an_unanswered_predecessor() {
    let faulty = Faulty::new().await;
    let (mine, next, last) = (claim("a"), claim("a"), claim("a"));
    faulty.reply_lost(faulty.one.try_acquire(&mine)).await;
    // Core has found out by now that it holds, from a retry with the same nonce.
    let found = eventually(|| async { faulty.one.try_acquire(&mine).await.ok().flatten() }).await;
    assert_eq!(found.claim().nonce, mine.nonce);
    let Passed {
        released: true,
        next: Standing::Granted(_),
        ..
    } = soon(faulty.one.pass(&mine, &next)).await.expect("passed")
    else {
        panic!("granted")
    };
    assert!(
        faulty.is_buried(&mine),
        "a copy of its request may still be under way"
    );
    let replaced = soon(faulty.one.replace(&next, &last))
        .await
        .expect("replaced");
    assert!(matches!(replaced, Replaced::Now(Standing::Granted(_))));
    assert!(faulty.release(&last).await);
    faulty.assert_free().await;
}
