//! The fault proxy in front of a real Redis, and of something that is not Redis.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use std::{panic, thread};

use lock_conformance::fault::resp::{Reply, encode_command, is_command, parse_reply};
use lock_conformance::fault::{Connections, Proxy, Stats};
use lock_conformance::servers::RedisServer;

use crate::poll;

/// Far more than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Long enough that a reply that was let through would have come.
const SILENCE: Duration = Duration::from_millis(50);

#[test]
fn commands_and_replies_pass_and_are_counted() {
    let (server, proxy) = fixture();
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.ask(&["SET", "k", "a\r\nb"]), "OK");
    assert_eq!(client.ask(&["GET", "k"]), "a\r\nb");
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "a\r\nb");
    let stats = proxy.stats();
    assert_eq!((stats.accepted, stats.open, stats.open_upstream), (1, 1, 1));
    assert_eq!((stats.commands, stats.replies), (2, 2));
    let sent = encode_command(&["SET", "k", "a\r\nb"]).len() + encode_command(&["GET", "k"]).len();
    assert_eq!(stats.bytes_up, u64::try_from(sent).unwrap());
    assert_eq!(stats.bytes_down, 5 + 10);
}

#[test]
fn large_values_and_long_pipelines_pass_intact() {
    let (_server, proxy) = fixture();
    let mut client = Client::connect(proxy.addr());
    let large = "x".repeat(8 << 20);
    assert_eq!(client.ask(&["SET", "k", &large]), "OK");
    assert_eq!(client.ask(&["GET", "k"]), large);

    let mut writer = client.stream.try_clone().unwrap();
    let pipeline = encode_command(&["INCR", "n"]).repeat(20_000);
    let writing = thread::spawn(move || writer.write_all(&pipeline).unwrap());
    for n in 1..=20_000 {
        assert_eq!(client.reply(), Reply::Int(n));
    }
    writing.join().unwrap();
    assert_eq!(proxy.stats().commands, 20_002);
}

#[test]
fn close_by_the_client_reaches_the_server() {
    let (server, proxy) = fixture();
    let client = Client::connected(proxy.addr());
    assert_eq!(clients_of(&server), 1);
    drop(client);
    assert!(poll(|| clients_of(&server) == 0));
    let stats = proxy.wait_until(SOON, |stats| stats.open_upstream == 0);
    assert_eq!(stats.open, 0);
}

#[test]
fn death_of_the_server_reaches_the_client_and_so_does_its_absence() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    server.kill();
    assert!(client.is_closed());
    assert!(Client::connect(proxy.addr()).is_closed());
    server.restart();
    Client::connected(proxy.addr());
}

#[test]
fn cut_ends_all_connections_and_accepts_new_ones() {
    let (server, proxy) = fixture();
    let mut clients = [(); 3].map(|()| Client::connected(proxy.addr()));
    proxy.cut();
    let stats = proxy.stats();
    assert_eq!((stats.open, stats.open_upstream), (0, 0));
    for client in &mut clients {
        assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    }
    assert!(poll(|| clients_of(&server) == 0));
    Client::connected(proxy.addr());
}

#[test]
fn reset_is_a_reset() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.reset();
    let error = client.stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(poll(|| clients_of(&server) == 0));
    Client::connected(proxy.addr());
}

#[test]
fn refused_connections_are_refused_and_current_ones_go_on() {
    let (_server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    for _ in 0..3 {
        proxy.refuse();
        let error = TcpStream::connect(proxy.addr()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(client.ask(&["PING"]), "PONG");
        proxy.accept();
        Client::connected(proxy.addr());
    }
}

#[test]
fn black_hole_swallows_everything_until_it_heals() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    let dead = Client::connected(proxy.addr());
    proxy.black_hole();
    client.send(&["SET", "k", "v"]);
    let mut newcomer = Client::connect(proxy.addr());
    newcomer.send(&["PING"]);
    drop(dead);
    assert!(client.is_silent());
    assert!(newcomer.is_silent());
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "");
    // The close of the third is not seen either, and the newcomer not at all.
    assert_eq!(clients_of(&server), 2);

    proxy.heal();
    assert_eq!(client.reply().to_string(), "OK");
    assert_eq!(newcomer.reply().to_string(), "PONG");
    assert!(poll(|| clients_of(&server) == 2));
}

#[test]
fn connection_in_a_black_hole_can_be_cut() {
    let (_server, proxy) = fixture();
    proxy.black_hole();
    let mut client = Client::connect(proxy.addr());
    proxy.wait_until(SOON, |stats| stats.accepted == 1);
    proxy.cut();
    assert!(client.is_closed());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a real delay")]
fn delay_counts_both_ways_and_does_not_add_up() {
    let (_server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    let delay = Duration::from_millis(40);
    proxy.delay(delay);
    let start = Instant::now();
    for _ in 0..100 {
        client.send(&["PING"]);
    }
    for _ in 0..100 {
        assert_eq!(client.reply().to_string(), "PONG");
    }
    let took = start.elapsed();
    assert!(took >= 2 * delay, "{took:?}");
    assert!(took < 50 * delay, "{took:?}");

    // Zero also releases what is on its way.
    proxy.delay(Duration::from_secs(3600));
    client.send(&["PING"]);
    assert!(client.is_silent());
    proxy.delay(Duration::ZERO);
    assert_eq!(client.reply().to_string(), "PONG");
}

#[test]
fn held_replies_were_executed_and_come_when_released() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.hold_replies();
    client.send(&["INCR", "n"]);
    client.send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.held_replies == 2);
    assert_eq!(server.cli(&["GET", "n"]).unwrap(), "2");
    assert!(client.is_silent());
    proxy.release_replies();
    assert_eq!(client.reply(), Reply::Int(1));
    assert_eq!(client.reply(), Reply::Int(2));
    assert_eq!(proxy.stats().held_replies, 0);
}

#[test]
fn dropped_replies_were_executed_and_silence_the_connection() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    let mut idle = Client::connected(proxy.addr());
    proxy.drop_replies();
    client.send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.replies_dropped == 1);
    assert_eq!(server.cli(&["GET", "n"]).unwrap(), "1");

    proxy.pass();
    client.send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.replies_dropped == 2);
    assert!(client.is_silent());
    // A connection that lost nothing goes on, and so does a new one.
    assert_eq!(idle.ask(&["INCR", "n"]), "3");
    assert_eq!(Client::connect(proxy.addr()).ask(&["INCR", "n"]), "4");
}

#[test]
fn held_request_arrives_after_the_client_has_moved_on() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.hold_requests_matching(|message| is_command(message, "set"));
    client.send(&["GET", "k"]);
    client.send(&["SET", "k", "late"]);
    client.send(&["INCR", "behind"]);
    // What stood before the match has passed.
    assert_eq!(client.reply(), Reply::Nil);
    proxy.wait_until(SOON, |stats| stats.held_requests == 2);
    drop(client);
    proxy.wait_until(SOON, |stats| stats.open == 0 && stats.open_upstream == 1);

    // The same command on a new connection is not held: the client has moved on.
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.ask(&["SET", "k", "new"]), "OK");
    assert_eq!(proxy.stats().held_requests, 2);

    assert_eq!(proxy.deliver_held(), 2);
    proxy.wait_until(SOON, |stats| stats.late_replies == 2);
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "late");
    assert_eq!(server.cli(&["GET", "behind"]).unwrap(), "1");
    proxy.wait_until(SOON, |stats| stats.open_upstream == 1);
    assert_eq!(client.ask(&["GET", "k"]), "late");
}

#[test]
fn held_request_of_a_living_client_is_answered_once_delivered() {
    let (_server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.hold_requests_matching(|message| is_command(message, "INCR"));
    client.send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.held_requests == 1);
    assert!(client.is_silent());
    assert_eq!(proxy.deliver_held(), 1);
    assert_eq!(client.reply(), Reply::Int(1));
    assert_eq!(proxy.stats().late_replies, 0);
}

#[test]
fn held_request_survives_a_cut_and_a_reset_of_its_client() {
    for cut in [Connections::cut, Connections::reset] {
        let (server, proxy) = fixture();
        let mut client = Client::connected(proxy.addr());
        proxy.hold_requests_matching(|message| is_command(message, "SET"));
        client.send(&["SET", "k", "late"]);
        proxy.wait_until(SOON, |stats| stats.held_requests == 1);
        cut(&proxy);
        assert!(client.is_closed());
        assert_eq!(server.cli(&["GET", "k"]).unwrap(), "");
        proxy.deliver_held();
        proxy.wait_until(SOON, |stats| stats.late_replies == 1);
        assert_eq!(server.cli(&["GET", "k"]).unwrap(), "late");
    }
}

#[test]
fn discarded_request_never_arrives() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.hold_requests_matching(|message| is_command(message, "SET"));
    client.send(&["SET", "k", "lost"]);
    proxy.wait_until(SOON, |stats| stats.held_requests == 1);
    proxy.discard_held();
    assert!(client.is_closed());
    assert_eq!(proxy.stats().held_requests, 0);
    assert!(poll(|| clients_of(&server) == 0));
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "");
}

#[test]
fn pushes_are_dropped_and_confirmations_and_replies_pass() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    client.ask(&["HELLO", "3"]);
    proxy.drop_pushes();
    assert_eq!(client.ask(&["SUBSCRIBE", "c"]), "subscribe\nc\n1");
    server.cli(&["PUBLISH", "c", "lost"]).unwrap();
    proxy.wait_until(SOON, |stats| stats.pushes_dropped == 1);
    assert_eq!(client.ask(&["PING"]), "PONG");
    proxy.pass_pushes();
    server.cli(&["PUBLISH", "c", "heard"]).unwrap();
    assert_eq!(client.reply().to_string(), "message\nc\nheard");
}

#[test]
fn pass_takes_everything_back() {
    let (_server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.refuse();
    proxy.hold_replies();
    proxy.black_hole();
    proxy.drop_pushes();
    proxy.delay(Duration::from_secs(3600));
    proxy.hold_requests_matching(|_| true);
    client.send(&["PING"]);
    assert!(client.is_silent());
    proxy.pass();
    assert_eq!(client.reply().to_string(), "PONG");
    Client::connected(proxy.addr());
}

#[test]
fn other_protocols_pass_whoever_speaks_first_and_without_line_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let mut client = Client::connect(proxy.addr());
    let (mut server, _) = listener.accept().unwrap();

    server.write_all(b"*hello").unwrap();
    assert_eq!(client.exactly(6), b"*hello");
    client.stream.write_all(&[0, 0, 0, 44]).unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0, 44]);

    proxy.hold_requests_matching(|chunk| chunk == b"held");
    client.stream.write_all(b"held").unwrap();
    proxy.wait_until(SOON, |stats| stats.held_requests == 1);
    proxy.deliver_held();
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"held");
}

#[test]
fn half_closed_connections_still_carry_the_other_direction() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let mut client = Client::connect(proxy.addr());
    let (mut server, _) = listener.accept().unwrap();
    client.stream.write_all(b"question").unwrap();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(client.exactly(6), b"answer");
    assert!(client.is_closed());
}

#[test]
fn dropped_proxy_closes_its_connections_and_its_port() {
    let (_server, proxy) = fixture();
    let addr = proxy.addr();
    let mut client = Client::connected(addr);
    drop(proxy);
    assert!(client.is_closed());
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn condition_that_never_holds_fails_with_the_numbers() {
    let (_server, proxy) = fixture();
    let never = panic::AssertUnwindSafe(|| proxy.wait_until(SILENCE, |_| false));
    let message = panic::catch_unwind(never).unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("accepted: 0"), "{message}");
}

#[test]
fn conditions_can_be_awaited_on_the_runtime_of_the_client() {
    let (_server, proxy) = fixture();
    // Without a timer: the deadline is the proxy's business.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let addr = proxy.addr();
        let (client, stats) = tokio::join!(
            tokio::net::TcpStream::connect(addr),
            proxy.until(SOON, |stats: &Stats| stats.open == 1)
        );
        assert_eq!(stats.accepted, 1);
        drop(client);
        proxy.until(SOON, |stats| stats.open == 0).await;
    });
}

pub(crate) fn fixture() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    (server, proxy)
}

/// Connections the server has, the launcher's own aside.
pub(crate) fn clients_of(server: &RedisServer) -> usize {
    let list = server.cli(&["CLIENT", "LIST"]).unwrap();
    list.lines()
        .filter(|line| !line.contains("cmd=client"))
        .count()
}

/// A blocking client that sends whole RESP commands.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Connected all the way: the server has answered.
    pub(crate) fn connected(addr: SocketAddr) -> Client {
        let mut client = Client::connect(addr);
        assert_eq!(client.ask(&["PING"]), "PONG");
        client
    }

    pub(crate) fn send(&mut self, words: &[&str]) {
        self.stream.write_all(&encode_command(words)).unwrap();
    }

    pub(crate) fn ask(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.reply().to_string()
    }

    pub(crate) fn reply(&mut self) -> Reply {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some((reply, used)) = parse_reply(&self.unread).unwrap() {
                self.unread.drain(..used);
                return reply;
            }
            let n = self.stream.read(&mut chunk).unwrap();
            assert_ne!(n, 0, "closed instead of answered");
            self.unread.extend_from_slice(&chunk[..n]);
        }
    }

    pub(crate) fn exactly(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(SILENCE)).unwrap();
        let silent = self.stream.read(&mut [0]);
        self.stream.set_read_timeout(Some(SOON)).unwrap();
        silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
