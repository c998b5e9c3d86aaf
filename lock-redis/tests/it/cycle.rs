//! One client at a time.

use lock_conformance::servers::RedisServer;
use lock_core::{ErrorKind, Mode, Renewal};

use crate::fixture::*;

#[tokio::test]
async fn uncontended_cycle_is_exactly_two_client_commands() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    // Not even the first one on a new server needs more: connecting taught it the scripts.
    let mut monitor = server.monitor().expect("monitors");
    let claim = claim("a");
    let grant = soon(backend.acquire(&claim)).await.expect("granted");
    assert!(!grant.is_provisional());
    assert!(soon(backend.release(&claim)).await.expect("released"));
    let lines = monitor.client_lines().expect("lines");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(scripts(&lines), 2, "{lines:#?}");
}

#[tokio::test]
async fn held_lock_is_busy_and_then_free() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (mine, theirs) = (claim("a"), claim("a"));
    let first = hold(&one, &mine).await;
    assert!(
        soon(two.try_acquire(&theirs))
            .await
            .expect("answered")
            .is_none()
    );
    assert!(
        !soon(two.release(&theirs)).await.expect("released"),
        "never held"
    );
    assert!(soon(one.release(&mine)).await.expect("released"));
    assert!(
        !soon(one.release(&mine)).await.expect("released"),
        "idempotent"
    );
    let second = hold(&two, &theirs).await;
    assert!(second.token() > first.token());
}

#[tokio::test]
async fn acquire_of_a_nonce_that_holds_answers_the_same_grant() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let claim = claim("a");
    let first = hold(&backend, &claim).await;
    let again = hold(&backend, &claim).await;
    assert_eq!(again.token(), first.token());
    let attached = soon(backend.acquire(&claim)).await.expect("granted");
    assert_eq!(attached.token(), first.token());
}

#[tokio::test]
async fn renewal_extends_only_a_live_hold_of_its_own_nonce() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let mine = claim_for("a", ms(300));
    let grant = hold(&backend, &mine).await;
    let Renewal::Extended(validity) = renew(&backend, &grant).await else {
        panic!("a live hold is extended")
    };
    assert!(validity.expires_at() > grant.validity().expires_at());
    // Let it end, and do not let it come back: neither free nor held by another.
    eventually(|| async { is_free(&backend, "a").await.then_some(()) }).await;
    assert_eq!(renew(&backend, &grant).await, Renewal::Gone);
    assert!(is_free(&backend, "a").await);
    let other = claim("a");
    hold(&backend, &other).await;
    assert_eq!(renew(&backend, &grant).await, Renewal::Gone);
    assert!(!soon(backend.release(&mine)).await.expect("released"));
    assert_eq!(look(&backend, "a").await.holders[0].nonce, other.nonce);
}

#[tokio::test]
async fn locks_of_one_partition_are_renewed_by_one_script() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let wanted = tag("lock-0");
    let together: Vec<String> = (0..)
        .map(|n| format!("lock-{n}"))
        .filter(|text| tag(text) == wanted)
        .take(20)
        .collect();
    let elsewhere = (0..)
        .map(|n| format!("lock-{n}"))
        .find(|text| tag(text) != wanted);
    let mut grants = Vec::new();
    for text in together.iter().chain(&elsewhere) {
        grants.push(hold(&backend, &claim(text)).await);
    }
    let all: Vec<_> = grants.iter().collect();
    soon(backend.renew(&all)).await;
    let mut monitor = server.monitor().expect("monitors");
    let renewed = soon(backend.renew(&all[..20])).await;
    assert_eq!(renewed.len(), 20);
    assert!(
        renewed
            .iter()
            .all(|one| matches!(one, Ok(Renewal::Extended(_)))),
        "{renewed:?}"
    );
    assert_eq!(monitor.client_lines().expect("lines").len(), 1);
    // Each is judged alone, and its answer is in its place.
    assert!(
        soon(backend.release(grants[3].claim()))
            .await
            .expect("released")
    );
    let renewed = soon(backend.renew(&all)).await;
    for (at, one) in renewed.iter().enumerate() {
        let gone = matches!(one, Ok(Renewal::Gone));
        assert_eq!(gone, at == 3, "{at}: {one:?}");
    }
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again_whichever_they_are() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let flush = || server.cli(&["SCRIPT", "FLUSH"]).expect("flushes");
    let mine = claim("a");
    flush();
    let grant = hold(&one, &mine).await;
    flush();
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
    flush();
    let theirs = claim("a");
    let waiting = queue(&two, &theirs).await;
    flush();
    look(&one, "a").await;
    flush();
    soon(one.list("", lock_core::Cursor::default()))
        .await
        .expect("listed");
    flush();
    assert!(soon(one.release(&mine)).await.expect("released"));
    let grant = granted(waiting).await;
    flush();
    assert!(
        soon(one.break_hold(&name("a"), grant.token()))
            .await
            .expect("broken")
    );
}

#[tokio::test]
async fn what_is_not_promised_is_refused_before_anything_is_sent() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let mut monitor = server.monitor().expect("monitors");
    for mode in [Mode::Shared, Mode::Permit { of: 3 }] {
        let claim = claim("a").with_mode(mode);
        for error in [
            soon(backend.try_acquire(&claim))
                .await
                .expect_err("refused"),
            soon(backend.acquire(&claim)).await.expect_err("refused"),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
    for ttl in [
        ms(0),
        ms(99),
        std::time::Duration::from_micros(100_500),
        TTL * 9000,
    ] {
        let error = soon(backend.try_acquire(&claim_for("a", ttl)))
            .await
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(monitor.client_lines().expect("lines").is_empty());
}

#[tokio::test]
async fn nothing_is_registered_and_every_key_has_a_ttl_after_many_names() {
    let server = RedisServer::start();
    let backend = lock_redis::RedisConfig::new("127.0.0.1", server.port());
    let backend = connect(backend).await;
    for n in 0..500 {
        let claim = claim(&format!("name/{n}"));
        hold(&backend, &claim).await;
        assert!(soon(backend.release(&claim)).await.expect("released"));
    }
    assert_eq!(
        server.keys_without_ttl().expect("keys"),
        Vec::<String>::new()
    );
}
