//! Keys of another type where a lock would be.

use lock_conformance::servers::RedisServer;
use lock_core::{Claim, ErrorKind, Renewal};

use crate::fixture::*;

/// A digest of all data.
fn digest(server: &RedisServer) -> String {
    server.cli(&["DEBUG", "DIGEST"]).expect("answers")
}

#[tokio::test]
async fn foreign_key_is_reported_and_nothing_is_changed() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    for (at, kind) in ["l", "q", "w", "t"].into_iter().enumerate() {
        let text = format!("name-{kind}");
        let (held, claim, next): (Claim, Claim, Claim) = (claim(&text), claim(&text), claim(&text));
        // Holder, queue and waiters are looked at in all requests that change them.
        let key = keys(&text)
            .get(at)
            .cloned()
            .unwrap_or_else(|| tombstone(&claim));
        if kind == "w" {
            hold(&two, &held).await;
        }
        // A tombstone is a string itself.
        server.cli(&["RPUSH", &key, "not a lock"]).expect("set");
        let before = digest(&server);
        let mut errors = vec![soon(one.acquire(&claim)).await.expect_err("refused")];
        if kind != "w" {
            errors.push(soon(one.try_acquire(&claim)).await.expect_err("refused"));
        }
        if kind != "t" {
            errors.push(soon(one.pass(&held, &next)).await.expect_err("refused"));
            errors.push(
                soon(one.inspect(&claim.name))
                    .await
                    .err()
                    .unwrap_or_else(|| errors[0].clone()),
            );
        }
        errors.push(soon(one.replace(&claim, &next)).await.expect_err("refused"));
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::WrongType, "{kind}: {error}");
            assert_eq!(error.name(), Some(claim.name.as_str()));
        }
        assert_eq!(digest(&server), before, "{kind}");
    }
}

#[tokio::test]
async fn release_reports_a_foreign_key_instead_of_guessing() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    for kind in [0, 1] {
        let claim = claim(&format!("name-{kind}"));
        hold(&backend, &claim).await;
        let key = &keys(claim.name.as_str())[kind];
        server.cli(&["SET", key, "not a lock"]).expect("set");
        let before = digest(&server);
        let error = soon(backend.release(&claim)).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::WrongType, "{error}");
        assert_eq!(digest(&server), before);
        server.cli(&["DEL", key]).expect("deleted");
        assert_eq!(
            soon(backend.release(&claim)).await.expect("released"),
            kind == 1
        );
    }
}

#[tokio::test]
async fn foreign_key_spoils_only_its_own_renewal() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let wanted = tag("x0");
    let mut grants = Vec::new();
    for text in (0..)
        .map(|n| format!("x{n}"))
        .filter(|text| tag(text) == wanted)
        .take(3)
    {
        grants.push(hold(&backend, &claim(&text)).await);
    }
    let [holder, ..] = keys(grants[1].claim().name.as_str());
    server.cli(&["SET", &holder, "not a lock"]).expect("set");
    let renewed = soon(backend.renew(&grants.iter().collect::<Vec<_>>())).await;
    assert!(
        matches!(renewed[0], Ok(Renewal::Extended(_))),
        "{renewed:?}"
    );
    assert!(
        matches!(renewed[2], Ok(Renewal::Extended(_))),
        "{renewed:?}"
    );
    let error = renewed[1].as_ref().expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::WrongType);
    assert_eq!(error.name(), Some(grants[1].claim().name.as_str()));
}

#[tokio::test]
async fn waiter_is_told_when_a_foreign_key_gets_in_its_way() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    hold(&one, &claim("a")).await;
    let mine = claim("a");
    let waits = queue(&two, &mine).await;
    let [holder, ..] = keys("a");
    server.cli(&["SET", &holder, "not a lock"]).expect("set");
    let error = soon(waits).await.expect("no panic").expect_err("told");
    assert_eq!(error.kind(), ErrorKind::WrongType, "{error}");
    assert_eq!(error.name(), Some(mine.name.as_str()));
}
