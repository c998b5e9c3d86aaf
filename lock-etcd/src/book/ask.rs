//! Asking for the lock: from the first request of a claim to what core is told.

use std::sync::Arc;

use lock_core::{BootInstant, Claim, Error, Grant, Lease as Keeping, Nonce};
use tokio::sync::watch;

use super::entry::{Entry, Stage};
use super::{Asked, Book, Outcome, ended_first, given_up};
use crate::base;
use crate::error::protocol;
use crate::fence::Fence;
use crate::key::Came;
use crate::lease::{Lease, LeaseUse};
use crate::txn::Put;

impl Book {
    /// Notes that requests are about to be sent for `claim`, on `lease`.
    pub(crate) fn begin(&self, claim: &Claim, lease: LeaseUse, came: Came) -> Result<(), Error> {
        let mut pages = self.lock();
        if pages.entries.contains_key(&claim.nonce) {
            return Err(given_up());
        }
        let slot = pages.free_slot(&self.keys, &claim.name, came);
        let entry = Entry {
            base: 0,
            claim: claim.clone(),
            slot,
            lease,
            created: None,
            stage: Stage::Asking,
            asking: true,
            unanswered: false,
            leaving: false,
            heard: watch::Sender::new(()),
        };
        pages.entries.insert(claim.nonce, entry);
        Ok(())
    }

    /// What to ask for `nonce` with, and on which lease; `None` when it is not wanted any more.
    pub(crate) fn put(&self, nonce: Nonce) -> Option<(Put, Arc<Lease>)> {
        let base = self.bases.latest();
        let mut pages = self.lock();
        let entry = pages
            .entries
            .get_mut(&nonce)
            .filter(|entry| !entry.leaving)?;
        entry.base = base.value;
        Some((entry.put(&self.keys, base), Arc::clone(&entry.lease)))
    }

    /// Its key is taken, by something that this client does not know: it gets another one.
    pub(crate) fn take_other_slot(&self, nonce: Nonce) {
        let mut pages = self.lock();
        let Some(entry) = pages.entries.get(&nonce) else {
            return;
        };
        let (name, came) = (entry.claim.name.clone(), entry.slot.came);
        // The old one is still in use here, so another is given.
        let slot = pages.free_slot(&self.keys, &name, came);
        if let Some(entry) = pages.entries.get_mut(&nonce) {
            entry.slot = slot;
        }
        pages.prune(&name);
    }

    /// Its lease is over: it asks again on another one.
    pub(crate) fn take_other_lease(&self, nonce: Nonce, lease: LeaseUse) {
        if let Some(entry) = self.lock().entries.get_mut(&nonce) {
            entry.lease = lease;
        }
    }

    /// A waiting claim that the server has forgotten asks again; whether it is still wanted.
    pub(crate) fn begin_again(&self, nonce: Nonce, now: BootInstant) -> bool {
        let mut pages = self.lock();
        let waits = pages
            .entries
            .get(&nonce)
            .is_some_and(|entry| matches!(entry.stage, Stage::Waiting(_)) && !entry.leaving);
        if waits {
            pages.stop_following(nonce, now);
            if let Some(entry) = pages.entries.get_mut(&nonce) {
                entry.stage = Stage::Asking;
                entry.created = None;
                entry.asking = true;
            }
        }
        waits
    }

    /// The request is answered, or given up.
    pub(crate) fn asked(&self, nonce: Nonce, asked: Asked, now: BootInstant) {
        let mut pages = self.lock();
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return;
        };
        entry.asking = false;
        match asked {
            Asked::Granted { created } => {
                entry.created = Some(created);
                entry.stage = self.granted(entry);
            }
            Asked::Queued { created, ahead } => {
                entry.created = Some(created);
                if !entry.leaving {
                    self.wait_behind(&mut pages, nonce, ahead, now);
                }
            }
            Asked::Busy => entry.stage = Stage::Over,
            Asked::Failed { error, unanswered } => {
                entry.unanswered |= unanswered;
                entry.stage = Stage::Failed(error.with_name(&entry.claim.name));
            }
        }
        pages.tell(nonce);
    }

    /// What became of a claim; core is given a grant or an error once.
    pub(crate) fn outcome(&self, nonce: Nonce) -> Outcome {
        let mut pages = self.lock();
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return Outcome::Failed(given_up());
        };
        if entry.leaving {
            return Outcome::Failed(given_up().with_name(&entry.claim.name));
        }
        match std::mem::replace(&mut entry.stage, Stage::Over) {
            Stage::Granted(grant) => {
                entry.stage = Stage::Held;
                Outcome::Granted(grant)
            }
            Stage::Failed(error) => {
                pages.forget_unless_unresolved(nonce);
                Outcome::Failed(error)
            }
            Stage::Over => {
                pages.forget_unless_unresolved(nonce);
                Outcome::Busy
            }
            Stage::Held => {
                entry.stage = Stage::Held;
                Outcome::Failed(given_up().with_name(&entry.claim.name))
            }
            stage @ Stage::Asking => {
                entry.stage = stage;
                Outcome::NotYet(entry.heard.subscribe())
            }
            stage @ Stage::Waiting(_) => {
                entry.stage = stage;
                Outcome::Queued(entry.heard.subscribe())
            }
        }
    }

    /// Whether this claim is registered and will have an outcome, so that one can wait for it.
    pub(crate) fn expects(&self, nonce: Nonce) -> bool {
        let pages = self.lock();
        pages.entries.get(&nonce).is_some_and(|entry| {
            let stage = &entry.stage;
            !entry.leaving
                && matches!(
                    stage,
                    Stage::Asking | Stage::Waiting(_) | Stage::Granted(_) | Stage::Failed(_)
                )
        })
    }

    /// The grant of a claim whose key is known to be the oldest of its name.
    pub(super) fn granted(&self, entry: &Entry) -> Stage {
        // Its end is known, and its validity may not have ended yet: nothing may be granted on it.
        if entry.lease.is_over() {
            return Stage::Failed(ended_first().with_name(&entry.claim.name));
        }
        let failed = |detail: &str| Stage::Failed(protocol("acquire", detail));
        let (Some(held), Some(validity)) = (entry.held(), entry.lease.validity()) else {
            return failed("a grant without a key or a lease");
        };
        let Ok(token) = base::token("acquire", entry.base, held.created) else {
            return failed("a revision that is no token");
        };
        let fence = Arc::new(Fence::new(held));
        let grant = Grant::new(&entry.claim, token, validity).with_record(fence);
        // A fixed claim that has waited may have less than its TTL left: core makes it whole.
        Stage::Granted(match (&entry.claim.lease, &entry.stage) {
            (Keeping::Fixed, Stage::Waiting(_)) => grant.provisional(),
            _ => grant,
        })
    }

    /// This claim cannot be waited for.
    pub(crate) fn fail(&self, nonce: Nonce, error: Error, now: BootInstant) {
        let mut pages = self.lock();
        pages.stop_following(nonce, now);
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return;
        };
        if matches!(entry.stage, Stage::Asking | Stage::Waiting(_)) {
            entry.stage = Stage::Failed(error);
            pages.tell(nonce);
        }
    }

    /// No claim can be waited for any longer.
    pub(crate) fn fail_all(&self, error: &Error, now: BootInstant) {
        let nonces: Vec<_> = self.lock().entries.keys().copied().collect();
        for nonce in nonces {
            self.fail(nonce, error.clone(), now);
        }
    }
}
