//! The launchers against the real servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io, panic};

use lock_conformance::servers::{RedisServer, StartError, ValkeyServer};

use crate::cleanup::is_alive;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn server_answers_and_is_gone_after_drop() {
    let server = RedisServer::start();
    assert!(server.port() < 32_768);
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
    assert_eq!(server.cli(&["PING"]).unwrap(), "PONG");
    let (pid, dir) = (server.pid().unwrap(), directory(&server));
    drop(server);
    assert!(!is_alive(pid));
    assert!(!dir.exists());
}

#[test]
fn server_is_gone_after_a_panic() {
    let server = RedisServer::start();
    let pid = server.pid().unwrap();
    let result = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _server = server;
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert!(!is_alive(pid));
}

#[test]
fn missing_binary_names_the_install_command() {
    let error = RedisServer::builder()
        .binary("no-such-redis-server")
        .try_start()
        .unwrap_err();
    assert!(matches!(error, StartError::Missing { .. }));
    assert_eq!(
        error.to_string(),
        "no-such-redis-server is not installed; install it with `apt-get install redis-server`"
    );
}

#[test]
fn refused_configuration_shows_the_servers_own_words() {
    let error = RedisServer::builder()
        .config("no-such-setting", "1")
        .try_start()
        .unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[test]
fn restart_keeps_port_and_with_persistence_the_data() {
    let server = RedisServer::builder().persistence(true).start();
    let port = server.port();
    server.cli(&["SET", "k", "v"]).unwrap();
    server.kill();
    assert_eq!(server.pid(), None);
    assert!(server.cli(&["PING"]).is_err());
    server.restart();
    assert_eq!(server.port(), port);
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "v");
}

#[test]
fn restart_without_persistence_forgets() {
    let server = RedisServer::start();
    server.cli(&["SET", "k", "v"]).unwrap();
    server.restart();
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "");
}

#[test]
fn paused_server_answers_once_resumed() {
    let server = RedisServer::start();
    let mut client = TcpStream::connect(server.addr()).unwrap();
    server.pause();
    client.write_all(b"PING\r\n").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let silence = client.read(&mut [0; 16]).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
    assert!(server.is_paused());

    server.resume();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn paused_server_can_be_dropped() {
    let server = RedisServer::start();
    let pid = server.pid().unwrap();
    server.pause();
    drop(server);
    assert!(!is_alive(pid));
}

#[test]
fn error_reply_is_an_error_and_the_next_command_works() {
    let server = RedisServer::start();
    server.cli(&["SET", "k", "v"]).unwrap();
    let error = server.cli(&["LPUSH", "k", "x"]).unwrap_err();
    assert!(error.to_string().starts_with("WRONGTYPE"), "{error}");
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "v");
}

#[test]
fn password_shuts_out_clients_but_not_the_launcher() {
    let server = RedisServer::builder().password("sesame").start();
    assert_eq!(
        server.url(),
        format!("redis://:sesame@127.0.0.1:{}", server.port())
    );
    assert!(talk(&server, "PING").starts_with("-NOAUTH"));
    assert_eq!(talk(&server, "AUTH sesame"), "+OK");
    assert_eq!(server.cli(&["PING"]).unwrap(), "PONG");
}

#[test]
fn acl_user_has_just_its_rights() {
    let server = RedisServer::builder()
        .acl_user("alice on >secret ~a* -@all +get")
        .acl_user("default off")
        .start();
    let mut client = Client::connect(&server);
    assert!(client.send("PING").starts_with("-NOAUTH"));
    assert_eq!(client.send("AUTH alice secret"), "+OK");
    assert_eq!(client.send("GET a1"), "$-1");
    assert!(client.send("SET a1 x").starts_with("-NOPERM"));
}

#[test]
fn tls_server_has_a_certificate_of_its_authority_and_a_plain_port() {
    let server = RedisServer::builder().tls().start();
    assert_eq!(talk(&server, "PING"), "+PONG");
    let ca = fs::read_to_string(server.ca_path().unwrap()).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
    let tls_port = server.tls_port().unwrap();
    assert_eq!(
        server.tls_url(),
        Some(format!("rediss://127.0.0.1:{tls_port}"))
    );
    // A TLS alert, not a RESP reply: it is TLS that is spoken there.
    let mut stream = TcpStream::connect(("127.0.0.1", tls_port)).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"+PONG"), "{answer:?}");
}

#[test]
fn monitor_counts_what_clients_send_and_nothing_else() {
    let server = RedisServer::start();
    let mut client = Client::connect(&server);
    client.send("SET before 1");
    let mut monitor = server.monitor().unwrap();
    client.send("SET k 1");
    client.send(r#"EVAL "redis.call('incr', 'k')" 0"#);
    server.cli(&["GET", "k"]).unwrap();

    let lines = monitor.client_lines().unwrap();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].ends_with(r#""SET" "k" "1""#), "{lines:#?}");
    let lua = monitor.lua_lines().unwrap();
    assert_eq!(lua.len(), 1, "{lua:#?}");

    monitor.clear().unwrap();
    assert!(monitor.client_lines().unwrap().is_empty());
    assert_eq!(server.commandstats().unwrap()["incr"], 1);
}

#[test]
fn keys_without_ttl_are_found() {
    let server = RedisServer::start();
    server.cli(&["SET", "stays\nfor ever", "1"]).unwrap();
    server.cli(&["SET", "goes", "1", "EX", "100"]).unwrap();
    assert_eq!(server.keys_without_ttl().unwrap(), ["stays\nfor ever"]);
    assert_eq!(server.keys().unwrap(), ["goes", "stays\nfor ever"]);
}

#[test]
fn launcher_survives_being_disconnected() {
    let server = RedisServer::start();
    server.cli(&["PING"]).unwrap();
    let mut client = Client::connect(&server);
    client.send("CLIENT KILL TYPE normal SKIPME yes");
    assert_eq!(server.cli(&["PING"]).unwrap(), "PONG");
}

#[test]
fn many_servers_start_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(RedisServer::start().cli(&["PING"]).unwrap(), "PONG"));
        }
    });
}

#[test]
fn valkey_clock_steps_both_ways_while_it_runs() {
    let Some(server) = ValkeyServer::start_or_skip() else {
        return;
    };
    let start = server.time().unwrap();
    for step in [HOUR, HOUR / 2, 3 * SECOND] {
        let seconds = i64::try_from(step.as_secs()).unwrap();
        server.set_clock_offset(seconds).unwrap();
        assert!(server.time().unwrap() >= start + step - SECOND);
        server.set_clock_offset(-seconds).unwrap();
        assert!(server.time().unwrap() < start - step + 2 * SECOND);
    }
    server.set_clock_offset(0).unwrap();
    assert!(server.time().unwrap() >= start);
}

#[test]
fn valkey_expiry_follows_the_stepped_clock() {
    let Some(server) = ValkeyServer::start_or_skip() else {
        return;
    };
    server.cli(&["SET", "k", "v", "EX", "600"]).unwrap();
    server.set_clock_offset(-3600).unwrap();
    let left: i64 = server.cli(&["TTL", "k"]).unwrap().parse().unwrap();
    assert!(left > 4000, "{left}");
    server.set_clock_offset(3600).unwrap();
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "");
}

#[test]
fn valkey_clock_set_during_a_pause_or_restart_holds() {
    let Some(server) = ValkeyServer::start_or_skip() else {
        return;
    };
    let start = server.time().unwrap();
    server.pause();
    server.set_clock_offset(3600).unwrap();
    server.resume();
    server.confirm_offset(3600).unwrap();
    assert!(server.time().unwrap() >= start + HOUR - SECOND);
    server.restart();
    assert!(server.time().unwrap() >= start + HOUR - SECOND);
}

/// One connection as a test's client has it.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(server: &RedisServer) -> Client {
        let stream = TcpStream::connect(server.addr()).unwrap();
        Client {
            stream: BufReader::new(stream),
        }
    }

    /// Sends an inline command, gives the first line of the answer.
    fn send(&mut self, command: &str) -> String {
        let stream = self.stream.get_mut();
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .unwrap();
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

fn talk(server: &RedisServer, command: &str) -> String {
    Client::connect(server).send(command)
}

fn directory(server: &RedisServer) -> PathBuf {
    server.cli(&["CONFIG", "GET", "dir"]).unwrap()["dir\n".len()..].into()
}
