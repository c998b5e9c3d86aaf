//! The claims of this client, and what is known of each.
//!
//! A claim has an entry here from before its first request is sent until its release is confirmed.
//! The entry knows the key it stands at, the revision that tells this life of the key from others,
//! and whether some request of it was never answered. Nothing in here waits or sends.

mod ask;
mod entry;
mod leave;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lock_core::{Claim, Error, Grant, Nonce};
use tokio::sync::{Notify, mpsc, watch};

use self::entry::{Pages, Stage};
use crate::base::Bases;
use crate::error::{invalid, unavailable};
use crate::follow::Order;
use crate::key::Keys;
use crate::lease::Lease;
use crate::txn::{Held, Put};
use crate::wait::Ahead;

/// How a request that asks for the lock ended.
#[derive(Debug)]
pub(crate) enum Asked {
    Granted {
        created: i64,
    },
    Queued {
        created: i64,
        ahead: Ahead,
    },
    /// Somebody holds or waits; nothing was written.
    Busy,
    /// `unanswered` when it may yet be executed.
    Failed {
        error: Error,
        unanswered: bool,
    },
}

/// What stands between a claim and its outcome.
pub(crate) enum Outcome {
    Granted(Grant),
    Busy,
    Failed(Error),
    /// It waits; something will be heard of it.
    Queued(Heard),
    /// Its request is under way.
    NotYet(Heard),
}

/// Changes when something has become of a claim; ends when it is forgotten.
pub(crate) type Heard = watch::Receiver<()>;

/// What a release has to do.
#[derive(Debug)]
pub(crate) enum Leaving {
    /// Nothing: the claim was never sent, or is gone for certain.
    Nothing,
    /// To wait until the request that is under way is answered or given up.
    Later(Heard),
    /// To delete this key. `held` when core was given the lock.
    Delete {
        held: Held,
        name: Vec<u8>,
        granted: bool,
    },
    /// To make sure that the request which was given up can do nothing, and has done nothing.
    Bury { put: Put, lease: Arc<Lease> },
}

/// A waiting claim that is to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) claim: Claim,
    pub(crate) held: Held,
    pub(crate) name: Vec<u8>,
}

/// A key that was deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deleted<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) revision: i64,
    /// Its client has put another claim in the same step.
    pub(crate) passed: bool,
}

/// All claims of one client.
#[derive(Debug)]
pub(crate) struct Book {
    keys: Keys,
    pub(crate) bases: Bases,
    pages: Mutex<Pages>,
    orders: mpsc::UnboundedSender<Order>,
    /// Some place is due earlier than before.
    hurry: Notify,
    /// Wakes whoever renews the leases of waiters.
    aging: Notify,
}

impl Book {
    pub(crate) fn new(keys: Keys, orders: mpsc::UnboundedSender<Order>) -> Self {
        Self {
            bases: Bases::new(keys.base()),
            keys,
            pages: Mutex::default(),
            orders,
            hurry: Notify::new(),
            aging: Notify::new(),
        }
    }

    /// Where a claim stands that core holds, and its lease; `None` when it holds nothing.
    pub(crate) fn held(&self, nonce: Nonce) -> Option<(Held, Arc<Lease>)> {
        let pages = self.lock();
        let entry = pages.entries.get(&nonce).filter(|entry| !entry.leaving)?;
        match entry.stage {
            Stage::Held | Stage::Granted(_) => Some((entry.held()?, Arc::clone(&entry.lease))),
            _ => None,
        }
    }

    /// Whether core was given a lock for this nonce and has not given it back.
    pub(crate) fn holds(&self, nonce: Nonce) -> bool {
        let pages = self.lock();
        let entry = pages.entries.get(&nonce);
        entry.is_some_and(|entry| matches!(entry.stage, Stage::Held) && !entry.leaving)
    }

    /// Whether a break at `revision` concerns this nonce as core knows it, or will know it: the answer
    /// to its request may come after the news. A later life of its key was not broken.
    pub(crate) fn breaks(&self, nonce: Nonce, revision: i64) -> bool {
        let pages = self.lock();
        pages.entries.get(&nonce).is_some_and(|entry| {
            !entry.leaving && entry.created.is_none_or(|created| created < revision)
        })
    }

    /// How many claims are registered, and how many watches there are.
    pub(crate) fn len(&self) -> (usize, usize) {
        let pages = self.lock();
        (pages.entries.len(), pages.follow.len())
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        // No code in here panics between two writes that belong together.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn given_up() -> Error {
    invalid("acquire", "this claim was released")
}

/// The grant of a claim whose lease was over before core was told.
fn ended_first() -> Error {
    unavailable("acquire", "its lease ended before it could be used")
}

#[cfg(test)]
mod tests;
