//! Names are exact, and listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use lock_conformance::servers::RedisServer;
use lock_core::{Backend, Cursor, Nonce};

use crate::fixture::*;

fn odd_names() -> Vec<String> {
    let long = "x".repeat(1023);
    [
        "a",
        "A",
        "a/",
        "a//b",
        "a/b",
        "/a",
        "{a}",
        "{",
        "}",
        "}{",
        "{p00}",
        "a:l:b",
        "l:a",
        "*",
        "?",
        "[a]",
        "[",
        "\\",
        "\\*",
        "a*",
        "a?c",
        "abc",
        "a-c",
        "^",
        "'",
        "\"",
        "\"; DEL",
        " ",
        "  ",
        "é",
        "e\u{301}",
        "ﬀ",
        "ff",
        "🔒",
        "%s",
        "%00",
        "a\u{200b}",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([format!("{long}a"), format!("{long}b")])
    .collect()
}

async fn list(backend: &Arc<dyn Backend>, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut cursor = Cursor::default();
    loop {
        let page = soon(backend.list(prefix, cursor)).await.expect("listed");
        names.extend(page.names.iter().map(|name| name.as_str().to_owned()));
        match page.next {
            Some(next) => cursor = next,
            None => return names,
        }
    }
}

#[tokio::test]
async fn every_two_different_names_are_two_different_locks() {
    let server = RedisServer::start();
    let backend = client(&server).await;
    let mut held = Vec::new();
    for text in odd_names() {
        let claim = claim(&text);
        hold(&backend, &claim).await;
        held.push(claim);
    }
    for claim in &held {
        let state = look(&backend, claim.name.as_str()).await;
        let holders: Vec<Nonce> = state.holders.iter().map(|holder| holder.nonce).collect();
        assert_eq!(holders, [claim.nonce], "{:?}", claim.name);
        assert_eq!(state.holders[0].identity, claim.identity);
    }
    assert_eq!(
        server.keys_without_ttl().expect("keys"),
        Vec::<String>::new()
    );
    for claim in &held {
        assert!(soon(backend.release(claim)).await.expect("released"));
    }
}

#[tokio::test]
async fn listing_names_exactly_what_is_in_use_and_begins_with_the_prefix() {
    let server = RedisServer::start();
    let backend = connect(config(&server).with_prefix("app*[x]")).await;
    let strangers = connect(config(&server).with_prefix("appy[x]")).await;
    hold(&strangers, &claim("not ours")).await;
    let mut held = Vec::new();
    for text in odd_names() {
        let claim = claim(&text);
        hold(&backend, &claim).await;
        held.push(claim);
    }
    let released = claim("released");
    hold(&backend, &released).await;
    assert!(soon(backend.release(&released)).await.expect("released"));
    let all: BTreeSet<String> = odd_names().into_iter().collect();
    assert_eq!(list(&backend, "").await, all);
    for prefix in ["a", "*", "a?", "[", "\\", "{", "é", "zz"] {
        let expected: BTreeSet<String> = all
            .iter()
            .filter(|text| text.starts_with(prefix))
            .cloned()
            .collect();
        assert_eq!(list(&backend, prefix).await, expected, "{prefix}");
    }
    // A page at a time, for many.
    for n in 0..1000 {
        hold(&backend, &claim(&format!("many/{n}"))).await;
    }
    assert_eq!(list(&backend, "many/").await.len(), 1000);
}

#[tokio::test]
async fn prefixes_are_separate_worlds() {
    let server = RedisServer::start();
    let one = connect(config(&server).with_prefix("one")).await;
    let two = connect(config(&server).with_prefix("two")).await;
    hold(&one, &claim("a")).await;
    hold(&two, &claim("a")).await;
}

#[tokio::test]
async fn look_shows_holder_queue_and_tokens() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let free = look(&one, "a").await;
    assert!(free.holders.is_empty() && free.waiters.is_empty() && free.last_token.is_none());
    let (first, second) = (claim("a"), claim("a"));
    let grant = hold(&one, &first).await;
    let _waits = queue(&two, &second).await;
    let state = look(&two, "a").await;
    let holder = &state.holders[0];
    assert_eq!((holder.nonce, holder.token), (first.nonce, grant.token()));
    assert!(!holder.provisional && holder.age < TTL);
    let remaining = holder.remaining.expect("a lease ends");
    assert!(remaining > ms(1000) && remaining <= TTL);
    assert_eq!(state.waiters[0].nonce, second.nonce);
    assert_eq!(state.waiters[0].identity, second.identity);
    assert_eq!(state.last_token, Some(grant.token()));
}
