//! The fault proxy in front of a real ZooKeeper.

use std::time::Duration;

use lock_conformance::fault::jute::is_request;
use lock_conformance::fault::{Call, Protocol, Proxy};
use lock_conformance::servers::ZooKeeperServer;

use crate::poll;
use crate::zookeeper_client::Client;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(10);

const PERSISTENT: i32 = 0;
const EPHEMERAL: i32 = 1;
const OK: i32 = 0;
const NO_NODE: i32 = -101;

#[test]
fn requests_pass_and_are_counted_by_name_and_node() {
    let Some((server, proxy)) = fixture() else {
        return;
    };
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.create("/k", PERSISTENT).error, OK);
    assert_eq!(client.get_data("/k", false).error, OK);
    client.ping();
    assert_eq!(client.answer().xid, -2);
    assert_eq!(client.get_data("/absent", false).error, NO_NODE);
    assert_eq!(server.nodes("/").unwrap(), ["/k"]);

    assert_eq!(
        names(&proxy.calls()),
        [
            ("connect", ""),
            ("create", "/k"),
            ("getData", "/k"),
            ("getData", "/absent")
        ]
    );
    let stats = proxy.stats();
    // The ping is none of them.
    assert_eq!((stats.commands, stats.replies, stats.pushes), (4, 4, 0));
    proxy.clear_calls();
    client.delete("/k");
    assert_eq!(names(&proxy.calls()), [("delete", "/k")]);
}

#[test]
fn held_create_arrives_after_the_client_has_moved_on() {
    let Some((server, proxy)) = fixture() else {
        return;
    };
    let mut client = Client::connect(proxy.addr());
    proxy.hold_requests_matching(|message| is_request(message, "create"));
    assert_eq!(client.get_data("/", false).error, OK);
    client.send_create("/late", PERSISTENT);
    client.ping();
    proxy.wait_until(SOON, |stats| stats.held_requests == 1);
    // The ping stands behind it.
    assert!(client.is_silent());
    drop(client);
    proxy.wait_until(SOON, |stats| stats.open == 0 && stats.open_upstream == 1);

    let mut next = Client::connect(proxy.addr());
    assert_eq!(next.create("/other", PERSISTENT).error, OK);
    assert_eq!(server.nodes("/").unwrap(), ["/other"]);

    let late = proxy.stats().late_replies;
    assert_eq!(proxy.deliver_held(), 1);
    proxy.wait_until(SOON, |stats| stats.late_replies == late + 1);
    assert_eq!(server.nodes("/").unwrap(), ["/late", "/other"]);
    proxy.wait_until(SOON, |stats| stats.open_upstream == 1);
}

#[test]
fn nth_request_is_lost_and_pings_are_not_counted() {
    let Some((server, proxy)) = fixture() else {
        return;
    };
    let mut client = Client::connect(proxy.addr());
    proxy.drop_nth_request(2);
    client.ping();
    assert_eq!(client.answer().xid, -2);
    assert_eq!(client.create("/kept", PERSISTENT).error, OK);
    client.send_create("/lost", PERSISTENT);
    proxy.wait_until(SOON, |stats| stats.requests_dropped == 1);
    client.ping();
    assert!(client.is_silent());
    assert_eq!(server.nodes("/").unwrap(), ["/kept"]);
    // Whoever comes next is not concerned.
    let mut next = Client::connect(proxy.addr());
    assert_eq!(next.create("/next", PERSISTENT).error, OK);
}

#[test]
fn held_call_of_a_session_that_went_on_elsewhere_is_refused_by_the_server() {
    let Some((server, proxy)) = fixture() else {
        return;
    };
    let mut client = Client::connect(proxy.addr());
    proxy.hold_calls("create", |_| true);
    client.send_create("/late", PERSISTENT);
    proxy.wait_until(SOON, |stats| stats.held_requests == 1);
    let mut moved = Client::resume(server.addr(), client.session, &client.password).unwrap();
    assert_eq!(moved.session, client.session);
    assert_eq!(moved.get_data("/", false).error, OK);
    // The session has one connection at a time: the server has closed the first.
    proxy.deliver_held();
    assert!(client.is_closed());
    assert!(server.nodes("/").unwrap().is_empty());
}

#[test]
fn fired_watches_are_dropped_and_replies_pass() {
    let Some((server, proxy)) = fixture() else {
        return;
    };
    let mut client = Client::connect(proxy.addr());
    server.create("/k", b"").unwrap();
    client.get_data("/k", true);
    assert_eq!(server.watches().unwrap(), 1);
    proxy.drop_pushes();
    server.delete("/k").unwrap();
    let stats = proxy.wait_until(SOON, |stats| stats.pushes_dropped == 1);
    assert_eq!(stats.pushes, 1);
    assert_eq!(client.get_data("/k", false).error, NO_NODE);
    assert_eq!(server.watches().unwrap(), 0);

    proxy.pass_pushes();
    server.create("/k", b"").unwrap();
    client.get_data("/k", true);
    server.delete("/k").unwrap();
    assert_eq!(client.answer().xid, -1);
}

#[test]
fn killed_session_is_told_when_it_comes_back() {
    let Some((server, proxy)) = fixture() else {
        return;
    };
    let mut client = Client::connect(proxy.addr());
    client.create("/e", EPHEMERAL);
    assert_eq!(server.sessions().unwrap(), [client.session]);
    let owned = server.ephemerals().unwrap();
    assert_eq!(owned[&client.session], ["/e"]);

    assert!(server.kill_session(client.session).unwrap());
    assert!(client.is_closed());
    assert!(server.nodes("/").unwrap().is_empty());
    assert!(poll(|| server.sessions().unwrap().is_empty()));
    assert!(Client::resume(proxy.addr(), client.session, &client.password).is_err());
    assert!(!server.kill_session(client.session).unwrap());
}

#[test]
fn killed_session_of_an_ensemble_is_gone_on_every_member() {
    let Some(server) = ZooKeeperServer::builder().members(3).start_or_skip() else {
        return;
    };
    let follower = (server.await_leader() + 1) % 3;
    let mut client = Client::connect(server.member(follower).addr());
    client.create("/e", EPHEMERAL);
    assert!(server.kill_session(client.session).unwrap());
    assert!(server.nodes("/").unwrap().is_empty());
    // Its own server hears of it through the leader, and hangs up.
    assert!(client.is_closed());
}

#[test]
fn words_pass_through() {
    let Some((_server, proxy)) = fixture() else {
        return;
    };
    let mut stream = std::net::TcpStream::connect(proxy.addr()).unwrap();
    std::io::Write::write_all(&mut stream, b"srvr").unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.contains("Mode: standalone"), "{answer}");
}

fn fixture() -> Option<(ZooKeeperServer, Proxy)> {
    let server = ZooKeeperServer::start_or_skip()?;
    let proxy = Proxy::start_with(server.addr(), Protocol::Jute);
    Some((server, proxy))
}

fn names(calls: &[Call]) -> Vec<(&str, &str)> {
    calls
        .iter()
        .map(|call| (&*call.name, &*call.path))
        .collect()
}
