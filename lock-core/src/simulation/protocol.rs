//! What clients and the simulated server say to each other, and what a server does.

use std::fmt;
use std::time::Duration;

use crate::owner::Nonce;

/// Who wants what, as the server knows it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) process: usize,
    pub(super) name: &'static str,
    pub(super) nonce: Nonce,
    pub(super) ttl: Duration,
    /// Whether its client keeps it alive; of no interest to the server.
    pub(super) kept: bool,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nonce = self.nonce.to_string();
        write!(f, "{} of p{}'s {}", self.name, self.process, &nonce[..6])
    }
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Queue unless there; say how it stands.
    Stand(Entry),
    Try(Entry),
    Renew(Vec<(Entry, u64)>),
    Release(Entry),
    Pass {
        held: Entry,
        next: Entry,
    },
    Replace {
        waiting: Entry,
        next: Entry,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Standing(Standing),
    /// What is left of each; `None` for one that is not held.
    Renewed(Vec<Option<Duration>>),
    Released(bool),
    Passed {
        released: bool,
        next: Standing,
    },
    Replaced(Option<Standing>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    Granted {
        token: u64,
        remaining: Duration,
        provisional: bool,
    },
    Queued,
    Busy,
    /// The nonce was given up.
    Spent,
}

/// What happened at the server, for whoever watches it and for the clients that are told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    Queued(Entry),
    /// This nonce does not wait any more, without having been granted.
    Unqueued(Entry),
    Replaced {
        waiting: Entry,
        next: Entry,
    },
    /// `pushed` when nobody asked just now: the waiter is told to look.
    Granted {
        to: Entry,
        token: u64,
        pushed: bool,
    },
    Ended {
        of: Entry,
        token: u64,
        why: Ended,
        /// When that was: an end may be noticed later.
        at: Duration,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    Released,
    Expired,
    Broken,
    /// The server forgot it.
    Forgotten,
}
