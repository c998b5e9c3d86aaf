//! The fault proxy in front of a real etcd.

use std::future::Future;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::EtcdServer;
use tokio::task::JoinHandle;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// Long enough that an answer that was let through would have come.
const SILENCE: Duration = Duration::from_millis(50);

const PUT: &str = "KV/Put";
const WATCH: &str = "Watch/Watch";

#[test]
fn calls_pass_and_are_counted_by_method() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        client.put("k", b"v").await;
        let range = client.call("KV/Range", &field(1, b"k")).await;
        assert!(contains(&range, b"v"));
        assert_eq!(server.keys().unwrap(), ["k"]);
        let stats = proxy.stats();
        assert_eq!((stats.commands, stats.replies, stats.pushes), (2, 2, 0));
        let calls = proxy.calls();
        let names: Vec<_> = calls.iter().map(|call| &*call.name).collect();
        assert_eq!(names, [PUT, "KV/Range"]);
        // An error without any message is a reply too.
        client.call("KV/NoSuchMethod", b"").await;
        proxy.until(SOON, |stats| stats.replies == 3).await;
    });
}

#[test]
fn large_values_pass_intact_both_ways() {
    run(async |_, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        let large: Vec<u8> = (0..1_000_000).map(|i: u32| i.to_le_bytes()[1]).collect();
        client.put("k", &large).await;
        let range = client.call("KV/Range", &field(1, b"k")).await;
        assert!(contains(&range, &large));
        let stats = proxy.stats();
        assert_eq!((stats.commands, stats.replies), (2, 2));
    });
}

#[test]
fn clients_of_another_library_notice_nothing() {
    run(async |server, proxy| {
        let etcdctl = |words: &[&str]| {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").arg("--endpoints");
            let output = command.arg(proxy.addr().to_string()).args(words).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(etcdctl(&["put", "k", "v"]), "OK\n");
        assert_eq!(etcdctl(&["get", "k"]), "k\nv\n");
        assert!(etcdctl(&["lock", "l", "echo", "held"]).contains("held"));
        assert_eq!(server.keys().unwrap(), ["k"]);
    });
}

#[test]
fn held_request_holds_its_own_stream_only() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        proxy.hold_calls(PUT, |message| contains(message, b"held"));
        client.put("before", b"v").await;
        let held = client.send(PUT, &put("held", b"v")).await;
        proxy.until(SOON, |stats| stats.held_requests == 1).await;
        // Forgotten after its first match, and nothing else waits behind it.
        client.put("held too", b"v").await;
        assert_eq!(server.keys().unwrap(), ["before", "held too"]);

        assert_eq!(proxy.deliver_held(), 1);
        message(held.await.unwrap().into_body()).await;
        assert_eq!(server.keys().unwrap(), ["before", "held", "held too"]);
        assert_eq!(proxy.stats().late_replies, 0);
    });
}

#[test]
fn lost_request_takes_neither_other_streams_nor_their_room_with_it() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        // Of several frames, and as much as a connection may have under way at first.
        let large = vec![b'x'; 60_000];
        for lost in 1..=3 {
            proxy.drop_nth_request(2);
            client.put(&format!("kept {lost}"), &large).await;
            let answer = client.send(PUT, &put("lost", &large)).await;
            proxy.until(SOON, |s| s.requests_dropped == lost).await;
            client.put("other", &large).await;
            drop(answer);
        }
        assert_eq!(
            server.keys().unwrap(),
            ["kept 1", "kept 2", "kept 3", "other"]
        );
        assert_eq!(proxy.stats().accepted, 1);
    });
}

#[test]
fn held_request_arrives_after_the_client_has_given_it_up() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        proxy.hold_requests_matching(|message| contains(message, b"late"));
        let held = client.send(PUT, &put("late", b"v")).await;
        proxy.until(SOON, |stats| stats.held_requests == 1).await;
        // What a dropped future does: the stream is reset, and the connection goes on.
        drop(held);
        client.put("other", b"v").await;
        assert_eq!(server.keys().unwrap(), ["other"]);

        assert_eq!(proxy.deliver_held(), 1);
        proxy.until(SOON, |stats| stats.late_replies == 1).await;
        assert_eq!(server.keys().unwrap(), ["late", "other"]);
        client.put("after", b"v").await;
        assert_eq!(proxy.stats().accepted, 1);
    });
}

#[test]
fn held_request_arrives_after_the_client_has_gone() {
    for end in [Client::close, Client::abort] {
        run(async |server, proxy| {
            let mut client = Client::connect(proxy.addr()).await;
            proxy.hold_calls(PUT, |_| true);
            let held = client.send(PUT, &put("late", b"v")).await;
            proxy.until(SOON, |stats| stats.held_requests == 1).await;
            drop(held);
            end(client);
            let gone = proxy.until(SOON, |stats| stats.open == 0).await;
            assert_eq!((gone.open_upstream, gone.held_requests), (1, 1));
            assert!(server.keys().unwrap().is_empty());

            assert_eq!(proxy.deliver_held(), 1);
            proxy.until(SOON, |stats| stats.late_replies == 1).await;
            assert_eq!(server.keys().unwrap(), ["late"]);
            proxy.until(SOON, |stats| stats.open_upstream == 0).await;
        });
    }
}

#[test]
fn held_request_survives_a_cut_and_can_be_discarded() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        proxy.hold_calls(PUT, |_| true);
        let held = client.send(PUT, &put("late", b"v")).await;
        proxy.until(SOON, |stats| stats.held_requests == 1).await;
        proxy.cut();
        assert!(held.await.is_err());
        assert_eq!(proxy.stats().open_upstream, 1);
        proxy.discard_held();
        assert_eq!(
            (proxy.stats().open_upstream, proxy.stats().held_requests),
            (0, 0)
        );
        assert!(server.keys().unwrap().is_empty());
    });
}

#[test]
fn held_replies_were_executed_and_come_when_released() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        proxy.hold_replies();
        let mut held = client.send(PUT, &put("k", b"v")).await;
        proxy.until(SOON, |stats| stats.held_replies == 1).await;
        assert_eq!(server.keys().unwrap(), ["k"]);
        assert!(tokio::time::timeout(SILENCE, &mut held).await.is_err());
        proxy.release_replies();
        message(held.await.unwrap().into_body()).await;
    });
}

#[test]
fn events_are_dropped_and_what_a_watch_answers_otherwise_passes() {
    run(async |server, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        let mut watch = client.watch("k").await;
        proxy.drop_pushes();
        // Far more than a stream, or a connection, may carry before somebody takes it.
        let (rounds, large) = (40, vec![b'x'; 20_000]);
        for _ in 0..rounds {
            client.put("k", &large).await;
        }
        proxy
            .until(SOON, |stats| stats.pushes_dropped == rounds)
            .await;
        // A second watch on the same stream is confirmed.
        watch.create("other").await;
        assert!(is_created(&watch.answer().await));

        proxy.pass_pushes();
        client.put("k", b"heard").await;
        let event = watch.answer().await;
        assert!(contains(&event, b"heard") && !contains(&event, b"xxx"));
        assert_eq!(
            (server.watchers().unwrap(), server.watch_streams().unwrap()),
            (2, 1)
        );
        assert_eq!(server.watch_events().unwrap(), rounds + 1);
        let stats = proxy.stats();
        assert_eq!((stats.pushes, stats.pushes_dropped), (rounds + 1, rounds));
    });
}

#[test]
fn long_event_is_dropped_as_a_whole_and_passes_as_a_whole() {
    run(async |_, proxy| {
        let mut client = Client::connect(proxy.addr()).await;
        let mut watch = client.watch("k").await;
        let large: Vec<u8> = (0..1_000_000).map(|i: u32| i.to_le_bytes()[1]).collect();
        proxy.drop_pushes();
        client.put("k", &large).await;
        proxy.until(SOON, |stats| stats.pushes_dropped == 1).await;
        proxy.pass_pushes();
        client.put("k", &large).await;
        assert!(contains(&watch.answer().await, &large));
    });
}

/// Runs a test on an etcd with a proxy in front of it; not at all, said loudly, where etcd may be missing and is.
fn run(test: impl AsyncFnOnce(&EtcdServer, &Proxy)) {
    let Some(server) = EtcdServer::start_or_skip() else {
        return;
    };
    let proxy = Proxy::start_with(server.addr(), Protocol::Http2);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test(&server, &proxy));
}

/// One connection, and calls on it.
struct Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Client {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move {
            // It may end in any way.
            let _ = connection.await;
        });
        Client {
            requests,
            connection,
        }
    }

    /// Leaves in an orderly way.
    fn close(self) {
        drop(self.requests);
    }

    /// Is gone.
    fn abort(self) {
        self.connection.abort();
    }

    /// Sends a call and its only message.
    async fn send(&mut self, method: &str, message: &[u8]) -> ResponseFuture {
        let (answer, mut stream) = self.open(method).await;
        write(&mut stream, message, true).await;
        answer
    }

    /// Sends a call, gives the first message of the answer.
    async fn call(&mut self, method: &str, request: &[u8]) -> Vec<u8> {
        let answer = self.send(method, request).await.await.unwrap();
        message(answer.into_body()).await
    }

    async fn put(&mut self, key: &str, value: &[u8]) {
        self.call(PUT, &put(key, value)).await;
    }

    /// Opens a stream of watches, and one on `key`.
    async fn watch(&mut self, key: &str) -> Watch {
        let (answer, requests) = self.open(WATCH).await;
        let mut requests = requests;
        write(&mut requests, &create_watch(key), false).await;
        let mut watch = Watch {
            requests,
            answers: soon(answer).await.unwrap().into_body(),
            unread: Vec::new(),
        };
        assert!(is_created(&watch.answer().await));
        watch
    }

    async fn open(&mut self, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://etcd/etcdserverpb.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        requests.send_request(request, false).unwrap()
    }
}

struct Watch {
    requests: SendStream<Bytes>,
    answers: RecvStream,
    unread: Vec<u8>,
}

impl Watch {
    async fn create(&mut self, key: &str) {
        write(&mut self.requests, &create_watch(key), false).await;
    }

    async fn answer(&mut self) -> Vec<u8> {
        soon(read(&mut self.answers, &mut self.unread))
            .await
            .unwrap()
    }
}

/// The first message of an answer; empty if there is none.
async fn message(mut body: RecvStream) -> Vec<u8> {
    soon(read(&mut body, &mut Vec::new()))
        .await
        .unwrap_or_default()
}

/// Reads one message, and gives back the room it took.
async fn read(body: &mut RecvStream, unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(len) = unread.get(1..5) {
            let end = 5 + usize::try_from(u32::from_be_bytes(len.try_into().unwrap())).unwrap();
            if unread.len() >= end {
                return Some(unread.drain(..end).skip(5).collect());
            }
        }
        let chunk = body.data().await?.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        unread.extend_from_slice(&chunk);
    }
}

/// Writes one message, as the other side makes room for it.
async fn write(stream: &mut SendStream<Bytes>, message: &[u8], end: bool) {
    let len = u32::try_from(message.len()).unwrap();
    let mut rest = Bytes::from([&[0], &len.to_be_bytes()[..], message].concat());
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = soon(std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
        let part = rest.split_to(room.unwrap().unwrap().min(rest.len()));
        stream.send_data(part, end && rest.is_empty()).unwrap();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("an answer in time")
}

fn put(key: &str, value: &[u8]) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, value)].concat()
}

fn create_watch(key: &str) -> Vec<u8> {
    field(1, &field(1, key.as_bytes()))
}

/// Whether an answer to a watch says that one was created: field 3, a number, is 1.
fn is_created(answer: &[u8]) -> bool {
    contains(answer, &[3 << 3, 1])
}

/// A protobuf field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len > 0x7f {
        field.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    field.push(u8::try_from(len).unwrap());
    field.extend_from_slice(bytes);
    field
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
