//! Something else at the other end: said clearly, and in time.

use std::net::Ipv4Addr;
use std::time::Duration;

use lock_conformance::servers::{EtcdServer, RedisServer, ZooKeeperServer};
use lock_core::{Connect, Error, ErrorKind};
use lock_etcd::{EtcdConfig, TlsConfig};
use tokio::net::TcpListener;

use crate::fixture::*;

const PASSWORD: &str = "correct horse";
const OP_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of connecting to what is no etcd, which comes within the operation timeout and gives no
/// password away.
async fn refusal(config: EtcdConfig) -> Error {
    let mut context = context();
    context.op_timeout = OP_TIMEOUT;
    let began = now();
    let error = soon(config.with_credentials("app", PASSWORD).connect(context)).await;
    let error = error.expect_err("this is no etcd");
    let took = now().saturating_since(began);
    assert!(took < OP_TIMEOUT, "{took:?}: {error}");
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
    error
}

fn at(port: u16) -> EtcdConfig {
    EtcdConfig::new([("127.0.0.1", port)])
}

#[tokio::test(flavor = "multi_thread")]
async fn server_of_another_kind_is_unavailable() {
    let (redis, zookeeper) = (RedisServer::start(), ZooKeeperServer::start());
    for port in [redis.port(), zookeeper.port()] {
        let error = refusal(at(port)).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn port_that_never_answers_is_unavailable() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let port = listener.as_ref().expect("listens").local_addr();
    let error = refusal(at(port.expect("bound").port())).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_on_one_side_only_is_unavailable() {
    let (plain, encrypted) = (EtcdServer::start(), EtcdServer::builder().tls().start());
    let ca = encrypted.ca_path().expect("encrypted");
    for config in [
        config(&plain).with_tls(TlsConfig::new().with_ca(ca)),
        config(&encrypted),
    ] {
        let error = refusal(config).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
