//! The fence: a stale holder's write fails in the server.

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{ClientOptions, ErrorKind, Locks, LossReason};
use lock_zk::Fence;
use lock_zk::zookeeper_client::{Acls, CheckWriteError, Client, CreateMode, Error};

use crate::fixture::{ROOT, config, raw, soon};

async fn write(
    fence: &Fence,
    client: &Client,
    path: &str,
    data: &[u8],
) -> Result<(), CheckWriteError> {
    let mut write = fence.writer(client).expect("the client sees the lock");
    write.add_set_data(path, data, None).expect("a good path");
    soon(write.commit()).await.map(drop)
}

async fn account(server: &ZooKeeperServer) -> Client {
    let client = raw(server).await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    soon(client.create("/account", b"0", &options))
        .await
        .expect("made");
    client
}

async fn locks(server: &ZooKeeperServer) -> Locks {
    let opening = Locks::open(config(server), ClientOptions::default());
    soon(opening).await.expect("opens")
}

#[tokio::test]
async fn write_of_a_holder_passes_and_that_of_a_stale_one_is_refused() {
    let server = ZooKeeperServer::start();
    let client = account(&server).await;
    let (a, b) = (locks(&server).await, locks(&server).await);
    let old = soon(a.mutex("account").acquire()).await.expect("granted");
    let stale = Fence::of(&old).expect("a lock of ZooKeeper");
    write(&stale, &client, "/account", b"1")
        .await
        .expect("the holder writes");
    // The old holder does not look at its guard any more, as one does not that is paused.
    assert!(
        soon(b.break_hold("account", old.token()))
            .await
            .expect("answered")
    );
    let new = soon(b.mutex("account").acquire()).await.expect("granted");
    let fence = Fence::of(&new).expect("a lock of ZooKeeper");
    write(&fence, &client, "/account", b"2")
        .await
        .expect("the holder writes");
    let late = write(&stale, &client, "/account", b"late")
        .await
        .expect_err("stale");
    assert_eq!(
        late,
        CheckWriteError::CheckFailed {
            source: Error::NoNode
        }
    );
    let (data, _) = soon(client.get_data("/account")).await.expect("read");
    assert_eq!(data, b"2");
    assert!(matches!(soon(old.lost()).await, LossReason::Broken));
    soon(new.release()).await.expect("released");
    write(&fence, &client, "/account", b"late")
        .await
        .expect_err("stale after a release");
}

#[tokio::test]
async fn client_with_another_root_is_told_so() {
    let server = ZooKeeperServer::start();
    let client = account(&server).await;
    let locks = locks(&server).await;
    let guard = soon(locks.mutex("n").acquire()).await.expect("granted");
    let fence = Fence::of(&guard).expect("a lock of ZooKeeper");
    let inside = client.clone().chroot(ROOT).expect("a good path");
    assert!(fence.writer(&inside).is_ok());
    for other in ["/account", "/i", "/its"] {
        let other = client.clone().chroot(other).expect("a good path");
        let error = fence.writer(&other).err().expect("cannot see the lock");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn lock_of_another_backend_has_no_fence_here() {
    let locks = Locks::open(lock_core::MemoryStore::new(), ClientOptions::default());
    let locks = soon(locks).await.expect("opens");
    let guard = soon(locks.mutex("n").acquire()).await.expect("granted");
    assert!(Fence::of(&guard).is_none());
}
