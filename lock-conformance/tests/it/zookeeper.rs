//! The ZooKeeper launcher against the real server.

use std::net::TcpStream;

use lock_conformance::servers::{ZooKeeperMode, ZooKeeperServer};

use crate::poll;

#[test]
fn server_answers_and_is_gone_after_drop() {
    let Some(server) = ZooKeeperServer::start_or_skip() else {
        return;
    };
    assert!(server.port() < 32_768);
    assert_eq!(server.url(), format!("zk://127.0.0.1:{}", server.port()));
    assert_eq!(server.mode(0), Some(ZooKeeperMode::Standalone));
    assert_eq!(server.leader(), Some(0));
    assert_eq!(server.mntr(0).unwrap()["zk_server_state"], "standalone");
    let addr = server.addr();
    drop(server);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn nodes_are_made_listed_and_wiped() {
    let Some(server) = ZooKeeperServer::start_or_skip() else {
        return;
    };
    server.create("/a", b"data").unwrap();
    server.create("/a/b", b"").unwrap();
    server.create("/a/b", b"is there").unwrap();
    server.create("/c", b"").unwrap();
    assert_eq!(server.nodes("/").unwrap(), ["/a", "/a/b", "/c"]);
    assert_eq!(server.nodes("/a").unwrap(), ["/a/b"]);
    assert!(server.nodes("/absent").unwrap().is_empty());
    assert!(server.delete("/a").is_err());
    server.delete("/c").unwrap();
    server.wipe().unwrap();
    assert!(server.nodes("/").unwrap().is_empty());
    // Nothing of the launcher's own stays.
    assert!(server.sessions().unwrap().is_empty());
}

#[test]
fn data_and_ports_survive_a_kill() {
    let Some(server) = ZooKeeperServer::start_or_skip() else {
        return;
    };
    let port = server.port();
    server.create("/k", b"v").unwrap();
    let zxid = server.zxid().unwrap();
    server.kill();
    assert_eq!(server.mode(0), None);
    server.restart();
    assert_eq!(server.port(), port);
    assert_eq!(server.nodes("/").unwrap(), ["/k"]);
    assert!(server.zxid().unwrap() >= zxid);
}

#[test]
fn writes_count_exactly_what_changes_the_store() {
    let Some(server) = ZooKeeperServer::start_or_skip() else {
        return;
    };
    let writes = server.writes().unwrap();
    // Opening and closing the launcher's session, and one node.
    server.create("/k", b"v").unwrap();
    assert_eq!(server.writes().unwrap(), writes + 3);
    server.nodes("/").unwrap();
    assert_eq!(server.writes().unwrap(), writes + 5);
    server.word(0, "srvr").unwrap();
    assert_eq!(server.writes().unwrap(), writes + 5);
}

#[test]
fn paused_server_answers_once_resumed() {
    let Some(server) = ZooKeeperServer::start_or_skip() else {
        return;
    };
    server.pause();
    assert_eq!(server.mode(0), None);
    // The kernel accepts; nobody answers.
    let _client = TcpStream::connect(server.addr()).unwrap();
    server.resume();
    assert_eq!(server.mode(0), Some(ZooKeeperMode::Standalone));
}

#[test]
fn connections_are_counted_without_making_one() {
    let Some(server) = ZooKeeperServer::start_or_skip() else {
        return;
    };
    let client = TcpStream::connect(server.addr()).unwrap();
    server.writes().unwrap();
    assert!(poll(|| server.connections().unwrap() == 1));
    drop(client);
    assert!(poll(|| server.connections().unwrap() == 0));
}

#[test]
fn three_members_elect_another_leader_when_theirs_is_killed() {
    let Some(server) = ZooKeeperServer::builder().members(3).start_or_skip() else {
        return;
    };
    assert_eq!(server.endpoints().len(), 3);
    server.create("/k", b"v").unwrap();
    let leader = server.await_leader();
    let writes = server.writes().unwrap();
    server.create("/l", b"v").unwrap();
    assert_eq!(server.writes().unwrap(), writes + 3);
    let zxid = server.zxid().unwrap();

    server.member(leader).kill();
    let next = server.await_leader();
    assert_ne!(next, leader);
    assert_eq!(server.nodes("/").unwrap(), ["/k", "/l"]);
    assert!(server.zxid().unwrap() > zxid);
    server.member(leader).restart();
    assert_eq!(server.mode(leader), Some(ZooKeeperMode::Follower));
    server.restart();
    assert_eq!(server.nodes("/").unwrap(), ["/k", "/l"]);
}

#[test]
fn isolated_leader_is_replaced_and_still_reached_by_clients() {
    let Some(server) = ZooKeeperServer::builder()
        .members(3)
        .isolatable()
        .start_or_skip()
    else {
        return;
    };
    let leader = server.await_leader();
    server.isolate(leader);
    let next = server.await_leader();
    assert_ne!(next, leader);
    server.create("/k", b"v").unwrap();
    // It notices by itself that it leads nobody, and says so to whoever asks.
    assert!(poll(|| server.mode(leader).is_none()));
    assert!(server.word(leader, "ruok").is_ok());

    server.heal(leader);
    assert!(poll(|| server.mode(leader) == Some(ZooKeeperMode::Follower)));
    assert_eq!(server.leader(), Some(next));
}

#[test]
fn isolated_follower_answers_clients_until_it_notices() {
    let Some(server) = ZooKeeperServer::builder()
        .members(3)
        .isolatable()
        .start_or_skip()
    else {
        return;
    };
    let leader = server.await_leader();
    let follower = (leader + 1) % 3;
    server.create("/known", b"v").unwrap();
    let zxid = |member| zxid_line(&server.word(member, "srvr").unwrap());
    assert!(poll(|| zxid(follower) == zxid(leader)));
    let known = zxid(follower);
    server.isolate(follower);
    server.create("/k", b"v").unwrap();
    // What the follower does not know yet is the point of cutting it off: nothing comes from the leader either.
    let answer = server.word(follower, "srvr").unwrap();
    assert!(answer.contains("Mode: follower"), "{answer}");
    assert_eq!(zxid_line(&answer), known);
    assert!(poll(|| server.mode(follower).is_none()));
    assert_eq!(server.leader(), Some(leader));
    server.heal(follower);
    assert!(poll(
        || server.mode(follower) == Some(ZooKeeperMode::Follower)
    ));
}

fn zxid_line(answer: &str) -> Option<String> {
    let line = answer.lines().find(|line| line.starts_with("Zxid"));
    line.map(str::to_owned)
}
