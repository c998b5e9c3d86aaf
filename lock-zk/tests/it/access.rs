//! Rights: the least that a user needs, and what is refused.

use std::sync::atomic::{AtomicU32, Ordering};

use lock_conformance::fault::jute::request;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, ErrorKind};
use lock_zk::NodeAcl;
use lock_zk::zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Permission};

use crate::fixture::{
    ROOT, acquire, claim, config, config_of, connect, eventually, granted, hold, lock_nodes, queue,
    raw, refused, soon,
};

/// A root on which the user `app` has these rights, made by somebody else.
async fn root_with(server: &ZooKeeperServer, rights: Permission) -> Client {
    let admin = raw(server).await;
    soon(admin.auth("digest", b"admin:admin"))
        .await
        .expect("logged in");
    // The digest of app:secret, as `DigestAuthenticationProvider` computes it.
    let app = AuthId::new("digest", "app:F6Y+U5gIoCbNNoLQExmvxRFeatA=");
    let acls = [
        Acl::new(rights, app),
        Acl::new(Permission::ALL, AuthId::authed()),
    ];
    let options = CreateMode::Persistent.with_acls(Acls::new(&acls));
    soon(admin.create(ROOT, &[], &options)).await.expect("made");
    admin
}

#[tokio::test]
async fn create_delete_read_and_write_on_the_root_are_enough_for_everything() {
    let server = ZooKeeperServer::start();
    let rights = Permission::CREATE | Permission::DELETE | Permission::READ | Permission::WRITE;
    let _admin = root_with(&server, rights).await;
    let app = || connect(config(&server).with_credentials("app", "secret"));
    let (a, b) = (app().await, app().await);
    let (one, two) = (claim("n"), claim("n"));
    let grant = hold(&a, &one).await;
    let waiting = queue(&b, &two).await;
    assert_eq!(
        soon(b.list("", Default::default()))
            .await
            .expect("listed")
            .names
            .len(),
        1
    );
    assert!(
        soon(b.break_hold(&one.name, grant.token()))
            .await
            .expect("answered")
    );
    let grant = granted(waiting).await;
    assert!(soon(b.renew(&[&grant])).await.remove(0).is_ok());
    assert!(soon(b.release(&two)).await.expect("answered"));
    soon(a.close()).await.expect("closed");
    soon(b.close()).await.expect("closed");
}

#[tokio::test]
async fn wrong_password_and_missing_rights_are_denied() {
    let server = ZooKeeperServer::start();
    let _admin = root_with(&server, Permission::READ).await;
    assert_eq!(refused(config(&server)).await, ErrorKind::Denied);
    let wrong = config(&server).with_credentials("app", "wrong");
    assert_eq!(refused(wrong).await, ErrorKind::Denied);
    let read_only = config(&server).with_credentials("app", "secret");
    assert_eq!(refused(read_only).await, ErrorKind::Denied);
}

#[tokio::test]
async fn nodes_are_the_creators_own_with_credentials_and_everybodys_without() {
    let server = ZooKeeperServer::start();
    let app = connect(config(&server).with_credentials("app", "secret")).await;
    let mine = claim("n");
    hold(&app, &mine).await;
    assert_eq!(refused(config(&server)).await, ErrorKind::Denied);
    let root = config(&server).with_chroot("/open");
    let open = root
        .clone()
        .with_credentials("app", "secret")
        .with_acl(NodeAcl::Open);
    let open = connect(open).await;
    let one = claim("n");
    let grant = hold(&open, &one).await;
    let other = connect(root).await;
    assert!(
        soon(other.break_hold(&one.name, grant.token()))
            .await
            .expect("answered")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_may_make_no_parent_joins_one_that_another_has_made_just_now() {
    let server = ZooKeeperServer::start();
    let admin = raw(&server).await;
    soon(admin.auth("digest", b"admin:admin"))
        .await
        .expect("logged in");
    let everybody = Acl::new(Permission::READ, AuthId::anyone());
    let acls = [everybody, Acl::new(Permission::ALL, AuthId::authed())];
    for path in ["", "/c"] {
        server.create(&format!("{ROOT}{path}"), &[]).expect("made");
    }
    let options = CreateMode::Persistent.with_acls(Acls::new(&acls));
    soon(admin.create(&format!("{ROOT}/l"), &[], &options))
        .await
        .expect("made");
    let full = config(&server).with_credentials("admin", "admin");
    let full = connect(full.with_acl(NodeAcl::Open)).await;
    let proxy = Proxy::start_with(server.addr(), Protocol::Jute);
    let least = connect(config_of(&[proxy.addr().port()])).await;
    // What it asks when it has heard that there is no parent.
    let parents = AtomicU32::new(0);
    proxy.hold_requests_matching(move |message| {
        let parent = request(message).is_some_and(|asked| asked.path.ends_with("/l/n"));
        parent && parents.fetch_add(1, Ordering::Relaxed) == 2
    });
    let (one, two) = (claim("n"), claim("n"));
    let waiting = acquire(&least, &two);
    eventually(|| async { (proxy.stats().held_requests > 0).then_some(()) }).await;
    hold(&full, &one).await;
    assert!(proxy.deliver_held() > 0);
    eventually(|| async { (lock_nodes(&server).len() == 2).then_some(()) }).await;
    assert!(soon(full.release(&one)).await.expect("answered"));
    granted(waiting).await;
    assert!(soon(least.release(&two)).await.expect("answered"));
}
