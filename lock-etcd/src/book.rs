//! The claims of this client, and what is known of each.
//!
//! A claim has an entry here from before its first request is sent until its release is confirmed.
//! The entry knows the key it stands at, the revision that tells this life of the key from others,
//! and whether some request of it was never answered. Nothing in here waits or sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lock_core::{BootInstant, Claim, Error, Grant, Lease as Keeping, LockName, Nonce, Reach};
use tokio::sync::{Notify, mpsc, watch};

use crate::base::{self, Base, Bases};
use crate::error::{invalid, protocol};
use crate::fence::Fence;
use crate::follow::{Follow, Following, Order};
use crate::key::Keys;
use crate::lease::{Lease, LeaseUse};
use crate::record::Record;
use crate::txn::{Held, Put};
use crate::wait::{Ahead, Wait};

/// A key of this client for one name. The numbers of keys that are in use are not given again, and
/// the lowest free one is next, so a lock has few keys however often it is used.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    pub(crate) key: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    slot: Arc<Slot>,
    lease: LeaseUse,
    /// The base of its token, as last proved to the server.
    base: u64,
    /// The revision at which the key was created; `None` as long as it is not known to have been.
    created: Option<i64>,
    stage: Stage,
    /// A request that can make it hold or wait is under way.
    asking: bool,
    /// Such a request was given up without an answer.
    unanswered: bool,
    /// A release has begun: it is granted nothing any more.
    leaving: bool,
    /// Sent to when something has become of it.
    heard: watch::Sender<()>,
}

#[derive(Debug)]
enum Stage {
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

/// All claims of one client.
#[derive(Debug)]
pub(crate) struct Book {
    keys: Keys,
    pub(crate) bases: Bases,
    pages: Mutex<Pages>,
    orders: mpsc::UnboundedSender<Order>,
    /// Some place is due earlier than before.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    entries: HashMap<Nonce, Entry>,
    slots: HashMap<LockName, Vec<Arc<Slot>>>,
    /// Who waits behind a key.
    behind: HashMap<Vec<u8>, Vec<Nonce>>,
    follow: Follow,
    /// When the looker wakes next, if nobody hurries it.
    planned: Option<BootInstant>,
}

impl Book {
    pub(crate) fn new(keys: Keys, orders: mpsc::UnboundedSender<Order>) -> Self {
        Self {
            bases: Bases::new(keys.base()),
            keys,
            pages: Mutex::default(),
            orders,
            hurry: Notify::new(),
        }
    }

    /// Notes that requests are about to be sent for `claim`, on `lease`.
    pub(crate) fn begin(&self, claim: &Claim, lease: LeaseUse) -> Result<(), Error> {
        let mut pages = self.lock();
        if pages.entries.contains_key(&claim.nonce) {
            return Err(given_up());
        }
        let slot = pages.free_slot(&self.keys, &claim.name);
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
        let Some(name) = pages.entries.get(&nonce).map(|e| e.claim.name.clone()) else {
            return;
        };
        // The old one is still in use here, so another is given.
        let slot = pages.free_slot(&self.keys, &name);
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

    /// Where a claim stands that core holds, and its lease; `None` when it holds nothing.
    pub(crate) fn held(&self, nonce: Nonce) -> Option<(Held, Arc<Lease>)> {
        let pages = self.lock();
        let entry = pages.entries.get(&nonce).filter(|entry| !entry.leaving)?;
        match entry.stage {
            Stage::Held | Stage::Granted(_) => Some((entry.held()?, Arc::clone(&entry.lease))),
            _ => None,
        }
    }

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

    /// Where a waiting claim stands, what it was written with, and on which lease; to be replaced.
    pub(crate) fn waiting(&self, nonce: Nonce) -> Option<Held> {
        let pages = self.lock();
        let entry = pages.entries.get(&nonce).filter(|entry| !entry.leaving)?;
        match entry.stage {
            Stage::Waiting(_) => entry.held(),
            _ => None,
        }
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
        let Some(mut old) = pages.entries.remove(&waiting) else {
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

    /// A key was deleted at `revision`. Answers who is next, if its own key was there at that revision;
    /// the others who waited behind it are to be looked at.
    pub(crate) fn deleted(&self, id: i64, key: &[u8], revision: i64, now: BootInstant) -> Vec<Due> {
        let mut pages = self.lock();
        if let Some(order) = pages.follow.deleted(id, key, revision) {
            // Nobody watches any more when the client is being closed.
            let _ = self.orders.send(order);
        }
        let mut next = Vec::new();
        for nonce in pages.behind.get(key).cloned().unwrap_or_default() {
            let Some(entry) = pages.entries.get_mut(&nonce) else {
                continue;
            };
            let due = entry.due(&self.keys);
            let valid = entry.lease.is_valid(now);
            let Stage::Waiting(wait) = &mut entry.stage else {
                continue;
            };
            if revision <= wait.ahead.created {
                // An earlier life of the key.
                continue;
            }
            match due {
                // It was the holder's. Nobody was between them, and nobody can come between them.
                Some(due) if wait.ahead.holds && valid => next.push(due),
                _ => wait.look_now(now),
            }
            let planned = wait.due;
            self.hurry_for(&pages, planned);
        }
        next
    }

    /// The claim at the head of its queue has its key, and the one before it is gone.
    pub(crate) fn next_in_line(&self, due: &Due, now: BootInstant) {
        let mut pages = self.lock();
        let nonce = due.claim.nonce;
        let Some(entry) = pages.entries.get_mut(&nonce) else {
            return;
        };
        let same = entry.held().is_some_and(|held| held == due.held);
        let valid = entry.lease.is_valid(now);
        let Stage::Waiting(wait) = &mut entry.stage else {
            return;
        };
        if same && valid {
            self.grant(&mut pages, nonce, now);
        } else {
            wait.look_now(now);
            self.hurry_for(&pages, Some(now));
        }
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

    fn grant(&self, pages: &mut Pages, nonce: Nonce, now: BootInstant) {
        pages.stop_following(nonce, now);
        if let Some(entry) = pages.entries.get_mut(&nonce) {
            entry.stage = self.granted(entry);
            tracing::debug!(name = %entry.claim.name, %nonce, "lock handed on to this client");
        }
        pages.tell(nonce);
    }

    /// The grant of a claim whose key is known to be the oldest of its name.
    fn granted(&self, entry: &Entry) -> Stage {
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

    /// `nonce` stands in the queue, right behind `ahead`.
    fn wait_behind(&self, pages: &mut Pages, nonce: Nonce, ahead: Ahead, now: BootInstant) {
        let (following, order) = pages
            .follow
            .begin(&ahead.start, &ahead.key, ahead.created, now);
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
        self.hurry_for(pages, due);
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
    fn hurry_for(&self, pages: &Pages, due: Option<BootInstant>) {
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

    /// This lease is over. Its waiters look, and join the queue again; answers who has lost a lock.
    pub(crate) fn lease_over(&self, lease: i64, now: BootInstant) -> Vec<Nonce> {
        let mut pages = self.lock();
        let mut lost = Vec::new();
        for (nonce, entry) in &mut pages.entries {
            if entry.lease.id != lease {
                continue;
            }
            match &mut entry.stage {
                Stage::Waiting(wait) => wait.look_now(now),
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

    /// Whether this nonce holds a lock, as far as core knows.
    pub(crate) fn holds(&self, nonce: Nonce) -> bool {
        self.held(nonce).is_some()
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

impl Entry {
    fn put(&self, keys: &Keys, base: Base) -> Put {
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

    fn due(&self, keys: &Keys) -> Option<Due> {
        Some(Due {
            claim: self.claim.clone(),
            held: self.held()?,
            name: keys.of_name(&self.claim.name),
        })
    }

    fn held(&self) -> Option<Held> {
        Some(Held {
            key: self.slot.key.clone(),
            created: self.created?,
        })
    }
}

impl Pages {
    fn free_slot(&mut self, keys: &Keys, name: &LockName) -> Arc<Slot> {
        let taken = self.slots.entry(name.clone()).or_default();
        let number = (0..)
            .find(|number| taken.iter().all(|slot| slot.number != *number))
            .unwrap_or_default();
        let slot = Arc::new(Slot {
            number,
            key: keys.slot(name, number),
        });
        taken.push(Arc::clone(&slot));
        slot
    }

    /// Gives back the keys of `name` that no claim has any more.
    fn prune(&mut self, name: &LockName) {
        if let Some(taken) = self.slots.get_mut(name) {
            taken.retain(|slot| Arc::strong_count(slot) > 1);
            if taken.is_empty() {
                self.slots.remove(name);
            }
        }
    }

    fn waits(&self) -> impl Iterator<Item = (&Entry, &Wait)> {
        self.entries
            .values()
            .filter_map(|entry| match &entry.stage {
                Stage::Waiting(wait) => Some((entry, wait)),
                _ => None,
            })
    }

    fn tell(&self, nonce: Nonce) {
        if let Some(entry) = self.entries.get(&nonce) {
            entry.heard.send_replace(());
        }
    }

    /// A waiter does not follow anybody any more.
    fn stop_following(&mut self, nonce: Nonce, now: BootInstant) {
        let Some(entry) = self.entries.get(&nonce) else {
            return;
        };
        if let Stage::Waiting(wait) = &entry.stage {
            let (start, key) = (wait.ahead.start.clone(), wait.ahead.key.clone());
            self.unlink_key(nonce, &key);
            self.follow.end(&start, now);
        }
    }

    fn unlink(&mut self, nonce: Nonce, wait: &Wait) {
        let key = wait.ahead.key.clone();
        self.unlink_key(nonce, &key);
    }

    fn unlink_key(&mut self, nonce: Nonce, key: &[u8]) {
        if let Some(behind) = self.behind.get_mut(key) {
            behind.retain(|other| *other != nonce);
            if behind.is_empty() {
                self.behind.remove(key);
            }
        }
    }

    /// Core has been told that the claim failed; what may still be executed has to be remembered.
    fn forget_unless_unresolved(&mut self, nonce: Nonce) {
        let resolved = self
            .entries
            .get(&nonce)
            .is_some_and(|entry| !entry.unanswered && entry.created.is_none());
        if resolved {
            self.forget(nonce);
        }
    }

    fn forget(&mut self, nonce: Nonce) {
        if let Some(entry) = self.entries.remove(&nonce) {
            let name = entry.claim.name.clone();
            drop(entry);
            self.prune(&name);
        }
    }
}

fn given_up() -> Error {
    invalid("acquire", "this claim was released")
}
