//! Something else at the other end: said clearly, and in time.

use std::net::Ipv4Addr;
use std::time::Duration;

use lock_conformance::servers::{EtcdServer, RedisServer};
use lock_core::{Connect, Error, ErrorKind};
use lock_zk::ZkConfig;
use tokio::net::TcpListener;

use crate::fixture::{config_of, context, now, soon};

const PASSWORD: &str = "correct horse";
const OP_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of connecting to what is no ZooKeeper, which comes within the operation timeout and gives no
/// password away.
async fn refusal(config: ZkConfig) -> Error {
    let mut context = context();
    context.op_timeout = OP_TIMEOUT;
    let began = now();
    let error = soon(config.with_credentials("app", PASSWORD).connect(context)).await;
    let error = error.expect_err("this is no ZooKeeper");
    let took = now().saturating_since(began);
    assert!(took < OP_TIMEOUT, "{took:?}: {error}");
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn server_of_another_kind_is_unavailable() {
    let (redis, etcd) = (RedisServer::start(), EtcdServer::start());
    for port in [redis.port(), etcd.port()] {
        let error = refusal(config_of(&[port])).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn port_that_never_answers_is_unavailable() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let port = listener.as_ref().expect("listens").local_addr();
    let port = port.expect("bound").port();
    let error = refusal(config_of(&[port])).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}
