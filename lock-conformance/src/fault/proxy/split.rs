//! From chunks, as the socket delivers them, to messages.

use super::rules::Kind;
use crate::fault::resp::{message_len, push_kind};

/// Cuts one direction of a connection into messages, if it carries RESP.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    /// Something was no RESP after all; no boundary can be trusted from then on.
    given_up: bool,
}

/// Whether a client that begins with `first` speaks RESP: every client library sends arrays. Other protocols (TLS,
/// HTTP/2, ZooKeeper's) begin with something else, and must not be held back to look for an end of line.
pub(super) fn is_resp(first: &[u8]) -> bool {
    first.first() == Some(&b'*')
}

impl Splitter {
    /// Adds a chunk and gives the messages that are complete, each with its kind.
    pub(super) fn feed(
        &mut self,
        chunk: &[u8],
        resp: bool,
        kind_of: fn(&[u8]) -> Kind,
    ) -> Vec<(Vec<u8>, Kind)> {
        if !resp || self.given_up {
            return vec![(chunk.to_vec(), Kind::Raw)];
        }
        self.partial.extend_from_slice(chunk);
        let mut messages = Vec::new();
        let mut from = 0;
        while from < self.partial.len() {
            match message_len(&self.partial[from..]) {
                Ok(Some(len)) => {
                    let message = self.partial[from..from + len].to_vec();
                    let kind = kind_of(&message);
                    messages.push((message, kind));
                    from += len;
                }
                Ok(None) => break,
                Err(_) => {
                    self.given_up = true;
                    messages.push((self.partial[from..].to_vec(), Kind::Raw));
                    from = self.partial.len();
                }
            }
        }
        self.partial.drain(..from);
        messages
    }

    /// What is left when the sender closes in the middle of a message.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.partial)).filter(|rest| !rest.is_empty())
    }
}

/// What a message from the client is.
pub(super) fn kind_up(_: &[u8]) -> Kind {
    Kind::Command
}

/// What a message from the server is. A confirmation is written as a push in RESP3, but answers a command.
pub(super) fn kind_down(message: &[u8]) -> Kind {
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
            let mut splitter = Splitter::default();
            let messages: Vec<_> = stream
                .chunks(size)
                .flat_map(|chunk| splitter.feed(chunk, true, kind_up))
                .collect();
            assert_eq!(messages.len(), 2, "chunks of {size}");
            assert_eq!(messages[0].0, stream[..14]);
            assert_eq!(messages[1].0, stream[14..]);
            assert_eq!(splitter.rest(), None);
        }
    }

    #[test]
    fn garbage_is_passed_on_as_it_comes() {
        let mut splitter = Splitter::default();
        let messages = splitter.feed(b":1\r\n$zz\r\nabc", true, kind_down);
        assert_eq!(
            messages,
            [
                (b":1\r\n".to_vec(), Kind::Reply),
                (b"$zz\r\nabc".to_vec(), Kind::Raw)
            ]
        );
        assert_eq!(splitter.feed(b"x", true, kind_down)[0].1, Kind::Raw);
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
        let mut splitter = Splitter::default();
        assert!(splitter.feed(b"*1\r\n$4\r\nPI", true, kind_up).is_empty());
        assert_eq!(splitter.rest(), Some(b"*1\r\n$4\r\nPI".to_vec()));
    }
}
