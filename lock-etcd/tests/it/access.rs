//! Users, rights, tokens of theirs, and TLS.

use futures_util::StreamExt;
use lock_conformance::servers::EtcdServer;
use lock_core::{Connect, ErrorKind, Renewal};
use lock_etcd::{EtcdConfig, TlsConfig};

use crate::fixture::*;

const PASSWORD: &str = "correct horse";

/// A server with users, one of which may touch the keys below `distlock/` only.
fn guarded() -> EtcdServer {
    let server = EtcdServer::start();
    counted(server.add_user("app", PASSWORD, "distlock/"));
    counted(server.authenticate("root's own"));
    server
}

fn app(server: &EtcdServer) -> EtcdConfig {
    config(server).with_credentials("app", PASSWORD)
}

#[tokio::test]
async fn right_to_the_prefix_is_all_that_is_needed() {
    let server = guarded();
    let mut context = context();
    context.fence_base = 1_000_000;
    let one = app(&server).connect(context).await.expect("connects");
    let two = connect(app(&server)).await;
    let mut events = two.events();
    let (held, waiting, next) = (claim("a"), claim("a"), claim("a"));
    let grant = hold(&one, &held).await;
    assert!(grant.token().get() > 1_000_000);
    let task = queue(&two, &waiting).await;
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
    soon(one.pass(&held, &next)).await.expect("passed");
    let second = granted(task).await;
    assert!(
        soon(one.break_hold(&held.name, second.token()))
            .await
            .expect("broken")
    );
    assert!(soon(events.next()).await.is_some());
    let page = soon(one.list("", lock_core::Cursor::default())).await;
    assert_eq!(page.expect("listed").names, [name("a")]);
    granted(acquire(&one, &next)).await;
    assert!(soon(one.release(&next)).await.expect("released"));
    soon(one.close())
        .await
        .expect("leases are revoked without a right of their own");
}

#[tokio::test]
async fn other_keys_are_denied_when_connecting() {
    let server = guarded();
    let elsewhere = app(&server).with_prefix("elsewhere");
    let error = soon(elsewhere.connect(context()))
        .await
        .expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_denied() {
    let server = guarded();
    for config in [
        config(&server),
        config(&server).with_credentials("app", "wrong battery"),
        config(&server).with_credentials("nobody", PASSWORD),
    ] {
        let error = soon(config.connect(context())).await.expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!format!("{error:?}").contains("battery"));
    }
}

#[tokio::test]
async fn client_logs_in_again_when_the_server_has_forgotten_its_token() {
    let server = guarded();
    let one = connect(app(&server)).await;
    let mut events = one.events();
    let first = claim("a");
    let grant = hold(&one, &first).await;
    // Tokens are in the server's memory only.
    server.kill();
    server.restart();
    soon(events.next()).await;
    let renewed = eventually(|| async { one.renew(&[&grant]).await.remove(0).ok() }).await;
    assert!(matches!(renewed, Renewal::Extended(_)), "{renewed:?}");
    assert!(soon(one.release(&first)).await.expect("released"));
}

#[tokio::test]
async fn tokens_that_end_while_the_connection_stays_cost_no_hold_and_no_waiter() {
    let server = guarded();
    let (one, two) = (connect(app(&server)).await, connect(app(&server)).await);
    let (held, waiting) = (claim("a"), claim("a"));
    let grant = hold(&one, &held).await;
    let first = queue(&two, &waiting).await;
    let streams = counted(server.watch_streams());
    // The server forgets all tokens, as it does with each of them after a while.
    counted(server.cli(&["auth", "disable"]));
    counted(server.cli(&["auth", "enable"]));
    // A watch of its own for each, on a stream that was opened with a token of before.
    let (other, behind) = (claim("b"), claim("b"));
    let renewed = eventually(|| async { one.renew(&[&grant]).await.remove(0).ok() }).await;
    assert!(matches!(renewed, Renewal::Extended(_)), "{renewed:?}");
    hold(&one, &other).await;
    let second = queue(&two, &behind).await;
    for held in [&held, &other] {
        assert!(soon(one.release(held)).await.expect("released"));
    }
    granted(first).await;
    granted(second).await;
    eventually(|| async { (counted(server.watch_streams()) == streams).then_some(()) }).await;
    for held in [&waiting, &behind] {
        assert!(soon(two.release(held)).await.expect("released"));
    }
}

#[tokio::test]
async fn client_goes_on_when_the_list_of_users_changes() {
    let server = guarded();
    let one = connect(app(&server)).await;
    for round in 0..3 {
        let claim = claim("a");
        hold(&one, &claim).await;
        counted(server.add_user(&format!("other{round}"), PASSWORD, "other/"));
        assert!(soon(one.release(&claim)).await.expect("released"));
    }
}

#[tokio::test]
async fn encrypted_connection_is_checked() {
    let server = EtcdServer::builder().tls().start();
    let ca = server.ca_path().expect("encrypted");
    let trusting = config(&server).with_tls(TlsConfig::new().with_ca(ca));
    let one = connect(trusting).await;
    let claim = claim("a");
    hold(&one, &claim).await;
    assert!(soon(one.release(&claim)).await.expect("released"));

    let distrusting = config(&server).with_tls(TlsConfig::new());
    let error = soon(distrusting.connect(context()))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let plain = soon(config(&server).connect(context())).await;
    let error = plain.expect_err("it speaks TLS only");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn prefix_among_the_locks_of_another_is_refused() {
    let server = EtcdServer::start();
    let outer = connect(config(&server).with_prefix("team")).await;
    let inner = config(&server).with_prefix("team/l/blue");
    if let Ok(inner) = soon(inner.connect(context())).await {
        hold(&inner, &claim("a")).await;
        let tried = soon(outer.try_acquire(&claim("blue"))).await;
        panic!("{tried:?} of a lock that nobody has");
    }
}
