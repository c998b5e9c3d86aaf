//! A server whose memory is full refuses new locks, and never traps those that are held.

use std::sync::{Arc, Mutex};

use lock_conformance::fault::Proxy;
use lock_conformance::servers::RedisServer;
use lock_core::{ErrorKind, Reach, Renewal};

use crate::fixture::*;

#[tokio::test]
async fn full_server_refuses_new_locks_but_renews_releases_and_hands_on() {
    let server = RedisServer::start();
    let (one, two) = (
        client(&server).await,
        connect(config(&server).with_claim(ms(400))).await,
    );
    let (first, second) = (claim("a"), claim("a"));
    let grant = hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    server
        .cli(&["CONFIG", "SET", "maxmemory", "1"])
        .expect("set");

    for error in [
        soon(one.try_acquire(&claim("b")))
            .await
            .expect_err("refused"),
        soon(two.acquire(&claim("a"))).await.expect_err("refused"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
    // Several leases of the waiter: its place is renewed as well.
    tokio::time::sleep(ms(1200)).await;
    assert_eq!(second.progress.reach(), Reach::Queued);
    assert_eq!(look(&one, "a").await.waiters.len(), 1);
    assert!(soon(one.release(&first)).await.expect("released"));
    let grant = granted(waits).await;
    assert!(matches!(renew(&two, &grant).await, Renewal::Extended(_)));
    assert!(soon(two.release(&second)).await.expect("released"));
    assert!(is_free(&one, "a").await);
    server
        .cli(&["CONFIG", "SET", "maxmemory", "0"])
        .expect("set");
    hold(&one, &claim("b")).await;
}

#[tokio::test]
async fn full_server_lets_a_holder_come_back_that_has_lost_its_connection() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let backend = connect(through(&proxy)).await;
    let claim = claim("a");
    let grant = hold(&backend, &claim).await;
    server
        .cli(&["CONFIG", "SET", "maxmemory", "1"])
        .expect("set");
    proxy.reset();
    let renewed = eventually(|| async { backend.renew(&[&grant]).await.remove(0).ok() }).await;
    assert!(matches!(renewed, Renewal::Extended(_)));
    assert!(soon(backend.release(&claim)).await.expect("released"));
}

#[tokio::test]
async fn full_server_replaces_a_dead_holder() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    hold(&one, &claim_for("a", ms(600))).await;
    let waits = queue(&two, &claim("a")).await;
    server
        .cli(&["CONFIG", "SET", "maxmemory", "1"])
        .expect("set");
    granted(waits).await;
}

#[tokio::test]
async fn full_server_lets_the_next_one_have_what_a_dead_holder_had() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    hold(&backend, &claim_for("a", ms(100))).await;
    server
        .cli(&["CONFIG", "SET", "maxmemory", "1"])
        .expect("set");
    eventually(|| async {
        let next = claim("a");
        backend.try_acquire(&next).await.expect("answered")
    })
    .await;
}

/// What is logged while this is alive, on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn server_that_evicts_keys_is_warned_about() {
    let server = RedisServer::start();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    client(&server).await;
    assert_eq!(log.text(), "");
    server
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .expect("set");
    client(&server).await;
    assert!(log.text().contains("allkeys-lru"), "{}", log.text());
}
