//! What core asks a backend for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::BootInstant;
use crate::name::LockName;
use crate::owner::{Identity, Nonce};

/// How many may hold a name at once.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// One holder: a mutex, or the writer of a read-write lock.
    Exclusive,
    /// Any number of holders, as long as none is exclusive.
    Shared,
    /// At most `of` holders: a semaphore.
    Permit {
        /// The number of permits there are.
        of: u32,
    },
}

/// What becomes of a hold while its holder lives.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lease {
    /// The client's keeper renews it until it is released.
    Kept,
    /// It ends after its TTL unless it is renewed by hand.
    Fixed,
}

/// One request for a lock: who, what, how.
///
/// Cheap to clone; clones share their [`Progress`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The lock.
    pub name: LockName,
    /// This acquisition and no other.
    pub nonce: Nonce,
    /// What an operator is shown.
    pub identity: Identity,
    /// How many may hold at once.
    pub mode: Mode,
    /// The length of the lease.
    pub ttl: Duration,
    /// Renewed or not. A backend that grants provisionally lets core confirm a fixed lease.
    pub lease: Lease,
    /// When the caller stops waiting, on the client's clock; core enforces it.
    pub deadline: Option<BootInstant>,
    /// How far the request has come, told by the backend.
    pub progress: Progress,
}

impl Claim {
    /// An exclusive, kept claim without a deadline, with a fresh nonce.
    #[must_use]
    pub fn new(name: LockName, identity: Identity, ttl: Duration) -> Self {
        Self {
            name,
            nonce: Nonce::new(),
            identity,
            mode: Mode::Exclusive,
            ttl,
            lease: Lease::Kept,
            deadline: None,
            progress: Progress::new(),
        }
    }

    /// Sets the mode. Defaults to [`Mode::Exclusive`].
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the lease. Defaults to [`Lease::Kept`].
    #[must_use]
    pub fn with_lease(mut self, lease: Lease) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the end of the wait. Defaults to none.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<BootInstant>) -> Self {
        self.deadline = deadline;
        self
    }
}

/// How far a claim's request has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Nothing has left this machine.
    Unsent,
    /// Sent, not answered: it may or may not have happened.
    Sent,
    /// The backend has answered that the claim stands in its queue.
    Queued,
    /// It stood in the queue when the backend was last heard of, and the backend is out of reach.
    Adrift,
}

/// Where a backend reports how far a claim has come.
///
/// Core decides by it when to stop waiting and what to answer then: a queued claim may wait for as
/// long as its caller likes, an unanswered one for the operation timeout, one that is adrift for the
/// outage limit. A backend that never reports [`Reach::Queued`] therefore cannot wait for longer
/// than the operation timeout.
#[derive(Clone, Debug)]
pub struct Progress(Arc<watch::Sender<Reach>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Reach::Unsent)))
    }

    /// Reports that the claim has come this far.
    pub fn report(&self, reach: Reach) {
        self.0
            .send_if_modified(|now| std::mem::replace(now, reach) != reach);
    }

    /// How far it has come.
    #[must_use]
    pub fn reach(&self) -> Reach {
        *self.0.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Reach> {
        self.0.subscribe()
    }
}
