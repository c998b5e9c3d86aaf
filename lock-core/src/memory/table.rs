//! Holds and queues: every rule of the memory backend, and no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::spent::Spent;
use crate::backend::Event;
use crate::claim::Claim;
use crate::clock::BootInstant;
use crate::error::{Error, ErrorKind, Result};
use crate::grant::{Grant, Passed, Renewal, Replaced, Standing, Validity};
use crate::name::LockName;
use crate::state::{Cursor, HolderState, LockState, Page, WaiterState};
use crate::token::FencingToken;

const PAGE: usize = 256;

/// All locks of a store.
///
/// A name without a holder is not in it, so nothing is left of a name when it is idle.
#[derive(Default)]
pub(super) struct Table {
    locks: BTreeMap<LockName, Lock>,
    /// When each lease ends, the earliest first.
    ends: BTreeMap<(BootInstant, FencingToken), LockName>,
    /// One counter for all names: it grows for each of them, and needs no memory of any.
    last_token: u64,
    spent: Spent,
}

/// A lock that is held. Nobody waits for one that is not.
struct Lock {
    holder: Hold,
    queue: VecDeque<Waiter>,
}

struct Hold {
    claim: Claim,
    client: Client,
    token: FencingToken,
    since: BootInstant,
    refreshed: BootInstant,
    /// Whether its client knows. A hand-off that ends before its waiter looked has never been.
    seen: bool,
}

struct Waiter {
    claim: Claim,
    client: Client,
    since: BootInstant,
    /// Makes the waiter look again, by a message or by being dropped.
    alarm: watch::Sender<()>,
}

/// What a table knows of a client.
#[derive(Clone)]
pub(super) struct Client {
    fence_base: u64,
    events: mpsc::UnboundedSender<Event>,
}

/// What a claim in the table can expect.
pub(super) enum Outlook {
    Granted(Grant),
    /// To look again when the alarm rings, or at `until`: the lease in front ends.
    Waiting {
        alarm: watch::Receiver<()>,
        until: BootInstant,
    },
}

impl Table {
    /// Ends the leases that are over.
    ///
    /// To be called before everything else, so that an end is noticed whoever looks and however late,
    /// and names of dead clients are forgotten without anybody asking for them.
    pub(super) fn settle(&mut self, now: BootInstant) {
        while let Some((&(end, _), name)) = self.ends.first_key_value() {
            if end > now {
                return;
            }
            let name = name.clone();
            if let Some(ended) = self.hand_off(&name, now)
                && ended.seen
            {
                debug!(%name, token = %ended.token, "lease ended");
                ended.client.tell(Event::Gone {
                    nonce: ended.claim.nonce,
                });
            }
        }
    }

    /// Grants the claim, unless somebody else holds the lock.
    pub(super) fn try_grant(
        &mut self,
        claim: &Claim,
        client: &Client,
        now: BootInstant,
    ) -> Result<Option<Grant>> {
        // A queue has a holder in front of it: who finds no holder overtakes nobody.
        if !self.locks.contains_key(&claim.name) {
            self.refuse_spent(claim, "try_acquire")?;
            self.put(claim, client, now);
        }
        Ok(self.granted(claim, now))
    }

    /// Puts the claim into the queue unless it is there, and says how it stands.
    ///
    /// A waiter that was granted and did not look before that lease was over begins anew.
    pub(super) fn stand(
        &mut self,
        claim: &Claim,
        client: &Client,
        now: BootInstant,
    ) -> Result<Outlook> {
        if !self.has(claim) {
            self.refuse_spent(claim, "acquire")?;
            self.put(claim, client, now);
        }
        self.locks
            .get_mut(&claim.name)
            .and_then(|lock| lock.outlook(claim, now))
            .ok_or_else(|| spent(claim, "acquire"))
    }

    /// Makes the lease whole again, if there is still one.
    pub(super) fn renew(&mut self, claim: &Claim, now: BootInstant) -> Renewal {
        match self.locks.get_mut(&claim.name) {
            Some(lock) if lock.holder.is(claim) => {
                self.ends.remove(&lock.holder.end_key());
                // Never earlier than before: the waiters sleep until the end they have seen.
                lock.holder.refreshed = now;
                self.ends.insert(lock.holder.end_key(), claim.name.clone());
                Renewal::Extended(lock.holder.validity(now))
            }
            _ => Renewal::Gone,
        }
    }

    /// Removes the claim for good; whether it held.
    pub(super) fn remove(&mut self, claim: &Claim, now: BootInstant) -> bool {
        self.spent.add(claim);
        let Some(lock) = self.locks.get_mut(&claim.name) else {
            return false;
        };
        if lock.holder.is(claim) {
            self.hand_off(&claim.name, now);
            return true;
        }
        if let Some(place) = lock.place(claim) {
            lock.queue.remove(place);
        }
        false
    }

    /// Removes `held` and puts `next` behind everybody, in one step.
    pub(super) fn pass(
        &mut self,
        held: &Claim,
        next: &Claim,
        client: &Client,
        now: BootInstant,
    ) -> Result<Passed> {
        self.refuse_spent(next, "pass")?;
        let released = self.remove(held, now);
        if !self.has(next) {
            self.put(next, client, now);
        }
        Ok(Passed {
            released,
            next: self.standing(next, now),
        })
    }

    /// Gives the place of `waiting` to `next`, in one step.
    pub(super) fn replace(
        &mut self,
        waiting: &Claim,
        next: &Claim,
        now: BootInstant,
    ) -> Result<Replaced> {
        self.refuse_spent(next, "replace")?;
        self.spent.add(waiting);
        if self.has(next) {
            // A repetition: it was done when it was asked for the first time.
            return Ok(Replaced::Now(self.standing(next, now)));
        }
        let Some(lock) = self.locks.get_mut(&waiting.name) else {
            return Ok(Replaced::Gone);
        };
        if lock.holder.is(waiting) {
            let client = lock.holder.client.clone();
            // In front of the queue, so that the hand-off is to it.
            lock.queue.push_front(Waiter::new(next, &client, now));
            self.hand_off(&waiting.name, now);
        } else if let Some(place) = lock.place(waiting) {
            let waiter = &mut lock.queue[place];
            *waiter = Waiter::new(next, &waiter.client, waiter.since);
        } else {
            return Ok(Replaced::Gone);
        }
        Ok(Replaced::Now(self.standing(next, now)))
    }

    pub(super) fn inspect(&self, name: &LockName, now: BootInstant) -> LockState {
        let lock = self.locks.get(name);
        LockState {
            name: name.clone(),
            holders: lock
                .map(|lock| lock.holder.state(now))
                .into_iter()
                .collect(),
            waiters: lock
                .into_iter()
                .flat_map(|lock| &lock.queue)
                .map(|waiter| waiter.state(now))
                .collect(),
            last_token: lock.map(|lock| lock.holder.token),
        }
    }

    pub(super) fn list(&self, prefix: &str, cursor: &Cursor) -> Page {
        let after = cursor.place().unwrap_or_default();
        let names: Vec<_> = self
            .locks
            .keys()
            .filter(|name| name.as_str() > after && name.as_str().starts_with(prefix))
            .take(PAGE)
            .cloned()
            .collect();
        let next = names
            .last()
            .filter(|_| names.len() == PAGE)
            .map(|last| Cursor::at(last.as_str()));
        Page { names, next }
    }

    /// Ends the hold that has this token; whether there was one.
    pub(super) fn break_hold(
        &mut self,
        name: &LockName,
        token: FencingToken,
        now: BootInstant,
    ) -> bool {
        if !matches!(self.locks.get(name), Some(lock) if lock.holder.token == token) {
            return false;
        }
        if let Some(broken) = self.hand_off(name, now) {
            self.spent.add(&broken.claim);
            debug!(%name, %token, "hold broken");
            broken.client.tell(Event::Broken {
                nonce: broken.claim.nonce,
            });
        }
        true
    }

    /// Removes the waiters of a client that is gone.
    pub(super) fn leave(&mut self, client: &Client) {
        for lock in self.locks.values_mut() {
            for waiter in &lock.queue {
                if waiter.client.is(client) {
                    self.spent.add(&waiter.claim);
                }
            }
            lock.queue.retain(|waiter| !waiter.client.is(client));
        }
    }

    fn has(&self, claim: &Claim) -> bool {
        self.locks
            .get(&claim.name)
            .is_some_and(|lock| lock.holder.is(claim) || lock.place(claim).is_some())
    }

    fn refuse_spent(&self, claim: &Claim, op: &'static str) -> Result<()> {
        if self.spent.has(claim) {
            Err(spent(claim, op))
        } else {
            Ok(())
        }
    }

    fn granted(&mut self, claim: &Claim, now: BootInstant) -> Option<Grant> {
        let holder = &mut self.locks.get_mut(&claim.name)?.holder;
        holder.is(claim).then(|| holder.grant(now))
    }

    /// How a claim stands that the table has.
    fn standing(&mut self, claim: &Claim, now: BootInstant) -> Standing {
        self.granted(claim, now)
            .map_or(Standing::Queued, Standing::Granted)
    }

    /// Grants a new claim, or puts it at the end of the queue.
    fn put(&mut self, claim: &Claim, client: &Client, now: BootInstant) {
        match self.locks.get_mut(&claim.name) {
            Some(lock) => lock.queue.push_back(Waiter::new(claim, client, now)),
            None => {
                let holder = self.hold(claim.clone(), client.clone(), now);
                self.locks.insert(claim.name.clone(), Lock::new(holder));
            }
        }
    }

    /// A new hold, from now on. It is the caller's to put it into a lock.
    fn hold(&mut self, claim: Claim, client: Client, now: BootInstant) -> Hold {
        self.last_token = self.last_token.max(client.fence_base) + 1;
        let token = FencingToken::new(self.last_token)
            .expect("a base leaves room for 2^62 grants, which is centuries of them");
        let hold = Hold {
            claim,
            client,
            token,
            since: now,
            refreshed: now,
            seen: false,
        };
        self.ends.insert(hold.end_key(), hold.claim.name.clone());
        hold
    }

    /// Ends the hold on `name`: the head of the queue has the lock from now on, and a name that
    /// nobody waits for is forgotten.
    fn hand_off(&mut self, name: &LockName, now: BootInstant) -> Option<Hold> {
        let Some(next) = self.locks.get_mut(name)?.queue.pop_front() else {
            let ended = self.locks.remove(name)?.holder;
            self.ends.remove(&ended.end_key());
            return Some(ended);
        };
        // `next.alarm` is dropped at the end of this function: that wakes the waiter.
        let hold = self.hold(next.claim, next.client, now);
        debug!(%name, token = %hold.token, "lock handed off");
        let lock = self.locks.get_mut(name)?;
        let ended = mem::replace(&mut lock.holder, hold);
        if lock.holder.end() < ended.end() {
            // The others sleep until the later end of the previous lease. With equal TTLs this does
            // not happen, and a hand-off wakes one waiter.
            for waiter in &lock.queue {
                waiter.alarm.send_replace(());
            }
        }
        self.ends.remove(&ended.end_key());
        Some(ended)
    }
}

impl Lock {
    fn new(holder: Hold) -> Self {
        Self {
            holder,
            queue: VecDeque::new(),
        }
    }

    /// What `claim` can expect; `None` when it is not here.
    fn outlook(&mut self, claim: &Claim, now: BootInstant) -> Option<Outlook> {
        if self.holder.is(claim) {
            return Some(Outlook::Granted(self.holder.grant(now)));
        }
        Some(Outlook::Waiting {
            alarm: self.queue[self.place(claim)?].alarm.subscribe(),
            until: self.holder.end(),
        })
    }

    fn place(&self, claim: &Claim) -> Option<usize> {
        self.queue
            .iter()
            .position(|waiter| waiter.claim.nonce == claim.nonce)
    }
}

impl Hold {
    fn is(&self, claim: &Claim) -> bool {
        self.claim.nonce == claim.nonce
    }

    fn end(&self) -> BootInstant {
        self.refreshed + self.claim.ttl
    }

    fn end_key(&self) -> (BootInstant, FencingToken) {
        (self.end(), self.token)
    }

    fn validity(&self, now: BootInstant) -> Validity {
        Validity::new(self.refreshed, now, self.claim.ttl)
    }

    /// What its client is told.
    fn grant(&mut self, now: BootInstant) -> Grant {
        self.seen = true;
        Grant::new(&self.claim, self.token, self.validity(now))
    }

    fn state(&self, now: BootInstant) -> HolderState {
        HolderState {
            nonce: self.claim.nonce,
            token: self.token,
            identity: self.claim.identity.clone(),
            age: now.saturating_since(self.since),
            remaining: Some(self.end().saturating_since(now)),
            provisional: false,
        }
    }
}

impl Waiter {
    fn new(claim: &Claim, client: &Client, since: BootInstant) -> Self {
        Self {
            claim: claim.clone(),
            client: client.clone(),
            since,
            alarm: watch::Sender::new(()),
        }
    }

    fn state(&self, now: BootInstant) -> WaiterState {
        WaiterState {
            nonce: self.claim.nonce,
            identity: self.claim.identity.clone(),
            age: now.saturating_since(self.since),
        }
    }
}

impl Client {
    pub(super) fn new(fence_base: u64) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { fence_base, events }, receiver)
    }

    fn is(&self, other: &Self) -> bool {
        self.events.same_channel(&other.events)
    }

    fn tell(&self, event: Event) {
        // A client that has stopped listening is gone, or closing.
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
impl Table {
    /// Everything that is remembered of any name.
    pub(super) fn remembered(&self) -> usize {
        self.locks.len() + self.ends.len()
    }

    pub(super) fn tombstones(&self) -> usize {
        self.spent.len()
    }
}

fn spent(claim: &Claim, op: &'static str) -> Error {
    Error::new(ErrorKind::Lost, op)
        .with_name(&claim.name)
        .with_detail("this acquisition has been given up")
}
