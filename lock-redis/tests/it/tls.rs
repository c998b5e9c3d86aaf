//! Encrypted connections.
#![cfg(feature = "tls")]

use lock_conformance::servers::RedisServer;
use lock_core::{Backend, Connect, ErrorKind, Registry, Result};
use lock_redis::register;
use std::sync::Arc;

use crate::fixture::*;

async fn connect_url(url: &str) -> Result<Arc<dyn Backend>> {
    let (connect, _) = register(Registry::new()).read(url)?;
    soon(connect.connect(context())).await
}

fn url(server: &RedisServer, ca: &RedisServer) -> String {
    let ca = ca.ca_path().expect("an authority").display().to_string();
    format!("{}/?ca={ca}", server.tls_url().expect("a TLS port"))
}

#[tokio::test]
async fn locks_work_over_tls_with_the_right_authority() {
    let server = RedisServer::builder().tls().start();
    let (one, two) = (
        connect_url(&url(&server, &server)).await.expect("connects"),
        connect_url(&url(&server, &server).replace("rediss://", "valkeys://"))
            .await
            .expect("connects"),
    );
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    assert!(soon(one.release(&first)).await.expect("released"));
    granted(waits).await;
    // And again after a broken connection.
    server.restart();
    let third = claim("b");
    eventually(|| async { two.try_acquire(&third).await.ok().flatten() }).await;
}

#[tokio::test]
async fn server_of_another_authority_is_not_believed() {
    let server = RedisServer::builder().tls().start();
    let other = RedisServer::builder().tls().start();
    let error = connect_url(&url(&server, &other))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    // Nor by the system's authorities.
    let bare = server.tls_url().expect("a TLS port");
    let error = connect_url(&bare).await.expect_err("refused");
    assert!(
        matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid),
        "{error:?}"
    );
}

#[tokio::test]
async fn plain_port_does_not_pass_for_an_encrypted_one() {
    let server = RedisServer::builder().tls().start();
    let url = url(&server, &server);
    let tls_port = server.tls_port().expect("a TLS port").to_string();
    let error = connect_url(&url.replace(&tls_port, &server.port().to_string()))
        .await
        .expect_err("refused");
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied),
        "{error:?}"
    );
}

#[tokio::test]
async fn files_that_do_not_read_are_named() {
    let server = RedisServer::builder().tls().start();
    let missing = format!(
        "{}/?ca=/nowhere/ca.pem",
        server.tls_url().expect("a TLS port")
    );
    let error = connect_url(&missing).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
