//! What a proxy counts.

/// What has passed a [`Proxy`](super::Proxy), and what it holds right now.
///
/// Commands, replies and pushes are counted where the proxy's [`Protocol`](super::Protocol) is spoken; on other
/// connections only bytes are. In gRPC each message is one, and an error in place of any message is a reply too.
/// ZooKeeper's pings are none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Connections that neither the client nor the proxy has closed.
    pub open: u64,
    /// Connections to the server that are open.
    pub open_upstream: u64,
    /// Commands forwarded to the server.
    pub commands: u64,
    /// Replies read from the server, pushes not counted, whatever became of them.
    pub replies: u64,
    /// Pushes read from the server (see [`drop_pushes`](super::Connections::drop_pushes)), whatever became of them.
    pub pushes: u64,
    /// Commands (or, in an unknown protocol, chunks) held now, those behind the matching one included.
    pub held_requests: u64,
    /// Replies (or, in an unknown protocol, chunks) held now.
    pub held_replies: u64,
    /// Requests (or, in an unknown protocol, chunks) thrown away because of `drop_nth_request`.
    pub requests_dropped: u64,
    /// Replies (or, in an unknown protocol, chunks) thrown away because of `drop_replies` or `drop_nth_reply`, or
    /// because the client was gone.
    pub replies_dropped: u64,
    /// Replies that came when the client had closed its connection, or given the request up.
    pub late_replies: u64,
    /// Pushes thrown away because of `drop_pushes` or `drop_nth_push`.
    pub pushes_dropped: u64,
    /// Bytes forwarded to the server.
    pub bytes_up: u64,
    /// Bytes forwarded to clients.
    pub bytes_down: u64,
}
