//! The etcd launcher against the real server.

use std::net::TcpStream;
use std::process::Command;

use lock_conformance::servers::{EtcdServer, EtcdVersion};

use crate::poll;

const VERSIONS: [EtcdVersion; 2] = [EtcdVersion::V3_4, EtcdVersion::V3_5];

#[test]
fn server_answers_in_every_version_and_is_gone_after_drop() {
    for version in VERSIONS {
        let Some(server) = EtcdServer::builder().version(version).start_or_skip() else {
            continue;
        };
        assert!(server.port() < 32_768);
        assert_eq!(server.url(), format!("etcd://127.0.0.1:{}", server.port()));
        server.cli(&["put", "b", "2"]).unwrap();
        server.cli(&["put", "a\nnew line", "1"]).unwrap();
        assert_eq!(server.keys().unwrap(), ["a\nnew line", "b"]);
        assert_eq!(server.leader(), Some(0));
        let addr = server.addr();
        drop(server);
        assert!(TcpStream::connect(addr).is_err());
    }
}

#[test]
fn data_and_ports_survive_a_kill() {
    let Some(server) = EtcdServer::start_or_skip() else {
        return;
    };
    let (port, pid) = (server.port(), server.member(0).pid());
    server.cli(&["put", "k", "v"]).unwrap();
    server.kill();
    assert_eq!(server.member(0).pid(), None);
    assert!(server.keys().is_err());
    server.restart();
    assert_eq!(server.port(), port);
    assert_ne!(server.member(0).pid(), pid);
    assert_eq!(server.keys().unwrap(), ["k"]);
}

#[test]
fn lease_of_a_second_is_granted_and_wiped() {
    for version in VERSIONS {
        let Some(server) = EtcdServer::builder().version(version).start_or_skip() else {
            continue;
        };
        let granted = server.cli(&["lease", "grant", "1"]).unwrap();
        assert!(granted.contains("TTL(1s)"), "{granted}");
        server.cli(&["lease", "grant", "100"]).unwrap();
        server.cli(&["put", "k", "v"]).unwrap();
        assert!(!server.leases().unwrap().is_empty());
        server.wipe().unwrap();
        assert!(server.leases().unwrap().is_empty());
        assert!(server.keys().unwrap().is_empty());
    }
}

#[test]
fn writes_count_exactly_what_goes_through_a_majority() {
    for version in VERSIONS {
        let Some(server) = EtcdServer::builder().version(version).start_or_skip() else {
            continue;
        };
        let writes = server.writes().unwrap();
        server.cli(&["put", "k", "v"]).unwrap();
        server.cli(&["put", "k", "w"]).unwrap();
        server.cli(&["del", "k"]).unwrap();
        assert_eq!(server.writes().unwrap(), writes + 3);
        // A deletion that finds nothing changes no revision, and costs a majority all the same.
        let revision = server.revision().unwrap();
        server.cli(&["del", "k"]).unwrap();
        assert_eq!(server.writes().unwrap(), writes + 4);
        assert_eq!(server.revision().unwrap(), revision);
        // Reads cost none.
        server.cli(&["get", "k"]).unwrap();
        assert_eq!(server.writes().unwrap(), writes + 4);
    }
}

#[test]
fn requests_are_counted_by_method() {
    let Some(server) = EtcdServer::start_or_skip() else {
        return;
    };
    let before = server.requests().unwrap();
    server.cli(&["put", "k", "v"]).unwrap();
    server.cli(&["get", "k"]).unwrap();
    server.cli(&["get", "k"]).unwrap();
    let mut after = server.requests().unwrap();
    after.retain(|method, count| {
        *count -= before.get(method).copied().unwrap_or(0);
        *count > 0
    });
    let expected = [("KV/Put", 1), ("KV/Range", 2)];
    assert_eq!(
        after,
        expected.map(|(method, n)| (method.to_owned(), n)).into()
    );
}

#[test]
fn paused_server_answers_once_resumed() {
    let Some(server) = EtcdServer::start_or_skip() else {
        return;
    };
    server.pause();
    assert!(server.member(0).is_paused());
    let addr = server.addr();
    // The kernel accepts; nobody answers.
    let _client = TcpStream::connect(addr).unwrap();
    assert_eq!(server.leader(), None);
    server.resume();
    assert_eq!(server.await_leader(), 0);
    server.cli(&["put", "k", "v"]).unwrap();
}

#[test]
fn connections_are_counted_without_making_one() {
    let Some(server) = EtcdServer::start_or_skip() else {
        return;
    };
    assert!(poll(|| server.connections().unwrap() == 0));
    let client = TcpStream::connect(server.addr()).unwrap();
    server.writes().unwrap();
    assert_eq!(server.connections().unwrap(), 1);
    drop(client);
    assert!(poll(|| server.connections().unwrap() == 0));
}

#[test]
fn users_have_to_log_in_and_have_just_their_rights() {
    for version in VERSIONS {
        let Some(server) = EtcdServer::builder().version(version).start_or_skip() else {
            continue;
        };
        server.add_user("alice", "secret", "/locks/").unwrap();
        server.authenticate("sesame").unwrap();
        // The launcher has every right; the others have what they were given.
        server.cli(&["put", "/elsewhere", "1"]).unwrap();
        let alice = ["--user", "alice:secret"];
        let etcdctl = |words: &[&str]| etcdctl(&server, 0, words);
        assert!(etcdctl(&[&alice[..], &["put", "/locks/a", "1"]].concat()));
        assert!(!etcdctl(
            &[&alice[..], &["put", "/elsewhere", "1"]].concat()
        ));
        assert!(!etcdctl(&["get", "/locks/a"]));
        server.restart();
        assert_eq!(server.keys().unwrap(), ["/elsewhere", "/locks/a"]);
    }
}

#[test]
fn tls_server_has_a_certificate_of_its_authority() {
    let Some(server) = EtcdServer::builder().tls().start_or_skip() else {
        return;
    };
    // etcdctl verifies it.
    server.cli(&["put", "k", "v"]).unwrap();
    let ca = std::fs::read_to_string(server.ca_path().unwrap()).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(server.leader(), Some(0));
    server.restart();
    assert_eq!(server.keys().unwrap(), ["k"]);
}

#[test]
fn compaction_forgets_the_past() {
    let Some(server) = EtcdServer::start_or_skip() else {
        return;
    };
    server.cli(&["put", "k", "v"]).unwrap();
    server.cli(&["put", "k", "w"]).unwrap();
    assert!(server.cli(&["get", "k", "--rev", "2"]).is_ok());
    server.compact().unwrap();
    let error = server.cli(&["get", "k", "--rev", "2"]).unwrap_err();
    assert!(error.to_string().contains("compacted"), "{error}");
}

#[test]
fn three_members_elect_another_leader_when_theirs_is_killed() {
    for version in VERSIONS {
        let builder = EtcdServer::builder().version(version).members(3);
        let Some(server) = builder.start_or_skip() else {
            continue;
        };
        assert_eq!(server.endpoints().len(), 3);
        server.cli(&["put", "k", "v"]).unwrap();
        let writes = server.writes().unwrap();
        server.cli(&["put", "l", "v"]).unwrap();
        assert_eq!(server.writes().unwrap(), writes + 1);

        let leader = server.await_leader();
        server.member(leader).kill();
        let next = server.await_leader();
        assert_ne!(next, leader);
        assert_eq!(server.keys().unwrap(), ["k", "l"]);
        server.member(leader).restart();
        server.move_leader(leader).unwrap();
        assert_eq!(server.leader(), Some(leader));
        server.restart();
        assert_eq!(server.keys().unwrap(), ["k", "l"]);
    }
}

#[test]
fn paused_leader_is_replaced() {
    let Some(server) = EtcdServer::builder().members(3).start_or_skip() else {
        return;
    };
    let leader = server.await_leader();
    server.member(leader).pause();
    assert_ne!(server.await_leader(), leader);
    server.cli(&["put", "k", "v"]).unwrap();
    server.member(leader).resume();
    assert!(poll(|| server.leader().is_some_and(|now| now != leader)));
}

#[test]
fn isolated_leader_is_replaced_and_still_reached_by_clients() {
    let Some(server) = EtcdServer::builder()
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
    server.cli(&["put", "k", "v"]).unwrap();
    // It answers what it can answer alone, and cannot tell that there is a key, nor write one.
    assert!(etcdctl(
        &server,
        leader,
        &["get", "k", "--consistency", "s"]
    ));
    assert!(!etcdctl(&server, leader, &["get", "k"]));
    assert!(!etcdctl(&server, leader, &["put", "k", "w"]));
    assert_eq!(
        server
            .metrics(leader)
            .unwrap()
            .count("etcd_server_has_leader"),
        0
    );

    server.heal(leader);
    assert!(poll(|| etcdctl(&server, leader, &["put", "k", "x"])));
    server.isolate(leader);
    assert!(!etcdctl(&server, leader, &["get", "k"]));
    server.heal(leader);
    assert!(poll(|| etcdctl(&server, leader, &["get", "k"])));
}

/// Runs etcdctl on one member, with no rights but its words'; says whether it succeeded.
fn etcdctl(server: &EtcdServer, member: usize, words: &[&str]) -> bool {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--command-timeout", "2s", "--dial-timeout", "2s"])
        .args(["--endpoints", &server.endpoints()[member]])
        .args(words)
        .output()
        .unwrap();
    output.status.success()
}

#[test]
fn lease_is_found_by_its_keys_and_goes_with_them() {
    for version in VERSIONS {
        let Some(server) = EtcdServer::builder().version(version).start_or_skip() else {
            continue;
        };
        let grant = || {
            let said = server.cli(&["lease", "grant", "60"]).unwrap();
            let id = said.split(' ').nth(1).unwrap().to_owned();
            (i64::from_str_radix(&id, 16).unwrap(), id)
        };
        let (one, two) = (grant(), grant());
        // The order is that of creation, not of the keys.
        for (key, lease) in [("p/b", &one), ("p/a", &two), ("q", &one)] {
            server.cli(&["put", key, "v", "--lease", &lease.1]).unwrap();
        }
        server.cli(&["put", "p/c", "without"]).unwrap();
        assert_eq!(server.leases_of("p/").unwrap(), [one.0, two.0]);
        assert!(server.revoke(one.0).unwrap());
        assert!(!server.revoke(one.0).unwrap());
        assert_eq!(server.keys().unwrap(), ["p/a", "p/c"]);
    }
}
