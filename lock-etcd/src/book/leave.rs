//! Giving up: releases, and claims that take the place of others.

use std::sync::Arc;

use lock_core::{BootInstant, Claim, Nonce};
use tokio::sync::watch;

use super::entry::{Entry, Stage};
use super::{Book, Heard, Leaving};
use crate::lease::LeaseUse;
use crate::record::Record;
use crate::txn::Held;

impl Book {
    /// A release begins, or goes on: what it has to do.
    pub(crate) fn leaving(&self, nonce: Nonce, now: BootInstant) -> Leaving {
        let mut pages = self.lock();
        pages.stop_following(nonce, now);
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return Leaving::Nothing;
        };
        entry.leaving = true;
        let granted = matches!(entry.stage, Stage::Held | Stage::Granted(_));
        if let Stage::Waiting(_) = entry.stage {
            entry.stage = Stage::Asking;
        }
        let todo = match entry.held() {
            _ if entry.asking => return Leaving::Later(entry.heard.subscribe()),
            Some(held) => Leaving::Delete {
                held,
                name: self.keys.of_name(&entry.claim.name),
                granted,
            },
            // Gone with its lease, and so is every request that needs it.
            None if entry.unanswered => Leaving::Bury {
                put: entry.put(&self.keys, self.bases.latest()),
                lease: Arc::clone(&entry.lease),
            },
            None => Leaving::Nothing,
        };
        // Whoever still waits for its outcome is told that it was given up.
        entry.heard.send_replace(());
        if matches!(todo, Leaving::Nothing) {
            pages.forget(nonce);
        }
        todo
    }

    /// The release is confirmed: nothing of the claim is left.
    pub(crate) fn left(&self, nonce: Nonce) {
        self.lock().forget(nonce);
    }

    /// Whether core was told of a failure of this claim, and what was sent then may yet be executed.
    pub(crate) fn is_unresolved(&self, nonce: Nonce) -> bool {
        let pages = self.lock();
        pages.entries.get(&nonce).is_some_and(|entry| {
            matches!(entry.stage, Stage::Over) && !entry.asking && !entry.leaving
        })
    }

    /// As [`outcome`](Self::outcome), only looking: core is told nothing yet.
    pub(crate) fn under_way(&self, nonce: Nonce) -> Option<Heard> {
        let pages = self.lock();
        let entry = pages.entries.get(&nonce).filter(|entry| entry.asking)?;
        Some(entry.heard.subscribe())
    }

    /// Notes that `next` is about to be written over `waiting`; answers what it is written with.
    pub(crate) fn begin_replacing(
        &self,
        waiting: Nonce,
        next: &Claim,
        lease: LeaseUse,
    ) -> Option<(Held, Vec<u8>)> {
        let mut pages = self.lock();
        let old = pages.entries.get(&waiting)?;
        let held = old.held()?;
        let value = Record::of(next, old.base).encode();
        let entry = Entry {
            claim: next.clone(),
            slot: Arc::clone(&old.slot),
            lease,
            base: old.base,
            created: old.created,
            stage: Stage::Asking,
            asking: true,
            unanswered: false,
            leaving: false,
            heard: watch::Sender::new(()),
        };
        pages.entries.insert(next.nonce, entry);
        Some((held, value))
    }

    /// `next` is written over `waiting` and has its place.
    pub(crate) fn replaced(&self, waiting: Nonce, next: Nonce, now: BootInstant) {
        let mut pages = self.lock();
        let place = |nonce| pages.entries.get(&nonce).and_then(|entry| entry.created);
        let same = place(waiting) == place(next);
        let Some(mut old) = same.then(|| pages.entries.remove(&waiting)).flatten() else {
            drop(pages);
            // It was given up meanwhile, and the key that now served both of them with it. Or the server
            // has lost that key, and it asks for another.
            self.not_replaced(next, true);
            return;
        };
        let stage = std::mem::replace(&mut old.stage, Stage::Over);
        if let Stage::Waiting(wait) = &stage {
            pages.unlink(waiting, wait);
            pages.follow.end(&wait.ahead.start, now);
        }
        let Some(entry) = pages.entries.get_mut(&next) else {
            return;
        };
        entry.asking = false;
        match stage {
            // It was granted to the old claim while this was under way; nobody has been told.
            Stage::Granted(_) => entry.stage = self.granted(entry),
            Stage::Waiting(wait) if !entry.leaving => {
                self.wait_behind(&mut pages, next, wait.ahead, now);
            }
            Stage::Failed(error) => entry.stage = Stage::Failed(error),
            _ => {}
        }
        pages.tell(next);
    }

    /// The attempt to write `next` over another claim has failed. `certainly` when it was not
    /// executed and will not be.
    pub(crate) fn not_replaced(&self, next: Nonce, certainly: bool) {
        let mut pages = self.lock();
        let Some(entry) = pages.entries.get_mut(&next) else {
            return;
        };
        entry.asking = false;
        entry.stage = Stage::Over;
        entry.heard.send_replace(());
        if certainly {
            pages.forget(next);
        }
    }

    /// Where a claim stands that waits, or has a grant that nobody has come for; to be replaced.
    pub(crate) fn waiting(&self, nonce: Nonce) -> Option<Held> {
        let pages = self.lock();
        let entry = pages.entries.get(&nonce).filter(|entry| !entry.leaving)?;
        match entry.stage {
            Stage::Waiting(_) | Stage::Granted(_) => entry.held(),
            _ => None,
        }
    }
}
