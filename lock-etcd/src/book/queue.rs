//! Standing in the queue: who is looked at when, and what a deletion means.

use std::sync::Arc;

use lock_core::{BootInstant, Nonce, Reach};

use super::entry::{Pages, Stage};
use super::{Book, Deleted, Due, ended_first};
use crate::follow::{Following, Order};
use crate::key::Came;
use crate::lease::Lease;
use crate::wait::{Ahead, Wait};

impl Book {
    /// The watch of these keys is confirmed, from after `revision` on: who has seen only an older state
    /// has to look again.
    pub(crate) fn watch_confirmed(&self, id: i64, revision: i64, now: BootInstant) {
        let mut pages = self.lock();
        let Some(start) = pages.follow.confirmed(id) else {
            return;
        };
        let mut look = false;
        for entry in pages.entries.values_mut() {
            if let Stage::Waiting(wait) = &mut entry.stage
                && wait.ahead.start == start
                && wait.ahead.seen < revision
            {
                wait.look_now(now);
                look = true;
            }
        }
        if look {
            self.hurry_for(&pages, Some(now));
        }
    }

    /// A key was deleted at `revision`; with `passed`, its client has passed the lock on in the same step, so
    /// it had it. Whoever stood right behind the holder has the lock; answers who else stood behind the
    /// key, and has to look.
    pub(crate) fn deleted(&self, id: i64, gone: Deleted<'_>, now: BootInstant) -> Vec<Due> {
        let Deleted {
            key,
            revision,
            passed,
        } = gone;
        let mut pages = self.lock();
        if let Some(order) = pages.follow.deleted(id, key, revision) {
            // Nobody watches any more when the client is being closed.
            let _ = self.orders.send(order);
        }
        let mut look = Vec::new();
        for nonce in pages.behind.get(key).cloned().unwrap_or_default() {
            let Some(entry) = pages.entries.get_mut(&nonce) else {
                continue;
            };
            let due = entry.due(&self.keys);
            // A lease whose end may have passed may have taken the claim's own key along.
            let valid = entry.lease.is_valid(now);
            let Stage::Waiting(wait) = &mut entry.stage else {
                continue;
            };
            if revision <= wait.ahead.created {
                // An earlier life of the key.
                continue;
            }
            // Nobody was between the two, and nobody can come between them.
            if (wait.ahead.holds || passed) && valid && wait.ahead.is_recent(now) {
                self.grant(&mut pages, nonce, now);
            } else {
                wait.told = true;
                look.extend(due);
            }
        }
        look
    }

    /// This claim is to be looked at as soon as possible.
    pub(crate) fn look_at(&self, nonce: Nonce, now: BootInstant) {
        let mut pages = self.lock();
        if let Some(entry) = pages.entries.get_mut(&nonce)
            && let Stage::Waiting(wait) = &mut entry.stage
        {
            wait.look_now(now);
            self.hurry_for(&pages, Some(now));
        }
    }

    pub(super) fn grant(&self, pages: &mut Pages, nonce: Nonce, now: BootInstant) {
        pages.stop_following(nonce, now);
        if let Some(entry) = pages.entries.get_mut(&nonce) {
            entry.stage = self.granted(entry);
            tracing::debug!(name = %entry.claim.name, %nonce, "lock handed on to this client");
        }
        pages.tell(nonce);
    }

    /// `nonce` stands in the queue, right behind `ahead`.
    pub(super) fn wait_behind(
        &self,
        pages: &mut Pages,
        nonce: Nonce,
        ahead: Ahead,
        now: BootInstant,
    ) {
        let puts = ahead.came == Came::Passed;
        let (following, order) =
            pages
                .follow
                .begin((&ahead.start, puts), &ahead.key, ahead.created, now);
        if let Some(order) = order {
            // Nobody watches any more when the client is being closed.
            let _ = self.orders.send(order);
        }
        pages
            .behind
            .entry(ahead.key.clone())
            .or_default()
            .push(nonce);
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return;
        };
        let mut wait = Wait::new(ahead, now);
        if following == Following::Gone {
            wait.look_now(now);
        }
        let due = wait.due;
        entry.stage = Stage::Waiting(wait);
        entry.claim.progress.report(Reach::Queued);
        // Its lease may age before those are looked over next.
        self.aging.notify_one();
        self.hurry_for(pages, due);
    }

    /// Resolves when a claim has begun to wait since it last did.
    pub(crate) async fn lease_waited_on(&self) {
        self.aging.notified().await;
    }

    /// What was read about a waiting claim. `ahead` is who is before it, if anybody is. Answers
    /// whether the watch should have told of it.
    pub(crate) fn looked(&self, due: &Due, ahead: Option<Ahead>, now: BootInstant) -> bool {
        let mut pages = self.lock();
        let nonce = due.claim.nonce;
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return false;
        };
        let same = entry.held().is_some_and(|held| held == due.held);
        let Stage::Waiting(wait) = &mut entry.stage else {
            return false;
        };
        if !same {
            return false;
        }
        let untold = !std::mem::take(&mut wait.told);
        match ahead {
            None => {
                self.grant(&mut pages, nonce, now);
                untold
            }
            Some(ahead) if ahead.key == wait.ahead.key && ahead.created == wait.ahead.created => {
                wait.looked(ahead, now);
                let due = wait.due;
                entry.claim.progress.report(Reach::Queued);
                self.hurry_for(&pages, due);
                false
            }
            Some(ahead) => {
                pages.stop_following(nonce, now);
                self.wait_behind(&mut pages, nonce, ahead, now);
                untold
            }
        }
    }

    /// Takes the waiting claims that are due by `now`, or soon.
    pub(crate) fn take_due(&self, now: BootInstant) -> Vec<Due> {
        let mut pages = self.lock();
        let keys = &self.keys;
        pages
            .entries
            .values_mut()
            .filter_map(|entry| {
                let Stage::Waiting(wait) = &mut entry.stage else {
                    return None;
                };
                wait.due.take_if(|due| *due <= now)?;
                entry.due(keys)
            })
            .collect()
    }

    /// When the next waiting claim is to be looked at; the looker is going to sleep until then.
    pub(crate) fn next_due(&self) -> Option<BootInstant> {
        let mut pages = self.lock();
        let due = pages.waits().filter_map(|(_, wait)| wait.due).min();
        pages.planned = due;
        due
    }

    /// Wakes the looker when it has planned to wake later than `due`. A hand-off, the usual end of a
    /// wait, wakes nobody but its waiter.
    pub(super) fn hurry_for(&self, pages: &Pages, due: Option<BootInstant>) {
        if due.is_some_and(|due| pages.planned.is_none_or(|planned| due < planned)) {
            self.hurry.notify_one();
        }
    }

    /// Resolves when some place may have become due earlier.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// This place could not be looked at; it is tried again at `at`.
    pub(crate) fn retry(&self, nonce: Nonce, at: BootInstant) {
        let mut pages = self.lock();
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return;
        };
        if let Stage::Waiting(wait) = &mut entry.stage {
            let at = wait.due.map_or(at, |earlier| earlier.min(at));
            wait.due = Some(at);
            entry.claim.progress.report(Reach::Adrift);
            self.hurry_for(&pages, Some(at));
        }
    }

    /// The cluster is out of reach.
    pub(crate) fn adrift(&self) {
        let pages = self.lock();
        for (entry, _) in pages.waits() {
            entry.claim.progress.report(Reach::Adrift);
        }
    }

    /// Something may have been missed: every waiter looks.
    pub(crate) fn look_all(&self, now: BootInstant) {
        let mut pages = self.lock();
        for entry in pages.entries.values_mut() {
            if let Stage::Waiting(wait) = &mut entry.stage {
                wait.look_now(now);
            }
        }
        self.hurry.notify_one();
    }

    /// This lease is over. Its waiters look, and join the queue again; a grant that nobody has come for
    /// is none any more. Answers who has lost a lock.
    pub(crate) fn lease_over(&self, lease: i64, now: BootInstant) -> Vec<Nonce> {
        let mut pages = self.lock();
        let mut lost = Vec::new();
        for (nonce, entry) in &mut pages.entries {
            if entry.lease.id != lease {
                continue;
            }
            match &mut entry.stage {
                Stage::Waiting(wait) => wait.look_now(now),
                Stage::Granted(_) => {
                    let error = ended_first().with_name(&entry.claim.name);
                    entry.stage = Stage::Failed(error);
                    entry.heard.send_replace(());
                }
                Stage::Held if !entry.leaving => lost.push(*nonce),
                _ => {}
            }
        }
        self.hurry.notify_one();
        lost
    }

    /// The leases of waiters: nobody else keeps those alive.
    pub(crate) fn waited_on(&self) -> Vec<Arc<Lease>> {
        let pages = self.lock();
        let mut leases: Vec<Arc<Lease>> = pages
            .waits()
            .map(|(entry, _)| Arc::clone(&entry.lease))
            .collect();
        leases.sort_by_key(|lease| lease.id);
        leases.dedup_by_key(|lease| lease.id);
        leases
    }

    /// What is to be watched on a new stream.
    pub(crate) fn watch_again(&self) -> Vec<Order> {
        self.lock().follow.begin_again()
    }

    /// The server has ended one watch: what to say.
    pub(crate) fn watch_refused(&self, id: i64) -> Option<Order> {
        self.lock().follow.refused(id)
    }

    /// Gives up watches that nobody has followed for a while; answers when to look again.
    pub(crate) fn end_idle_watches(&self, now: BootInstant) -> Option<BootInstant> {
        let (orders, next) = self.lock().follow.end_idle(now);
        for order in orders {
            // Nobody watches any more when the client is being closed.
            let _ = self.orders.send(order);
        }
        next
    }
}
