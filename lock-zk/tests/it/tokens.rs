//! Tokens: the transaction that made the node, lifted by the fence base.

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, ErrorKind};
use lock_zk::{Fence, ZkBackend};

use crate::fixture::{
    ROOT, claim, client, config, context, eventually, granted, hold, lock_nodes, look, queue, raw,
    refused, soon,
};

#[tokio::test]
async fn token_is_the_transaction_that_made_the_node() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    let one = claim("n");
    let grant = hold(&a, &one).await;
    let fence: &Fence = grant.record().expect("ours");
    assert_eq!(
        u64::try_from(fence.czxid()).expect("positive"),
        grant.token().get()
    );
    let (_, stat) = soon(raw(&server).await.get_data(fence.path()))
        .await
        .expect("is there");
    assert_eq!(stat.czxid, fence.czxid());
    assert_eq!(stat.ephemeral_owner, a.session_id());
    assert_eq!(look(&a, "n").await.holders[0].token, grant.token());
}

#[tokio::test]
async fn base_is_kept_and_lifts_the_tokens_of_clients_that_do_not_know_it() {
    let server = ZooKeeperServer::start();
    let plain = client(&server).await;
    let first = claim("n");
    let small = hold(&plain, &first).await;
    // One that waits already is granted a lifted token too: it is granted after the others.
    let waits = claim("n");
    let waiting = queue(&plain, &waits).await;
    let base = 1 << 40;
    let mut lifted = context();
    lifted.fence_base = base;
    let lifted = ZkBackend::connect(config(&server), lifted)
        .await
        .expect("connects");
    assert!(soon(plain.release(&first)).await.expect("answered"));
    let large = granted(waiting).await;
    assert!(small.token().get() < base && large.token().get() > base);
    assert!(soon(plain.release(&waits)).await.expect("answered"));
    soon(lifted.close()).await.expect("closed");
    // A smaller base lowers nothing, and neither does none.
    let mut lower = context();
    lower.fence_base = 1 << 20;
    for context in [lower, context()] {
        let client = ZkBackend::connect(config(&server), context)
            .await
            .expect("connects");
        let claim = claim("n");
        let grant = soon(client.try_acquire(&claim))
            .await
            .expect("answered")
            .expect("free");
        assert!(grant.token() > large.token());
        assert!(soon(client.release(&claim)).await.expect("answered"));
    }
}

#[tokio::test]
async fn tokens_grow_although_the_parent_is_made_anew_and_its_counter_with_it() {
    let server = ZooKeeperServer::start();
    let a = client(&server).await;
    let mut last = None;
    for _ in 0..3 {
        let claim = claim("n");
        let grant = hold(&a, &claim).await;
        assert!(
            lock_nodes(&server)[0].ends_with("-0000000000"),
            "the counter begins anew"
        );
        assert!(Some(grant.token()) > last);
        last = Some(grant.token());
        assert!(soon(a.release(&claim)).await.expect("answered"));
        // Whoever is faster, this or a cleaner.
        let parent = format!("{ROOT}/l/n");
        server.delete(&parent).expect("empty");
    }
}

#[tokio::test]
async fn base_that_is_no_number_is_not_taken_for_silence() {
    let server = ZooKeeperServer::start();
    for (path, data) in [("", &b""[..]), ("/base", b"many")] {
        server.create(&format!("{ROOT}{path}"), data).expect("made");
    }
    assert_eq!(refused(config(&server)).await, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn base_that_somebody_removes_is_put_back_by_those_who_know_it() {
    let server = ZooKeeperServer::start();
    let mut context = context();
    context.fence_base = 1 << 40;
    let lifted = ZkBackend::connect(config(&server), context)
        .await
        .expect("connects");
    let base = format!("{ROOT}/base");
    let mut last = 0;
    for all in [false, true] {
        let one = claim("n");
        let large = soon(lifted.acquire(&one)).await.expect("granted");
        assert!(large.token().get() > last);
        assert!(soon(lifted.release(&one)).await.expect("answered"));
        match all {
            false => server.delete(&base),
            true => server.wipe(),
        }
        .expect("removed");
        eventually(|| async { server.nodes(ROOT).ok()?.contains(&base).then_some(()) }).await;
        let plain = client(&server).await;
        let two = claim("n");
        last = hold(&plain, &two).await.token().get();
        assert!(last > large.token().get(), "{last} after {}", large.token());
        assert!(soon(plain.release(&two)).await.expect("answered"));
    }
}
