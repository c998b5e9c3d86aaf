//! Futures that are dropped after any number of polls, and released as core does it: nothing is left.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, Claim, Lease, Reach};
use lock_zk::ZkBackend;

use crate::fixture::{
    SESSION, claim, claim_for, client, eventually, hold, lock_nodes, queue, quiet_server, soon,
};

/// More polls than any operation takes.
const MANY: usize = 64;

struct Stage {
    server: ZooKeeperServer,
    one: Arc<ZkBackend>,
    two: Arc<ZkBackend>,
    /// Those of the clients themselves.
    watches: u64,
}

impl Stage {
    async fn new() -> Self {
        let server = quiet_server();
        let (one, two) = (client(&server).await, client(&server).await);
        Self {
            watches: server.watches().expect("counted"),
            server,
            one,
            two,
        }
    }

    async fn released(&self, claims: &[&Claim]) {
        for claim in claims {
            soon(self.one.release(claim)).await.expect("released");
        }
        assert_eq!(self.one.registered_claims(), 0);
        let left = lock_nodes(&self.server);
        assert!(left.is_empty(), "{left:?}");
        // The client library takes watches back in the background.
        eventually(|| async {
            (self.server.watches().expect("counted") == self.watches).then_some(())
        })
        .await;
    }
}

/// What comes of `work` when it is dropped after so many polls; `None` when it was not done by then.
async fn polled<F: Future>(work: F, polls: usize) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = polls;
    let polling = std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    soon(polling).await
}

/// Runs `once` with one poll more each time, until it says that its work was done by then.
async fn with_ever_more_polls(once: impl AsyncFn(usize) -> bool) {
    let (mut polls, mut at_once) = (0, 0);
    while polls < MANY {
        if !once(polls).await {
            polls += 1;
        } else if polls > 1 {
            return;
        } else {
            // A thread that is held up between sending and waiting meets the answer in its first poll.
            at_once += 1;
            assert!(at_once < MANY, "never dropped on its way");
        }
    }
    panic!("not done after {MANY} polls");
}

/// A claim that is renewed, and one that is not.
fn both(name: &str) -> [Claim; 2] {
    [
        claim(name),
        claim_for(name, SESSION).with_lease(Lease::Fixed),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn try_that_is_dropped_at_any_poll_leaves_nothing() {
    let stage = Stage::new().await;
    for kind in 0..2 {
        with_ever_more_polls(async |polls| {
            let claim = &both("n")[kind];
            let tried = polled(stage.one.try_acquire(claim), polls).await;
            stage.released(&[claim]).await;
            tried.is_some()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_that_is_dropped_at_any_poll_leaves_nothing() {
    let stage = Stage::new().await;
    for kind in 0..2 {
        with_ever_more_polls(async |polls| {
            let (held, waiting) = (claim("n"), &both("n")[kind]);
            hold(&stage.two, &held).await;
            // The lock is free as soon as the claim waits, so the wait comes to its end.
            let freeing = async {
                eventually(|| async { (waiting.progress.reach() == Reach::Queued).then_some(()) })
                    .await;
                soon(stage.two.release(&held)).await
            };
            let mut waited = pin!(polled(stage.one.acquire(waiting), polls));
            let done = tokio::select! {
                done = &mut waited => done,
                freed = freeing => {
                    freed.expect("released");
                    waited.await
                }
            };
            soon(stage.two.release(&held)).await.expect("released");
            stage.released(&[waiting]).await;
            done.is_some()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pass_that_is_dropped_at_any_poll_leaves_nothing() {
    let stage = Stage::new().await;
    with_ever_more_polls(async |polls| {
        let (held, next) = (claim("n"), claim("n"));
        soon(stage.one.acquire(&held)).await.expect("granted");
        let passed = polled(stage.one.pass(&held, &next), polls).await;
        stage.released(&[&held, &next]).await;
        passed.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacement_that_is_dropped_at_any_poll_leaves_nothing() {
    let stage = Stage::new().await;
    with_ever_more_polls(async |polls| {
        let (held, waiting, next) = (claim("n"), claim("n"), claim("n"));
        hold(&stage.two, &held).await;
        queue(&stage.one, &waiting).await.abort();
        let replaced = polled(stage.one.replace(&waiting, &next), polls).await;
        for claim in [&waiting, &next] {
            soon(stage.one.release(claim)).await.expect("released");
        }
        assert!(soon(stage.two.release(&held)).await.expect("released"));
        stage.released(&[]).await;
        replaced.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn release_that_is_dropped_at_any_poll_is_done_by_the_next_one() {
    let stage = Stage::new().await;
    with_ever_more_polls(async |polls| {
        let held = claim("n");
        soon(stage.one.acquire(&held)).await.expect("granted");
        let released = polled(stage.one.release(&held), polls).await;
        stage.released(&[&held]).await;
        released.is_some()
    })
    .await;
}
