//! The ZooKeeper launcher against the real server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lock_conformance::servers::{ZooKeeperMode, ZooKeeperServer};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::poll;
use crate::zookeeper_client::Client;

const EPHEMERAL: i32 = 1;
/// The number of a pong.
const PONG: i32 = -2;

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

#[test]
fn tls_server_has_a_certificate_of_its_authority_and_a_plain_port() {
    let Some(server) = ZooKeeperServer::builder().members(3).tls().start_or_skip() else {
        return;
    };
    server.create("/k", b"v").unwrap();
    assert_eq!(server.tls_endpoints().len(), 3);
    let ca = server.ca_path().unwrap();
    for endpoint in server.tls_endpoints() {
        assert!(ask_over_tls(&endpoint, ca, "srvr").contains("Mode: "));
    }
}

/// Asks a four-letter word of a server whose certificate that authority has signed.
fn ask_over_tls(endpoint: &str, ca: &Path, word: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(endpoint).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = [0; 1024];
    let n = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

fn zxid_line(answer: &str) -> Option<String> {
    let line = answer.lines().find(|line| line.starts_with("Zxid"));
    line.map(str::to_owned)
}

#[test]
fn log_tells_which_nodes_came_and_went_in_which_order() {
    for members in [1, 3] {
        let builder = ZooKeeperServer::builder().members(members);
        let Some(server) = builder.start_or_skip() else {
            return;
        };
        server.create("/a", b"data").unwrap();
        let created = server.zxid().unwrap();
        let mut client = Client::connect(server.member(members - 1).addr());
        client.create("/a/mine", EPHEMERAL);
        assert!(server.kill_session(client.session).unwrap());
        if members == 1 {
            // What was logged before a kill is followed by what is logged after it.
            server.kill();
            server.restart();
        }
        server.delete("/a").unwrap();
        let changes = server.changes().unwrap();
        let seen: Vec<_> = changes.iter().map(|c| (&*c.path, c.created)).collect();
        let expected = [
            ("/a", true),
            ("/a/mine", true),
            ("/a/mine", false),
            ("/a", false),
        ];
        assert_eq!(seen, expected);
        assert!(changes[0].zxid <= created && created < changes[1].zxid);
        assert!(changes.is_sorted_by(|one, next| one.zxid < next.zxid));
    }
}

#[test]
fn wall_clock_steps_both_ways_and_sessions_do_not_care() {
    let builder = ZooKeeperServer::builder().steppable_clock();
    let Some(server) = builder.start_or_skip() else {
        return;
    };
    let mut client = Client::connect(server.addr());
    client.create("/mine", EPHEMERAL);
    for day in [86_400, -86_400, 0] {
        server.set_clock_offset(day).unwrap();
        client.ping();
        assert_eq!(client.answer().xid, PONG);
        assert_eq!(server.nodes("/").unwrap(), ["/mine"]);
    }
    server.set_clock_offset(86_400).unwrap();
    server.kill();
    server.restart();
    let off = server.time().unwrap().abs_diff(true_time());
    assert!(off.abs_diff(Duration::from_secs(86_400)) < Duration::from_secs(60));
}

#[expect(clippy::disallowed_methods, reason = "compares a real server's clock")]
fn true_time() -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap()
}
