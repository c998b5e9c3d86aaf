//! One claim as the book has it, and the pages that all of them are on.

use std::collections::HashMap;
use std::sync::Arc;

use lock_core::{BootInstant, Claim, Error, Grant, LockName, Nonce};
use tokio::sync::watch;

use super::Due;
use crate::base::Base;
use crate::follow::Follow;
use crate::key::{Came, Keys};
use crate::lease::LeaseUse;
use crate::record::Record;
use crate::txn::{Held, Put};
use crate::wait::Wait;

/// A key of this client for one name. The numbers of keys that are in use are not given again, and
/// the lowest free one is next, so a lock has few keys however often it is used.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) came: Came,
    number: u32,
    pub(super) key: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) claim: Claim,
    pub(super) slot: Arc<Slot>,
    pub(super) lease: LeaseUse,
    /// The base of its token, as last proved to the server.
    pub(super) base: u64,
    /// The revision at which the key was created; `None` as long as it is not known to have been.
    pub(super) created: Option<i64>,
    pub(super) stage: Stage,
    /// A request that can make it hold or wait is under way.
    pub(super) asking: bool,
    /// Such a request was given up without an answer.
    pub(super) unanswered: bool,
    /// A release has begun: it is granted nothing any more.
    pub(super) leaving: bool,
    /// Sent to when something has become of it.
    pub(super) heard: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Not known to stand anywhere.
    Asking,
    /// It stands in the queue.
    Waiting(Wait),
    /// Granted, and nobody has come for it yet.
    Granted(Grant),
    /// It cannot be waited for any longer.
    Failed(Error),
    /// Core has been given its grant.
    Held,
    /// Core has been told that it has no grant.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) entries: HashMap<Nonce, Entry>,
    pub(super) slots: HashMap<LockName, Vec<Arc<Slot>>>,
    /// Who waits behind a key.
    pub(super) behind: HashMap<Vec<u8>, Vec<Nonce>>,
    pub(super) follow: Follow,
    /// When the looker wakes next, if nobody hurries it.
    pub(super) planned: Option<BootInstant>,
}

impl Entry {
    pub(super) fn put(&self, keys: &Keys, base: Base) -> Put {
        Put {
            name: keys.of_name(&self.claim.name),
            key: self.slot.key.clone(),
            value: Record::of(&self.claim, base.value).encode(),
            lease: self.lease.id,
            generation_key: keys.generation(self.lease.id),
            generation: self.lease.generation(),
            base,
        }
    }

    pub(super) fn due(&self, keys: &Keys) -> Option<Due> {
        Some(Due {
            claim: self.claim.clone(),
            held: self.held()?,
            name: keys.of_name(&self.claim.name),
        })
    }

    pub(super) fn held(&self) -> Option<Held> {
        Some(Held {
            key: self.slot.key.clone(),
            created: self.created?,
        })
    }
}

impl Pages {
    pub(super) fn free_slot(&mut self, keys: &Keys, name: &LockName, came: Came) -> Arc<Slot> {
        let taken = self.slots.entry(name.clone()).or_default();
        let number = (0..)
            .find(|number| {
                taken
                    .iter()
                    .all(|slot| (slot.came, slot.number) != (came, *number))
            })
            .unwrap_or_default();
        let slot = Arc::new(Slot {
            came,
            number,
            key: keys.slot(name, came, number),
        });
        taken.push(Arc::clone(&slot));
        slot
    }

    /// Gives back the keys of `name` that no claim has any more.
    pub(super) fn prune(&mut self, name: &LockName) {
        if let Some(taken) = self.slots.get_mut(name) {
            taken.retain(|slot| Arc::strong_count(slot) > 1);
            if taken.is_empty() {
                self.slots.remove(name);
            }
        }
    }

    pub(super) fn waits(&self) -> impl Iterator<Item = (&Entry, &Wait)> {
        self.entries
            .values()
            .filter_map(|entry| match &entry.stage {
                Stage::Waiting(wait) => Some((entry, wait)),
                _ => None,
            })
    }

    pub(super) fn tell(&self, nonce: Nonce) {
        if let Some(entry) = self.entries.get(&nonce) {
            entry.heard.send_replace(());
        }
    }

    /// A waiter does not follow anybody any more.
    pub(super) fn stop_following(&mut self, nonce: Nonce, now: BootInstant) {
        let Some(entry) = self.entries.get(&nonce) else {
            return;
        };
        if let Stage::Waiting(wait) = &entry.stage {
            let (start, key) = (wait.ahead.start.clone(), wait.ahead.key.clone());
            self.unlink_key(nonce, &key);
            self.follow.end(&start, now);
        }
    }

    pub(super) fn unlink(&mut self, nonce: Nonce, wait: &Wait) {
        let key = wait.ahead.key.clone();
        self.unlink_key(nonce, &key);
    }

    pub(super) fn unlink_key(&mut self, nonce: Nonce, key: &[u8]) {
        if let Some(behind) = self.behind.get_mut(key) {
            behind.retain(|other| *other != nonce);
            if behind.is_empty() {
                self.behind.remove(key);
            }
        }
    }

    /// Core has been told that the claim failed; what may still be executed has to be remembered.
    pub(super) fn forget_unless_unresolved(&mut self, nonce: Nonce) {
        let resolved = self
            .entries
            .get(&nonce)
            .is_some_and(|entry| !entry.unanswered && entry.created.is_none());
        if resolved {
            self.forget(nonce);
        }
    }

    pub(super) fn forget(&mut self, nonce: Nonce) {
        if let Some(entry) = self.entries.remove(&nonce) {
            let name = entry.claim.name.clone();
            drop(entry);
            self.prune(&name);
        }
    }
}
