//! The fault proxy's switches for some connections only, connections that one side believes in, and lost messages.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use lock_conformance::fault::resp::Reply;
use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::RedisServer;

use crate::poll;
use crate::proxy::{Client, SOON, clients_of, fixture};

#[test]
fn switch_for_one_connection_leaves_the_others_alone() {
    let (_server, proxy) = fixture();
    let mut first = Client::connected(proxy.addr());
    let mut second = Client::connected(proxy.addr());
    proxy.connection(2).black_hole();
    second.send(&["PING"]);
    assert!(second.is_silent());
    assert_eq!(first.ask(&["PING"]), "PONG");
    Client::connected(proxy.addr());
    // The other switch for the same connection is the same connection's.
    proxy.connection(2).heal();
    assert_eq!(second.reply().to_string(), "PONG");
}

#[test]
fn switch_can_be_set_before_its_connection_comes() {
    let (server, proxy) = fixture();
    proxy.connection(2).hold_replies();
    Client::connected(proxy.addr());
    let mut second = Client::connect(proxy.addr());
    second.send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.held_replies == 1);
    assert_eq!(server.cli(&["GET", "n"]).unwrap(), "1");
    // What holds for all does not take back what holds for one.
    proxy.release_replies();
    assert!(second.is_silent());
    proxy.pass();
    assert_eq!(second.reply(), Reply::Int(1));
}

#[test]
fn connections_are_selected_by_their_client() {
    let (_server, proxy) = fixture();
    let mut clients = [(); 4].map(|()| Client::connected(proxy.addr()));
    let chosen = clients[1].addr();
    let even = proxy.connections(|peer| peer.number % 2 == 0);
    proxy.connections(move |peer| peer.addr == chosen).cut();
    assert!(clients[1].is_closed());
    assert_eq!(proxy.stats().open, 3);
    even.cut();
    assert!(clients[3].is_closed());
    assert_eq!(clients[0].ask(&["PING"]), "PONG");
    assert_eq!(clients[2].ask(&["PING"]), "PONG");
}

#[test]
fn request_is_held_on_the_connection_it_was_to_be_held_on() {
    let (server, proxy) = fixture();
    let mut clients = [(); 2].map(|()| Client::connected(proxy.addr()));
    let second = proxy.connection(2);
    second.hold_requests_matching(|_| true);
    assert_eq!(clients[0].ask(&["INCR", "n"]), "1");
    clients[1].send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.held_requests == 1);
    assert_eq!(proxy.connection(1).deliver_held(), 0);
    assert_eq!(server.cli(&["GET", "n"]).unwrap(), "1");
    assert_eq!(second.deliver_held(), 1);
    assert_eq!(clients[1].reply(), Reply::Int(2));
}

#[test]
fn client_believes_in_a_connection_that_its_server_has_dropped() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.half_open();
    proxy.cut_server();
    assert!(poll(|| clients_of(&server) == 0));
    client.send(&["SET", "k", "swallowed"]);
    assert!(client.is_silent());
    assert_eq!(server.cli(&["GET", "k"]).unwrap(), "");
    // A new connection is whole.
    Client::connected(proxy.addr());
    proxy.tell_closes();
    assert!(client.is_closed());
}

#[test]
fn client_believes_in_a_connection_that_its_server_has_closed_by_itself() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.connection(1).half_open();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    assert!(poll(|| clients_of(&server) == 0));
    client.send(&["PING"]);
    assert!(client.is_silent());
    proxy.connection(1).tell_closes();
    assert!(client.is_closed());
}

#[test]
fn server_believes_in_a_connection_that_its_client_has_dropped() {
    let (server, proxy) = fixture();
    let client = Client::connected(proxy.addr());
    let mut other = Client::connected(proxy.addr());
    proxy.connection(1).half_open();
    drop(client);
    proxy.wait_until(SOON, |stats| stats.open == 1);
    assert_eq!(clients_of(&server), 2);
    proxy.half_open();
    proxy.connection(2).cut_client();
    assert!(other.is_closed());
    assert_eq!((proxy.stats().open, clients_of(&server)), (0, 2));
    proxy.pass();
    assert!(poll(|| clients_of(&server) == 0));
}

#[test]
fn half_open_connection_can_be_cut() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.half_open();
    proxy.cut_server();
    proxy.reset();
    assert!(client.is_closed());
    assert_eq!(proxy.stats().open, 0);
    assert!(poll(|| clients_of(&server) == 0));
}

#[test]
fn nth_request_is_never_executed_and_nothing_behind_it() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.drop_nth_request(2);
    assert_eq!(client.ask(&["INCR", "n"]), "1");
    client.send(&["INCR", "n"]);
    client.send(&["INCR", "n"]);
    let stats = proxy.wait_until(SOON, |stats| stats.requests_dropped == 2);
    assert_eq!(stats.commands, 2);
    assert!(client.is_silent());
    assert_eq!(server.cli(&["GET", "n"]).unwrap(), "1");
    // The number is used up: other connections go on.
    assert_eq!(Client::connect(proxy.addr()).ask(&["INCR", "n"]), "2");
}

#[test]
fn nth_reply_is_lost_after_its_request_was_executed() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    proxy.drop_nth_reply(3);
    client.send(&["INCR", "n"]);
    client.send(&["INCR", "n"]);
    client.send(&["INCR", "n"]);
    proxy.wait_until(SOON, |stats| stats.replies_dropped == 1);
    assert_eq!(client.reply(), Reply::Int(1));
    assert_eq!(client.reply(), Reply::Int(2));
    assert!(client.is_silent());
    assert_eq!(server.cli(&["GET", "n"]).unwrap(), "3");
}

#[test]
fn nth_push_is_lost_alone() {
    let (server, proxy) = fixture();
    let mut client = Client::connected(proxy.addr());
    client.ask(&["HELLO", "3"]);
    client.ask(&["SUBSCRIBE", "c"]);
    proxy.drop_nth_push(2);
    for text in ["one", "two", "three"] {
        server.cli(&["PUBLISH", "c", text]).unwrap();
    }
    assert_eq!(client.reply().to_string(), "message\nc\none");
    assert_eq!(client.reply().to_string(), "message\nc\nthree");
    assert_eq!(proxy.stats().pushes_dropped, 1);
    assert_eq!(client.ask(&["PING"]), "PONG");
}

#[test]
fn messages_are_counted_on_the_connections_that_were_chosen() {
    let (_server, proxy) = fixture();
    let mut clients = [(); 2].map(|()| Client::connected(proxy.addr()));
    proxy.connection(2).drop_nth_request(1);
    for _ in 0..3 {
        assert_eq!(clients[0].ask(&["PING"]), "PONG");
    }
    clients[1].send(&["PING"]);
    proxy.wait_until(SOON, |stats| stats.requests_dropped == 1);
    // Zero takes it back, for whoever was counted for.
    proxy.connection(1).drop_nth_request(1);
    proxy.connection(1).drop_nth_request(0);
    assert_eq!(clients[0].ask(&["PING"]), "PONG");
}

#[test]
fn chunks_of_an_unknown_protocol_are_lost_by_number_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start_with(listener.local_addr().unwrap(), Protocol::Raw);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    proxy.drop_nth_request(2);
    let mut byte = [0];
    client.write_all(b"a").unwrap();
    server.read_exact(&mut byte).unwrap();
    client.write_all(b"b").unwrap();
    proxy.wait_until(SOON, |stats| stats.requests_dropped == 1);
    server.write_all(b"c").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"c");
    proxy.drop_nth_reply(1);
    server.write_all(b"d").unwrap();
    proxy.wait_until(SOON, |stats| stats.replies_dropped == 1);
    // Both directions are silent, and closing is still told.
    drop(client);
    assert_eq!(server.read(&mut byte).unwrap(), 0);
}

#[test]
fn redirected_proxy_leads_newcomers_to_another_server() {
    let (old, proxy) = fixture();
    let new = RedisServer::start();
    let mut before = Client::connected(proxy.addr());
    proxy.redirect(new.addr());
    let mut after = Client::connected(proxy.addr());
    assert_eq!(before.ask(&["SET", "k", "old"]), "OK");
    assert_eq!(after.ask(&["SET", "k", "new"]), "OK");
    assert_eq!(old.cli(&["GET", "k"]).unwrap(), "old");
    assert_eq!(new.cli(&["GET", "k"]).unwrap(), "new");
    proxy.pass();
    assert_eq!(Client::connect(proxy.addr()).ask(&["GET", "k"]), "old");
}
