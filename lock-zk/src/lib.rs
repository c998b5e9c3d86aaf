//! ZooKeeper backend of distlock: linearizable, fenced by the transaction that granted, pushed.
//!
//! * [`ZkConfig`] says how an ensemble is reached, as a value or as a URL.
//! * [`register`] adds `zk://` to a program's schemes.
//! * [`ZkBackend`] is a client of the ensemble, a [`Backend`](lock_core::Backend).
//! * [`Fence`] makes writes to data in the same ZooKeeper fail in the server once the lock is lost.
//!
//! # What ZooKeeper promises, and what it does not
//!
//! Exclusion and growing tokens hold through everything that the ensemble survives: members and leaders
//! that die, partitions, clocks that step. A minority grants nothing. The token is the transaction that
//! made the holder's node. What remains:
//!
//! * A process that was paused may act for a moment after its lock is lost: the resource has to check
//!   the token, or a write has to go through a [`Fence`].
//! * An ensemble that was set up anew begins to count anew; a client's `fence_base` lifts its tokens.
//! * `sync`, which confirms heartbeats, is answered by the leader without asking a majority
//!   (ZOOKEEPER-2136). A leader that was cut off answers for `syncLimit` ticks more; its followers need
//!   the same time to notice, an election, and then the session's whole timeout to end a session. So a
//!   holder is told in time unless its clients can be cut off from a leader faster than that: with a
//!   `tick` that is smaller than the servers' `tickTime`.
//! * A session that comes to a member with a smaller `maxSessionTimeout` than its own timeout is shortened
//!   to that, and the client library does not tell. So give all members the same, and before it is
//!   lowered (by `tickTime`, perhaps: it is 20 of them unless set) lower the clients' `session_timeout`.
//! * A lock's node that is deleted by hand, and not by breaking the hold, is missed at the next look or
//!   renewal only, a waiter's as well as a holder's: until then two may believe in the lock. The tokens
//!   still grow.
//! * Looking and breaking add the fence base of now to a transaction. A hold that was granted before the
//!   base was raised is shown, and broken, by the larger token; its guard keeps the one it was given.
//!
//! # Nodes
//!
//! | node below the path of the URL | kind | what |
//! |---|---|---|
//! | `/l/NAME` | container | the queue of one lock; `NAME` is percent-encoded (all but printable ASCII, `/` and `%`) |
//! | `/l/NAME/NONCE-SEQUENCE` | ephemeral, sequential | one acquisition; the lowest sequence holds. Its data says who, for operators |
//! | `/c/CLIENT` | ephemeral | one client; whoever breaks a lock of it writes here, and the client watches it |
//! | `/base` | persistent | the largest fence base that a client ever set; only there if one did |
//!
//! Parents of locks that nobody uses are removed by the client that used them last, a few seconds later;
//! those of clients that died by the server, as it does with empty containers.
//!
//! # Leases
//!
//! All locks of a client live and die with its session. A claim that is renewed may ask for any TTL from
//! the session timeout on and is *valid* for what is left of the session, which heartbeats lengthen; a
//! claim that is not renewed may ask for at most the session timeout, and the client ends it at its TTL.
//! A hold that core has not renewed for its TTL is given up also while the session lives. The session
//! timeout is what the server grants: it may be more or less than what `session_timeout` asks for.
//!
//! A heartbeat is no validity: a follower that was cut off from the leader answers reads and pings while
//! the leader lets the session expire. One counts, from before it was sent, once another that was sent on
//! the same connection a `tick` after its answer is answered through the leader. So about five eighths of
//! the session timeout are left at any time, and this is what a guard shows. Whatever has not been
//! confirmed for a whole session timeout is lost, whatever the servers say later.
//!
//! # What it costs
//!
//! | | requests |
//! |---|---|
//! | uncontended acquire and release | create, getChildren; delete: 2 quorum writes, 2 round trips |
//! | the first acquire of a name, or one after a while | createContainer with it, in the same round trip |
//! | a try | sync and getChildren before, in one round trip more; on a held lock these and nothing else |
//! | a section that was waited for | one more, getData, when the holder was next; two more otherwise |
//! | a hand-off within a client | delete, create, getChildren in one round trip |
//! | a release | wakes one waiter |
//! | renewing one lock, or any number | one read |
//! | a session | two `sync` a tick, and the client library's pings |
//!
//! A try that finds the lock free and is then too late stands in the queue for one round trip. A waiter
//! looks at the queue by itself now and then, the first every 0.75 s, the second half as often, and so on, and each at least twice in a session timeout.
//! Only that wakes those who wait where the client has no room for another watch: it watches 96 KiB of paths
//! at a time, which are a thousand locks or so.
//!
//! # The least a user needs
//!
//! Digest user `app` with `cdrw` on the root node, which somebody else has made:
//!
//! ```text
//! addauth digest admin:...
//! create /distlock "" digest:app:...:cdrw,auth::cdrwa
//! ```
//!
//! Nodes are made with all rights for the credentials of the client, and for nobody else, when it has any;
//! clients of different credentials that share locks take `acl=open`. Without credentials everybody
//! may do everything. To make the root, a client needs `c` on its parent. ZooKeeper 3.6 or newer is needed
//! (containers, and listing the nodes of a session); tested with 3.8.

mod alarm;
mod backend;
mod book;
mod client;
mod config;
mod connect;
mod error;
mod fence;
mod heartbeat;
mod inspect;
mod keeper;
mod name;
mod node;
mod open;
mod queue;
mod record;
mod session;
mod tidy;
#[cfg(feature = "tls")]
mod tls;

pub use crate::backend::ZkBackend;
pub use crate::config::{NodeAcl, TlsConfig, ZkConfig};
pub use crate::connect::register;
pub use crate::fence::Fence;
/// The client that this backend is built on; its errors are the source of ours.
pub use zookeeper_client;
