//! Data in the same etcd, written under a lock.

use lock_conformance::servers::EtcdServer;
use lock_core::{ClientOptions, Locks};
use lock_etcd::Fence;
use lock_etcd::etcd_client::{Client, Txn, TxnOp};

use crate::fixture::*;

/// Writes `value`, as long as `fence` holds; whether it was written.
async fn write(server: &EtcdServer, fence: &Fence, value: &str) -> bool {
    let mut etcd = Client::connect(server.endpoints(), None)
        .await
        .expect("connects");
    let txn = Txn::new()
        .when([fence.held()])
        .and_then([TxnOp::put("stock", value, None)]);
    soon(etcd.txn(txn)).await.expect("answered").succeeded()
}

#[tokio::test]
async fn server_refuses_a_stale_holder_and_serves_the_next() {
    let server = EtcdServer::start();
    let options = ClientOptions::default();
    let one = Locks::open(config(&server), options.clone());
    let two = Locks::open(config(&server), options);
    let (one, two) = (one.await.expect("opens"), two.await.expect("opens"));
    let ttl = ms(1000);
    let old = one.mutex("a").ttl(ttl).fixed().acquire().await;
    let old = old.expect("granted");
    let stale = Fence::of(&old).expect("in etcd").clone();
    assert!(write(&server, &stale, "first").await);
    // The holder sleeps through the end of its lease, and wakes up after the next one has the lock.
    let new = soon(two.mutex("a").acquire()).await.expect("granted");
    let fresh = Fence::of(&new).expect("in etcd");
    assert!(fresh.create_revision() > stale.create_revision());
    assert!(write(&server, fresh, "second").await);
    assert!(
        !write(&server, &stale, "third").await,
        "a stale holder wrote"
    );
    let stored = counted(server.cli(&["get", "stock", "--print-value-only"]));
    assert_eq!(stored.trim(), "second");
}

#[tokio::test]
async fn key_that_was_used_again_does_not_pass_for_the_old_hold() {
    let server = EtcdServer::start();
    let one = client(&server).await;
    let (first, second) = (claim("a"), claim("a"));
    let grant = hold(&one, &first).await;
    let stale = Fence::of_grant(&grant).expect("in etcd").clone();
    assert!(soon(one.release(&first)).await.expect("released"));
    assert!(!write(&server, &stale, "after the release").await);
    let grant = hold(&one, &second).await;
    let fresh = Fence::of_grant(&grant).expect("in etcd");
    assert_eq!(fresh.key(), stale.key(), "the same key");
    assert!(!write(&server, &stale, "in the next hold").await);
    assert!(write(&server, fresh, "the next hold").await);
}
