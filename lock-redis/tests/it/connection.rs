//! Servers that are away, stopped, restarted, or do not let us in.

use futures_util::StreamExt;
use lock_conformance::fault::Proxy;
use lock_conformance::servers::RedisServer;
use lock_core::{ClientOptions, Connect, ErrorKind, Event, Locks, Reach, Registry, Renewal};
use lock_redis::RedisConfig;

use crate::fixture::*;

#[tokio::test]
async fn wrong_password_is_denied_and_not_tried_again() {
    let server = RedisServer::builder().password("right").start();
    let proxy = Proxy::start(server.addr());
    for config in [
        through(&proxy).with_credentials(None, "wrong"),
        through(&proxy).with_credentials(Some("nobody"), "right"),
        through(&proxy),
    ] {
        let before = proxy.stats().accepted;
        let error = soon(config.connect(context())).await.expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
        assert_eq!(proxy.stats().accepted - before, 1);
    }
    connect(through(&proxy).with_credentials(None, "right")).await;
}

#[tokio::test]
async fn error_carries_the_clients_own() {
    let server = RedisServer::builder().password("right").start();
    let error = soon(config(&server).connect(context()))
        .await
        .expect_err("denied");
    let source = std::error::Error::source(&error).expect("a source");
    assert!(
        source
            .downcast_ref::<lock_redis::redis::RedisError>()
            .is_some(),
        "{source:?}"
    );
}

#[tokio::test]
async fn unreachable_server_is_unavailable_at_once() {
    let server = RedisServer::start();
    let config = config(&server);
    server.kill();
    let error = soon(config.connect(context()))
        .await
        .expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn connecting_never_outlasts_the_operation_timeout() {
    let server = RedisServer::start();
    let mut context = context();
    context.op_timeout = ms(500);
    let proxy = Proxy::start(server.addr());
    proxy.black_hole();
    let lateness = Lateness::watch();
    let began = now();
    let error = soon(through(&proxy).connect(context.clone()))
        .await
        .expect_err("silent");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    server.pause();
    let error = soon(config(&server).connect(context))
        .await
        .expect_err("silent");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(now().saturating_since(began) < ms(2 * 500) + lateness.worst() * 4);
}

#[tokio::test]
async fn server_that_is_none_is_an_error_and_no_hang() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let talker = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let config = RedisConfig::new("127.0.0.1", port);
    let error = soon(config.connect(context())).await.expect_err("no Redis");
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Protocol),
        "{error:?}"
    );
    talker.abort();
}

#[tokio::test]
async fn database_that_is_not_there_is_invalid() {
    let server = RedisServer::start();
    let error = soon(config(&server).with_db(99).connect(context()))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let backend = connect(config(&server).with_db(3)).await;
    hold(&backend, &claim("a")).await;
    assert!(
        server.keys().expect("keys").is_empty(),
        "database 0 is empty"
    );
}

#[tokio::test]
async fn stopped_server_makes_requests_indeterminate_in_time_and_lets_them_be_reconciled() {
    let server = RedisServer::start();
    let backend = hasty(config(&server), ms(500)).await;
    let claim = claim("a");
    server.pause();
    let lateness = Lateness::watch();
    let began = now();
    let error = soon(backend.try_acquire(&claim)).await.expect_err("silent");
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    // The next one finds no connection: nothing of it is sent.
    let other = self::claim("b");
    let error = soon(backend.try_acquire(&other)).await.expect_err("away");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(other.progress.reach(), Reach::Unsent);
    assert!(now().saturating_since(began) < ms(1000) + lateness.worst() * 4);
    server.resume();
    eventually(|| async { backend.release(&claim).await.ok() }).await;
    assert!(is_free(&backend, "a").await, "whatever came first");
    // The copy in the old socket's buffer has been executed by now, or is and finds the tombstone.
    hold(&backend, &self::claim("c")).await;
    assert!(is_free(&backend, "a").await);
}

#[tokio::test]
async fn client_finds_its_restarted_server_again() {
    let server = RedisServer::builder().persistence(true).start();
    let backend = client(&server).await;
    let mut events = backend.events();
    let claim = claim_for("a", TTL * 6);
    let grant = hold(&backend, &claim).await;
    server.kill();
    server.restart();
    assert_eq!(soon(events.next()).await, Some(Event::Reconnected));
    let renewed = eventually(|| async { backend.renew(&[&grant]).await.remove(0).ok() }).await;
    assert!(
        matches!(renewed, Renewal::Extended(_)),
        "the server kept it"
    );
    assert!(soon(backend.release(&claim)).await.expect("released"));
}

#[tokio::test]
async fn waiter_keeps_its_place_through_an_outage() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two, three) = (
        client(&server).await,
        connect(through(&proxy)).await,
        client(&server).await,
    );
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let second_waits = queue(&two, &second).await;
    let third_waits = queue(&three, &third).await;
    proxy.refuse();
    proxy.reset();
    eventually(|| async { (second.progress.reach() == Reach::Adrift).then_some(()) }).await;
    proxy.accept();
    eventually(|| async { (second.progress.reach() == Reach::Queued).then_some(()) }).await;
    let waiting: Vec<_> = look(&one, "a")
        .await
        .waiters
        .iter()
        .map(|w| w.nonce)
        .collect();
    assert_eq!(waiting, [second.nonce, third.nonce]);
    assert!(soon(one.release(&first)).await.expect("released"));
    granted(second_waits).await;
    assert!(!third_waits.is_finished());
}

#[tokio::test]
async fn grant_pushed_into_a_dead_connection_is_found_after_the_reconnect() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two) = (client(&server).await, connect(through(&proxy)).await);
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    proxy.refuse();
    proxy.reset();
    assert!(soon(one.release(&first)).await.expect("released"));
    assert_eq!(look(&one, "a").await.holders[0].nonce, second.nonce);
    proxy.accept();
    let grant = granted(waits).await;
    assert!(grant.validity().expires_at() > now());
    assert!(matches!(renew(&two, &grant).await, Renewal::Extended(_)));
}

#[tokio::test]
async fn black_holed_waiter_notices_and_is_served_after_healing() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two) = (client(&server).await, hasty(through(&proxy), ms(500)).await);
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    proxy.black_hole();
    eventually(|| async { (second.progress.reach() == Reach::Adrift).then_some(()) }).await;
    proxy.heal();
    assert!(soon(one.release(&first)).await.expect("released"));
    let grant = granted(waits).await;
    assert!(grant.validity().expires_at() > now());
}

#[tokio::test]
async fn waiter_of_a_server_that_lost_its_data_joins_again() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (first, second) = (claim("a"), claim("a"));
    let before = hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    server.kill();
    server.restart();
    let after = granted(waits).await;
    assert!(after.token() > before.token());
    assert_eq!(
        eventually(|| async { one.renew(&[&before]).await.remove(0).ok() }).await,
        Renewal::Gone
    );
}

#[tokio::test]
async fn waiter_whose_entry_is_deleted_joins_again_behind_the_others() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (first, second, third) = (claim("a"), claim("a"), claim("a"));
    hold(&one, &first).await;
    let _second_waits = queue(&two, &second).await;
    let _third_waits = queue(&two, &third).await;
    let [_, queue_key, waiters_key] = keys("a");
    let nonce = second.nonce.to_string();
    server.cli(&["ZREM", &queue_key, &nonce]).expect("removed");
    server
        .cli(&["HDEL", &waiters_key, &nonce])
        .expect("removed");
    eventually(|| async {
        let waiting: Vec<_> = look(&one, "a")
            .await
            .waiters
            .iter()
            .map(|w| w.nonce)
            .collect();
        (waiting == [third.nonce, second.nonce]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn password_that_changed_is_denied_until_it_is_right_again() {
    let server = RedisServer::builder()
        .acl_user("app on >secret ~* &* +@all")
        .start();
    let backend = connect(config(&server).with_credentials(Some("app"), "secret")).await;
    server
        .cli(&["ACL", "SETUSER", "app", "resetpass", ">other"])
        .expect("set");
    server
        .cli(&["CLIENT", "KILL", "USER", "app"])
        .expect("killed");
    eventually(|| async {
        let error = backend.try_acquire(&claim("a")).await.err()?;
        (error.kind() == ErrorKind::Denied).then_some(())
    })
    .await;
    server
        .cli(&["ACL", "SETUSER", "app", "resetpass", ">secret"])
        .expect("set");
    eventually(|| async { backend.try_acquire(&claim("a")).await.ok() }).await;
}

#[tokio::test]
async fn closed_client_refuses_and_its_waiters_end() {
    let server = RedisServer::start();
    let (one, two) = (client(&server).await, client(&server).await);
    let (first, second) = (claim("a"), claim("a"));
    hold(&one, &first).await;
    let waits = queue(&two, &second).await;
    soon(two.close()).await.expect("closed");
    let error = soon(waits).await.expect("no panic").expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = soon(two.try_acquire(&claim("b")))
        .await
        .expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    eventually(|| async {
        let clients = server
            .cli(&["CLIENT", "LIST", "TYPE", "PUBSUB"])
            .expect("lists");
        (clients.lines().filter(|line| !line.is_empty()).count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn dropped_client_closes_its_connection() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let backend = connect(through(&proxy)).await;
    assert_eq!(proxy.stats().open, 1);
    drop(backend);
    proxy.until(SOON, |stats| stats.open == 0).await;
}

#[tokio::test]
async fn one_connection_serves_many_locks_and_waiters() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two) = (client(&server).await, connect(through(&proxy)).await);
    let mut waits = Vec::new();
    for n in 0..200 {
        let (first, second) = (claim(&format!("{n}")), claim(&format!("{n}")));
        hold(&one, &first).await;
        waits.push((first, queue(&two, &second).await));
    }
    assert_eq!(proxy.stats().accepted, 1);
    let channels = server.cli(&["PUBSUB", "CHANNELS"]).expect("lists");
    assert_eq!(
        channels.lines().count(),
        2,
        "one inbox for each client: {channels}"
    );
    for (first, wait) in waits {
        assert!(soon(one.release(&first)).await.expect("released"));
        granted(wait).await;
    }
}

#[tokio::test]
async fn namespace_of_another_layout_is_refused_naming_both() {
    let server = RedisServer::start();
    server
        .cli(&["SET", "distlock:namespace", "distlock 1 partitions=16"])
        .expect("set");
    let error = soon(config(&server).connect(context()))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(
        text.contains("partitions=16") && text.contains("partitions=64"),
        "{text}"
    );
    connect(config(&server).with_prefix("other")).await;
    let namespaces = server.cli(&["GET", "other:namespace"]).expect("answers");
    assert!(namespaces.contains("partitions=64"), "{namespaces}");
    server.cli(&["DEL", "distlock:namespace"]).expect("deleted");
    server
        .cli(&["RPUSH", "distlock:namespace", "x"])
        .expect("pushed");
    let error = soon(config(&server).connect(context()))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::WrongType, "{error}");
}

#[tokio::test]
async fn all_waiters_are_verified_at_once_after_a_reconnect_however_far_behind() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let (one, two) = (client(&server).await, connect(through(&proxy)).await);
    hold(&one, &claim_for("a", TTL * 6)).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let claim = claim("a");
        drop(queue(&two, &claim).await);
        waiting.push(claim);
    }
    let all = |reach: Reach| waiting.iter().all(|claim| claim.progress.reach() == reach);
    proxy.refuse();
    proxy.reset();
    eventually(|| async { all(Reach::Adrift).then_some(()) }).await;
    // The last one renews its place every five seconds.
    proxy.accept();
    let lateness = Lateness::watch();
    let began = now();
    eventually(|| async { all(Reach::Queued).then_some(()) }).await;
    assert!(now().saturating_since(began) < ms(3000) + lateness.worst() * 4);
}

#[tokio::test]
async fn hold_outlives_a_connection_that_falls_silent() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let url = format!("redis://{}", proxy.addr());
    let locks = Locks::connect_with(&lock_redis::register(Registry::new()), &url)
        .await
        .expect("connects");
    let ttl = ms(3000);
    let guard = soon(locks.mutex("a").ttl(ttl).acquire())
        .await
        .expect("granted");
    // The first renewal and all that comes after it on this connection; another one works.
    proxy.hold_requests_matching(script_with("3000"));
    proxy.until(SOON, |stats| stats.held_requests > 0).await;
    eventually(|| async {
        guard.check().expect("still held");
        (guard.remaining() > ttl * 4 / 5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn client_of_a_server_that_was_made_a_replica_goes_to_the_one_that_leads() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.addr());
    let backend = connect(through(&proxy)).await;
    hold(&backend, &claim("a")).await;
    // A failover behind one address, on which nobody closes the connections to the old leader.
    proxy.redirect(new.addr());
    old.cli(&["REPLICAOF", "127.0.0.1", &new.port().to_string()])
        .expect("set");
    eventually(|| async { backend.try_acquire(&claim("b")).await.ok().flatten() }).await;
    assert!(!is_free(&client(&new).await, "b").await);
}

#[tokio::test]
async fn grant_that_could_not_be_confirmed_is_not_said_to_be_no_lock() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let other = client(&server).await;
    let config = through(&proxy).with_claim(TTL);
    let locks = Locks::open(config, ClientOptions::default())
        .await
        .expect("connects");
    let theirs = claim("a");
    hold(&other, &theirs).await;
    let mutex = locks.mutex("a").fixed();
    let waits = tokio::spawn(async move { mutex.acquire().await });
    eventually(|| async { (!look(&other, "a").await.waiters.is_empty()).then_some(()) }).await;

    // Handed on, and from then on every write is refused.
    proxy.hold_replies();
    assert!(soon(other.release(&theirs)).await.expect("released"));
    server
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .expect("set");
    proxy.release_replies();
    let error = soon(waits).await.expect("no panic").expect_err("refused");
    assert_eq!(look(&other, "a").await.holders.len(), 1);
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    server
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .expect("set");
    eventually(|| async { is_free(&other, "a").await.then_some(()) }).await;
}
