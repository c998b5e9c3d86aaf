//! The least rights that a user needs, exactly as they are documented.

use futures_util::StreamExt;
use lock_conformance::servers::RedisServer;
use lock_core::{Connect, Cursor, ErrorKind, Event, Renewal};

use crate::fixture::*;

/// The user of the crate's documentation, as the configuration file has it.
fn documented_user() -> String {
    let docs = include_str!("../../src/lib.rs");
    let lines: Vec<&str> = docs
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| !line.starts_with("ACL SETUSER"))
        .take_while(|line| *line != "```")
        .collect();
    let line = lines.join(" ");
    line.strip_prefix("ACL SETUSER ")
        .expect("documented")
        .to_owned()
}

#[tokio::test]
async fn documented_user_can_do_everything() {
    let server = RedisServer::builder().acl_user(&documented_user()).start();
    let config = || config(&server).with_credentials(Some("app"), "secret");
    let (one, two) = (connect(config()).await, connect(config()).await);
    let mut events = one.events();

    let (first, second, third, fourth) = (claim("a"), claim("a"), claim("a"), claim("a"));
    let grant = hold(&one, &first).await;
    assert!(matches!(renew(&one, &grant).await, Renewal::Extended(_)));
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&two, &third).await;
    third_waits.abort();
    soon(two.replace(&third, &fourth)).await.expect("replaced");
    assert_eq!(look(&one, "a").await.waiters.len(), 2);
    let page = soon(one.list("", Cursor::default())).await.expect("listed");
    assert_eq!(page.names, [name("a")]);
    assert!(
        soon(two.break_hold(&name("a"), grant.token()))
            .await
            .expect("broken")
    );
    assert_eq!(
        soon(events.next()).await,
        Some(Event::Broken { nonce: first.nonce })
    );
    granted(second_waits).await;
    let fifth = claim("a");
    soon(two.pass(&second, &fifth)).await.expect("passed");
    granted(acquire(&two, &fourth)).await;
    assert!(soon(two.release(&fourth)).await.expect("released"));
    granted(acquire(&two, &fifth)).await;
    // Places are renewed with these rights as well.
    let last = claim("a");
    let last_waits = queue(&one, &last).await;
    server.cli(&["DEL", &keys("a")[0]]).expect("deleted");
    granted(last_waits).await;

    let denied = server.cli(&["ACL", "LOG"]).expect("a log");
    let others: Vec<&str> = denied
        .lines()
        .skip_while(|line| *line != "object")
        .filter(|line| line.contains("config"))
        .collect();
    let entries = denied.lines().filter(|line| *line == "reason").count();
    assert_eq!(
        entries,
        others.len().min(1),
        "only CONFIG is denied: {denied}"
    );
}

#[tokio::test]
async fn user_without_a_right_is_denied_and_the_right_named() {
    let line = documented_user();
    for (right, replaced) in [
        ("+subscribe", ""),
        ("+zadd", ""),
        ("~distlock:*", "~other:*"),
    ] {
        assert!(line.contains(right), "{right}: {line}");
        let server = RedisServer::builder()
            .acl_user(&line.replace(right, replaced))
            .start();
        let config = config(&server).with_credentials(Some("app"), "secret");
        let error = match soon(config.connect(context())).await {
            Err(error) => error,
            Ok(backend) => {
                let first = claim("a");
                hold(&backend, &first).await;
                soon(backend.acquire(&claim("a")))
                    .await
                    .expect_err("denied")
            }
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{right}: {error:?}");
    }
}

#[tokio::test]
async fn user_who_is_denied_half_way_leaves_nothing_behind() {
    let line = documented_user();
    // The place is in the queue when the server gets to these.
    for right in ["+zrank", "+pttl"] {
        assert!(line.contains(right), "{right}: {line}");
        let server = RedisServer::builder()
            .acl_user(&line.replace(right, ""))
            .start();
        let backend = connect(config(&server).with_credentials(Some("app"), "secret")).await;
        hold(&backend, &claim("a")).await;
        let error = soon(backend.acquire(&claim("a")))
            .await
            .expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Denied, "{right}: {error:?}");
        let [_, queue, waiters] = keys("a");
        let left = server.cli(&["EXISTS", &queue, &waiters]).expect("answers");
        assert_eq!(left, "0", "{right}");
    }
}
