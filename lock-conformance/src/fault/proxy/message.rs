//! What flows through a proxy: cut into messages, where the protocol is known.

/// Something under way in one direction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) kind: Kind,
    /// Which HTTP/2 stream it belongs to; 0 for what belongs to none, and in other protocols.
    pub(super) stream: u32,
    /// What a command asks for, in the protocols that this can tell for.
    pub(super) call: Option<Call>,
    /// Where in `bytes` that begins which a tester's predicate is to see.
    pub(super) body: usize,
    /// A reply whose client has given it up.
    pub(super) late: bool,
}

impl Message {
    pub(super) fn new(bytes: Vec<u8>, kind: Kind) -> Message {
        Message {
            bytes,
            kind,
            stream: 0,
            call: None,
            body: 0,
            late: false,
        }
    }

    pub(super) fn on_stream(mut self, stream: u32) -> Message {
        self.stream = stream;
        self
    }

    /// Makes it a command that asks for something, which a predicate sees from `body` on.
    pub(super) fn asking(mut self, call: Call, body: usize) -> Message {
        self.call = Some(call);
        self.body = body;
        self
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// What a client asks: a whole RESP command or ZooKeeper request, or the beginning of a gRPC message.
    Command,
    /// An answer to one.
    Reply,
    /// What the server sends unasked: a RESP push, a fired watch, watch events.
    Push,
    /// More of the gRPC message before it on its stream.
    Rest,
    /// The client gives an HTTP/2 stream up.
    Cancel,
    /// What keeps a connection going, and is not counted: a ping, headers, a window.
    Upkeep,
    /// Bytes of a protocol the proxy does not read.
    Raw,
    /// The sender has closed.
    End,
}

/// What a client asked for, on [HTTP/2](super::Protocol::Http2) and [ZooKeeper](super::Protocol::Jute) connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// gRPC: service and method, as in `KV/Txn`. ZooKeeper: `create`, `getChildren2`; `connect` for the request that
    /// opens a connection.
    pub name: String,
    /// ZooKeeper: the node it is about, of a `multi` its first one. Empty where there is none, and in gRPC.
    pub path: String,
}
