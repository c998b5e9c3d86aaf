//! Redis' protocol.

use super::{Splitter, Way};
use crate::fault::proxy::message::{Kind, Message};
use crate::fault::resp::{message_len, push_kind};

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Codec {
    /// Whether RESP is spoken; unknown until the client's first bytes.
    is_resp: Option<bool>,
    up: Splitter,
    down: Splitter,
}

impl Codec {
    pub(super) fn feed(&mut self, way: Way, chunk: &[u8]) -> Vec<Message> {
        // The client's first bytes decide; later chunks may begin anywhere.
        let is_resp = match way {
            Way::Up => *self.is_resp.get_or_insert_with(|| is_resp(chunk)),
            Way::Down => self.is_resp == Some(true),
        };
        if !is_resp {
            return vec![Message::new(chunk.to_vec(), Kind::Raw)];
        }
        let (splitter, kind_of): (_, fn(&[u8]) -> Kind) = match way {
            Way::Up => (&mut self.up, |_| Kind::Command),
            Way::Down => (&mut self.down, kind_down),
        };
        let messages = splitter.feed(chunk, message_len).into_iter();
        messages
            .map(|message| match message {
                Ok(message) => {
                    let kind = kind_of(&message);
                    Message::new(message, kind)
                }
                Err(garbage) => Message::new(garbage, Kind::Raw),
            })
            .collect()
    }

    pub(super) fn rest(&mut self, way: Way) -> Vec<u8> {
        match way {
            Way::Up => self.up.rest(),
            Way::Down => self.down.rest(),
        }
    }
}

/// Whether a client that begins with `first` speaks RESP: every client library sends arrays. Other protocols (TLS,
/// HTTP/2, ZooKeeper's) begin with something else, and must not be held back to look for an end of line.
fn is_resp(first: &[u8]) -> bool {
    first.first() == Some(&b'*')
}

/// What a message from the server is. A confirmation is written as a push in RESP3, but answers a command.
fn kind_down(message: &[u8]) -> Kind {
    match push_kind(message) {
        Some(kind) if kind.ends_with(b"subscribe") => Kind::Reply,
        Some(_) => Kind::Push,
        None => Kind::Reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_chunked() {
        let stream = b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        for size in 1..=stream.len() {
            let mut codec = Codec::default();
            let messages: Vec<_> = stream
                .chunks(size)
                .flat_map(|chunk| codec.feed(Way::Up, chunk))
                .collect();
            assert_eq!(messages.len(), 2, "chunks of {size}");
            assert_eq!(messages[0].bytes, stream[..14]);
            assert_eq!(messages[1].bytes, stream[14..]);
            assert!(codec.rest(Way::Up).is_empty());
        }
    }

    #[test]
    fn garbage_is_passed_on_as_it_comes() {
        let mut codec = Codec::default();
        codec.feed(Way::Up, b"*");
        let messages = codec.feed(Way::Down, b":1\r\n$zz\r\nabc");
        assert_eq!(
            messages,
            [
                Message::new(b":1\r\n".to_vec(), Kind::Reply),
                Message::new(b"$zz\r\nabc".to_vec(), Kind::Raw)
            ]
        );
        assert_eq!(codec.feed(Way::Down, b"x")[0].kind, Kind::Raw);
    }

    #[test]
    fn confirmations_are_replies_and_messages_are_pushes() {
        let push = |kind: &str| format!(">1\r\n${}\r\n{kind}\r\n", kind.len()).into_bytes();
        for kind in ["subscribe", "ssubscribe", "punsubscribe"] {
            assert_eq!(kind_down(&push(kind)), Kind::Reply, "{kind}");
        }
        for kind in ["message", "smessage", "pmessage", "invalidate"] {
            assert_eq!(kind_down(&push(kind)), Kind::Push, "{kind}");
        }
    }

    #[test]
    fn unfinished_message_is_not_lost_when_the_sender_closes() {
        let mut codec = Codec::default();
        assert!(codec.feed(Way::Up, b"*1\r\n$4\r\nPI").is_empty());
        assert_eq!(codec.rest(Way::Up), b"*1\r\n$4\r\nPI");
    }
}
