//! ZooKeeper's protocol.

use super::{Splitter, Way};
use crate::fault::jute::{Answer, answer, message_len, request};
use crate::fault::proxy::message::{Call, Kind, Message};

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Codec {
    up: Direction,
    down: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    splitter: Splitter,
    /// The first message each way is about the session and is laid out unlike the others.
    begun: bool,
}

impl Codec {
    pub(super) fn feed(&mut self, way: Way, chunk: &[u8]) -> Vec<Message> {
        let direction = self.direction(way);
        let messages = direction.splitter.feed(chunk, message_len).into_iter();
        messages
            .map(|message| match message {
                Err(garbage) => Message::new(garbage, Kind::Raw),
                Ok(message) => {
                    let is_first = !std::mem::replace(&mut direction.begun, true);
                    match way {
                        Way::Up => from_client(message, is_first),
                        Way::Down => from_server(message, is_first),
                    }
                }
            })
            .collect()
    }

    pub(super) fn rest(&mut self, way: Way) -> Vec<u8> {
        self.direction(way).splitter.rest()
    }

    fn direction(&mut self, way: Way) -> &mut Direction {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

fn from_client(message: Vec<u8>, is_first: bool) -> Message {
    let call = match request(&message).filter(|_| !is_first) {
        Some(request) if request.name == "ping" => return Message::new(message, Kind::Upkeep),
        Some(request) => Call {
            name: request.name,
            path: request.path,
        },
        None => Call {
            name: String::from(if is_first { "connect" } else { "unknown" }),
            ..Call::default()
        },
    };
    Message::new(message, Kind::Command).asking(call, 0)
}

fn from_server(message: Vec<u8>, is_first: bool) -> Message {
    let kind = match answer(&message) {
        Answer::Watch if !is_first => Kind::Push,
        Answer::Ping if !is_first => Kind::Upkeep,
        _ => Kind::Reply,
    };
    Message::new(message, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::jute::Writer;

    fn message(numbers: &[i32], path: &str) -> Vec<u8> {
        let mut message = Writer::default();
        for number in numbers {
            message.int(*number);
        }
        message.string(path);
        message.framed()
    }

    #[test]
    fn requests_are_told_from_the_session_and_from_pings_however_they_are_chunked() {
        let stream = [
            // Looks like a watch's number, and is the session's request.
            message(&[-1, 11], ""),
            message(&[1, 4], "/a"),
            message(&[-2, 11], ""),
        ]
        .concat();
        for size in 1..=stream.len() {
            let mut codec = Codec::default();
            let messages: Vec<_> = stream
                .chunks(size)
                .flat_map(|chunk| codec.feed(Way::Up, chunk))
                .collect();
            let kinds: Vec<_> = messages.iter().map(|message| message.kind).collect();
            assert_eq!(kinds, [Kind::Command, Kind::Command, Kind::Upkeep]);
            let names: Vec<_> = messages
                .iter()
                .filter_map(|message| message.call.as_ref())
                .map(|call| (&*call.name, &*call.path))
                .collect();
            assert_eq!(names, [("connect", ""), ("getData", "/a")]);
        }
    }

    #[test]
    fn fired_watches_are_pushes_and_pings_are_not_counted() {
        let mut codec = Codec::default();
        let stream = [-1, 1, -1, -2].map(|xid| message(&[xid], "")).concat();
        let messages = codec.feed(Way::Down, &stream);
        let kinds: Vec<_> = messages.iter().map(|message| message.kind).collect();
        assert_eq!(kinds, [Kind::Reply, Kind::Reply, Kind::Push, Kind::Upkeep]);
    }

    #[test]
    fn words_are_passed_on_as_they_come() {
        let mut codec = Codec::default();
        let word = Message::new(b"srvr".to_vec(), Kind::Raw);
        assert_eq!(codec.feed(Way::Up, b"srvr"), [word]);
    }
}
