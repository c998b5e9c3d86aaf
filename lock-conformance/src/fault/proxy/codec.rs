//! From chunks, as the socket delivers them, to messages.

mod grpc;
mod http2;
mod jute;
mod resp;

use self::http2::Http2;
use super::message::{Kind, Message};

/// What is spoken on a proxy's connections, and so what its rules understand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// Redis' protocol. A connection on which something else is spoken is passed on as it comes.
    #[default]
    Resp,
    /// HTTP/2 in the clear with gRPC on it, as etcd speaks it. A held request holds its own stream only.
    Http2,
    /// ZooKeeper's. A held request holds everything behind it on its connection, pings included.
    Jute,
    /// Anything else on TCP: whole chunks, as they are read from the socket, which have nothing to do with messages
    /// unless the tester sees to that (asks, and waits for the answer). Every switch works on them, those for pushes
    /// aside: a chunk from the client counts as a request, one from the server as a reply.
    Raw,
}

/// Which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    pub(super) fn back(self) -> Way {
        match self {
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }
}

/// Cuts both directions of one connection into messages.
#[derive(Debug)]
pub(super) struct Codec(By);

#[derive(Debug)]
enum By {
    Resp(resp::Codec),
    Http2(Box<Http2>),
    Jute(jute::Codec),
    Raw,
}

impl Codec {
    pub(super) fn new(protocol: Protocol) -> Codec {
        Codec(match protocol {
            Protocol::Resp => By::Resp(resp::Codec::default()),
            Protocol::Http2 => By::Http2(Box::default()),
            Protocol::Jute => By::Jute(jute::Codec::default()),
            Protocol::Raw => By::Raw,
        })
    }

    /// Adds a chunk and gives the messages that are complete.
    pub(super) fn feed(&mut self, way: Way, chunk: &[u8]) -> Vec<Message> {
        match &mut self.0 {
            By::Resp(codec) => codec.feed(way, chunk),
            By::Http2(codec) => codec.feed(way, chunk),
            By::Jute(codec) => codec.feed(way, chunk),
            By::Raw => vec![Message::new(chunk.to_vec(), Kind::Raw)],
        }
    }

    /// What is left when the sender closes in the middle of a message.
    pub(super) fn rest(&mut self, way: Way) -> Option<Message> {
        let rest = match &mut self.0 {
            By::Resp(codec) => codec.rest(way),
            By::Http2(codec) => codec.rest(way),
            By::Jute(codec) => codec.rest(way),
            By::Raw => Vec::new(),
        };
        (!rest.is_empty()).then(|| Message::new(rest, Kind::Raw))
    }

    /// What the server has to be told when a message of its is thrown away: in HTTP/2 the receiver of data gives the
    /// room back that it took, and nobody else would.
    pub(super) fn compensation(&self, discarded: &Message) -> Option<Message> {
        match &self.0 {
            By::Http2(_) => http2::room_taken_by(discarded),
            _ => None,
        }
    }
}

/// Cuts one direction of a connection with a function that finds the length of the first whole message.
#[derive(Debug, Default)]
struct Splitter {
    partial: Vec<u8>,
    /// Something was no message after all; no boundary can be trusted from then on.
    given_up: bool,
}

impl Splitter {
    /// Adds a chunk and gives the messages that are complete: `Ok` each, and `Err` for what cannot be read.
    fn feed<E>(
        &mut self,
        chunk: &[u8],
        mut len: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
    ) -> Vec<Result<Vec<u8>, Vec<u8>>> {
        if self.given_up {
            return vec![Err(chunk.to_vec())];
        }
        self.partial.extend_from_slice(chunk);
        let mut messages = Vec::new();
        let mut from = 0;
        while from < self.partial.len() {
            match len(&self.partial[from..]) {
                Ok(Some(len)) => {
                    messages.push(Ok(self.partial[from..from + len].to_vec()));
                    from += len;
                }
                Ok(None) => break,
                Err(_) => {
                    self.given_up = true;
                    messages.push(Err(self.partial[from..].to_vec()));
                    from = self.partial.len();
                }
            }
        }
        self.partial.drain(..from);
        messages
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }
}
