//! etcd v3 backend of distlock: leases, revisions as tokens, one quorum write each way.
//!
//! * [`EtcdConfig`] says how a cluster is reached, as a value or as a URL.
//! * [`register`] adds `etcd://` to a program's schemes.
//! * [`EtcdBackend`] is the connection, a [`Backend`](lock_core::Backend).
//! * [`Fence`] is a condition for transactions on data in the same etcd: "the lock is still held".
//!
//! # What etcd promises, and what it does not
//!
//! Exclusion and growing tokens hold through the death, the restart and the isolation of any minority of
//! members, and through restarts of all of them with their data. A token is the revision at which the
//! holder's key was created, plus the `fence_base` of the namespace, if it was ever given one.
//!
//! * A holder that dies is replaced within its TTL and the declared slack. A change of leaders begins
//!   all leases afresh, so it may add up to one TTL.
//! * Leases are whole seconds. With its default timers the server grants 2 s to who asks for 1 s; the
//!   lease that was granted is what counts.
//! * Restoring a snapshot rewinds revisions, and tokens with them, unless it is done with
//!   `--bump-revision` (etcd 3.6, or `etcdutl` 3.5.10). Raise `fence_base` otherwise.
//! * Until 3.4.31 and 3.5.13 a leader that has been deposed and does not know it yet can revoke a lease
//!   that its successor keeps: a lock can be granted to another before its holder's lease has ended. The
//!   token covers it, so check it at the resource, or use a [`Fence`]. The other half of the same
//!   mistake, that such a leader confirms a lease which its successor lets expire, is met by this
//!   backend: a keep-alive counts only when a quorum has confirmed, after its answer, that there was
//!   no change of leaders.
//! * Before 3.4.31 and 3.5.13 as well, a new leader may say for a moment that a lease does not exist. The
//!   holder is told of a loss then, and the lease is revoked in earnest.
//!
//! A waiter's key that is deleted by hand in the same 25 ms as the holder's is noticed by the next renewal, a
//! third of the TTL later. Break holds with [`break_hold`](lock_core::Backend::break_hold), which tells the victim at
//! once, and leave the keys of waiters alone.
//!
//! etcd's own lock service, `v3lock`, is not used: in 3.4 it grants locks on leases that are dead.
//!
//! # Keys
//!
//! A name is one segment of a key: `/` and `%` in it are escaped as in URLs. A client has a few keys for a
//! name, at most four as a rule, and uses them again and again; what tells one hold from another is the
//! revision at which the key was created.
//!
//! | key | what | lives |
//! |---|---|---|
//! | `P/l/NAME/CLIENT/SLOT` | a holder or waiter; the oldest of a name holds. Text, separated by tabs: `distlock1`, nonce, base of the token, TTL in ms, ms since 1970 at its coming, `pid host label`. `SLOT` is a number behind `p` for a claim to which its own client has passed the lock on, behind `j` for all others | with the client's lease for that TTL |
//! | `P/g/LEASE` | its version counts the requests on this lease that were given up unanswered, so that a late copy of one does nothing | with that lease; where it was not granted for certain, with another as long |
//! | `P/b/CLIENT` | the nonce of a hold that an operator broke; read, then deleted | with the lease of the hold |
//! | `P/f` | what is added to revisions to make tokens | for ever; only if a `fence_base` was ever given |
//!
//! `P` is the prefix (`distlock`), `CLIENT` 16 random hexadecimal digits for each connection. The kept
//! claims of a client share one lease for each TTL; a fixed claim has a lease of its own.
//!
//! # Requests
//!
//! | | |
//! |---|---|
//! | acquire, and release | one transaction each |
//! | try | one transaction, which changes nothing when somebody holds or waits |
//! | wait | no request, and one event when the one before is gone. Nothing is read if that one is known to have held the lock (it was the holder when the waiter came, or has passed the lock on within its client), and the waiter's own key was seen within 25 ms. Otherwise one key is read, at the member that told it and without a quorum |
//! | look at places, in case an event was lost | one transaction of reads for all places of a client that are due: every 750 ms at the head of a queue, every 6 s at the end of a long one |
//! | renew | one keep-alive for each lease, and its keys are read 128 at a time |
//!
//! # The least a user needs
//!
//! ```text
//! etcdctl user add app:secret
//! etcdctl role add locks
//! etcdctl role grant-permission locks readwrite distlock/ --prefix
//! etcdctl user grant-role app locks
//! ```
//!
//! Leases need no right of their own.
//!
//! # Building
//!
//! The client library is generated at build time: that takes `protoc` and its well-known types, Debian's
//! `protobuf-compiler` and `libprotobuf-dev`.

mod backend;
mod base;
mod book;
mod client;
mod config;
mod connect;
mod connection;
mod endpoint;
mod error;
mod fence;
mod follow;
mod key;
mod lease;
mod look;
mod place;
mod record;
mod release;
mod renew;
mod txn;
mod wait;
mod watch;

pub use crate::backend::EtcdBackend;
pub use crate::config::{EtcdConfig, TlsConfig};
pub use crate::connect::register;
pub use crate::fence::Fence;
/// The client that this backend is built on; its errors are the source of ours.
pub use etcd_client;
