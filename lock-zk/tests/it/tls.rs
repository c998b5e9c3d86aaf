//! Encrypted connections.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, Connect, ErrorKind, Registry, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::fixture::{claim, context, eventually, soon};

/// The parts of Netty, which the server needs for TLS; Debian's class path lacks some.
const NETTY: [&str; 6] = [
    "buffer",
    "codec",
    "common",
    "handler",
    "resolver",
    "transport",
];

/// A server with a certificate of an authority of its own.
struct Encrypted {
    server: ZooKeeperServer,
    port: u16,
    dir: tempfile::TempDir,
}

impl Encrypted {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let named = |mut params: CertificateParams, name: &str| {
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut ca = named(CertificateParams::default(), "distlock test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key"));
        let ca = ca.expect("an authority");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(hosts).expect("good names");
        let key = KeyPair::generate().expect("a key");
        let cert = named(params, "distlock test server").signed_by(&key, &ca);
        let both = format!("{}{}", cert.expect("signed").pem(), key.serialize_pem());
        fs::write(dir.path().join("ca.pem"), ca.pem()).expect("written");
        fs::write(dir.path().join("server.pem"), both).expect("written");
        let netty = NETTY
            .map(|part| format!("/usr/share/java/netty-{part}.jar"))
            .join(":");
        let (port, store) = (free_port(), dir.path().join("server.pem"));
        let server = ZooKeeperServer::builder()
            .java(format!("-Xbootclasspath/a:{netty}"))
            .config(
                "serverCnxnFactory",
                "org.apache.zookeeper.server.NettyServerCnxnFactory",
            )
            .config("secureClientPort", &port.to_string())
            .config("secureClientPortAddress", "127.0.0.1")
            .config("ssl.keyStore.location", &store.display().to_string())
            .config("ssl.keyStore.type", "PEM")
            .config("ssl.clientAuth", "none")
            .start();
        Self { server, port, dir }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn url(&self, ca: &Self) -> String {
        format!(
            "zk://localhost:{}/it?tls=true&ca={}",
            self.port,
            ca.ca().display()
        )
    }
}

/// Below the ephemeral range, as the launcher's ports are.
fn free_port() -> u16 {
    let ports = 10_000..32_000;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let from = u16::try_from(std::process::id() % 10_000).expect("small");
    ports.skip(from.into()).find(free).expect("a free port")
}

async fn connect_url(url: &str) -> Result<Arc<dyn Backend>> {
    let (connect, _) = lock_zk::register(Registry::new()).read(url)?;
    soon(connect.connect(context())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_work_over_tls_with_the_right_authority_and_with_no_other() {
    let (one, other) = (Encrypted::start(), Encrypted::start());
    let a = eventually(|| async { connect_url(&one.url(&one)).await.ok() }).await;
    let first = claim("n");
    assert!(
        soon(a.try_acquire(&first))
            .await
            .expect("answered")
            .is_some()
    );
    assert!(soon(a.release(&first)).await.expect("answered"));
    // And again after a broken connection.
    one.server.restart();
    let again = claim("n");
    eventually(|| async { a.try_acquire(&again).await.ok().flatten() }).await;
    let error = connect_url(&one.url(&other))
        .await
        .expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let missing = one.url(&one).replace("ca.pem", "no.pem");
    let error = connect_url(&missing).await.expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
