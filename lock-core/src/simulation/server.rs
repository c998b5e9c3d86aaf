//! The lock server of the simulation: small, and honest unless it is broken on purpose.
//!
//! Pure state: a request and the time go in; an answer, pushes and a record of what happened come
//! out. It keeps a FIFO queue, counts TTLs on its own clock, and gives no nonce that was released
//! another chance.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::plan::LATEST;
use super::protocol::{Deed, Ended, Entry, Reply, Request, Standing};
use super::sabotage::{Sabotage, broken};
use crate::owner::Nonce;

/// How long a released nonce is remembered: for longer than a copy of its request can be under way.
const TOMBSTONE: Duration = Duration::from_secs(LATEST.as_secs() * 3);
/// A waiter that has not been heard of for this long does not count.
const WAITER_LEASE: Duration = Duration::from_secs(3);
/// So a waiter looks how it stands this often, whatever it is told.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(600);

#[derive(Default)]
pub(super) struct Server {
    claim_window: Option<Duration>,
    locks: BTreeMap<&'static str, Lock>,
    spent: BTreeMap<Nonce, Duration>,
    last_token: u64,
    deeds: Vec<Deed>,
}

#[derive(Default)]
struct Lock {
    holder: Option<Holder>,
    queue: VecDeque<Waiter>,
}

struct Holder {
    entry: Entry,
    token: u64,
    ends: Duration,
    provisional: bool,
}

struct Waiter {
    entry: Entry,
    heard: Duration,
}

impl Server {
    pub(super) fn new(claim_window: Option<Duration>) -> Self {
        Self {
            claim_window,
            ..Self::default()
        }
    }

    pub(super) fn handle(&mut self, now: Duration, request: &Request) -> Reply {
        self.settle(now);
        match request {
            Request::Stand(entry) => Reply::Standing(self.stand(now, *entry)),
            Request::Try(entry) => Reply::Standing(self.attempt(now, *entry)),
            Request::Renew(holds) => Reply::Renewed(
                holds
                    .iter()
                    .map(|(entry, token)| self.renew(now, *entry, *token))
                    .collect(),
            ),
            Request::Release(entry) => Reply::Released(self.release(now, *entry)),
            Request::Pass { held, next } => {
                let released = self.release(now, *held);
                Reply::Passed {
                    released,
                    next: self.stand(now, *next),
                }
            }
            Request::Replace { waiting, next } => {
                Reply::Replaced(self.replace(now, *waiting, *next))
            }
        }
    }

    /// Ends what is over.
    pub(super) fn settle(&mut self, now: Duration) {
        self.spent.retain(|_, until| *until > now);
        let over: Vec<_> = self
            .locks
            .iter()
            .filter(|(_, lock)| {
                lock.holder
                    .as_ref()
                    .is_some_and(|holder| holder.ends <= now)
            })
            .map(|(name, _)| *name)
            .collect();
        for name in over {
            self.end(now, name, Ended::Expired);
        }
    }

    /// When the next lease is over.
    pub(super) fn next_end(&self) -> Option<Duration> {
        let holders = self.locks.values().filter_map(|lock| lock.holder.as_ref());
        holders.map(|holder| holder.ends).min()
    }

    pub(super) fn break_holder(&mut self, now: Duration, name: &'static str) {
        self.settle(now);
        if let Some(holder) = self.lock(name).holder.as_ref() {
            let nonce = holder.entry.nonce;
            self.bury(now, nonce);
            self.end(now, name, Ended::Broken);
        }
    }

    /// Forgets everything but the time, which tokens are seeded with.
    pub(super) fn lose_data(&mut self, now: Duration) {
        let locks = std::mem::take(&mut self.locks);
        self.spent.clear();
        self.last_token = 0;
        for lock in locks.into_values() {
            self.deeds
                .extend(lock.queue.iter().map(|waiter| Deed::Unqueued(waiter.entry)));
            self.deeds.extend(lock.holder.map(|holder| Deed::Ended {
                of: holder.entry,
                token: holder.token,
                why: Ended::Forgotten,
                at: now,
            }));
        }
    }

    /// What happened since this was asked last.
    pub(super) fn take_deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }

    /// Something of `process` that holds or waits, and has not just not been swept yet.
    pub(super) fn trace_of(&self, now: Duration, process: usize) -> Option<Entry> {
        self.entries()
            .find(|(entry, until)| entry.process == process && *until > now)
            .map(|(entry, _)| entry)
    }

    /// Whether nobody holds or waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }

    /// Who holds or waits, and until when if nothing is heard of it.
    fn entries(&self) -> impl Iterator<Item = (Entry, Duration)> + '_ {
        self.locks.values().flat_map(|lock| {
            let holder = lock.holder.iter().map(|holder| (holder.entry, holder.ends));
            let waiters = lock.queue.iter();
            holder.chain(waiters.map(|waiter| (waiter.entry, waiter.heard + WAITER_LEASE)))
        })
    }

    fn stand(&mut self, now: Duration, entry: Entry) -> Standing {
        if self.is_spent(entry.nonce) {
            return Standing::Spent;
        }
        let lock = self.lock(entry.name);
        if let Some(place) = lock.place(entry.nonce) {
            lock.queue[place].heard = now;
            return Standing::Queued;
        }
        if lock.holder.is_none() {
            self.grant(now, entry, entry.ttl, false);
        }
        match self.lock(entry.name).standing(now, entry.nonce) {
            Some(granted) => granted,
            None => {
                let lock = self.lock(entry.name);
                lock.queue.push_back(Waiter { entry, heard: now });
                self.deeds.push(Deed::Queued(entry));
                Standing::Queued
            }
        }
    }

    fn attempt(&mut self, now: Duration, entry: Entry) -> Standing {
        if self.is_spent(entry.nonce) {
            return Standing::Spent;
        }
        if self.lock(entry.name).holder.is_none() || broken(Sabotage::TryIgnoresHolder) {
            self.grant(now, entry, entry.ttl, false);
        }
        let granted = self.lock(entry.name).standing(now, entry.nonce);
        granted.unwrap_or_else(|| {
            // "Busy" is final: nobody releases this nonce.
            self.bury(now, entry.nonce);
            Standing::Busy
        })
    }

    fn renew(&mut self, now: Duration, entry: Entry, token: u64) -> Option<Duration> {
        let holder = self.lock(entry.name).holder.as_mut();
        match holder.filter(|holder| holder.entry.nonce == entry.nonce && holder.token == token) {
            Some(holder) => {
                holder.ends = now + served(entry.ttl);
                holder.provisional = false;
            }
            None if broken(Sabotage::RenewalRevives) => {}
            None => return None,
        }
        Some(entry.ttl)
    }

    fn release(&mut self, now: Duration, entry: Entry) -> bool {
        self.bury(now, entry.nonce);
        let lock = self.lock(entry.name);
        if let Some(place) = lock.place(entry.nonce) {
            lock.queue.remove(place);
            self.deeds.push(Deed::Unqueued(entry));
            return false;
        }
        let holder = lock.holder.as_ref();
        let own = holder.is_some_and(|holder| holder.entry.nonce == entry.nonce);
        if own || (holder.is_some() && broken(Sabotage::ReleaseIgnoresNonce)) {
            self.end(now, entry.name, Ended::Released);
        }
        own
    }

    fn replace(&mut self, now: Duration, waiting: Entry, next: Entry) -> Option<Standing> {
        self.bury(now, waiting.nonce);
        if self.is_spent(next.nonce) {
            return Some(Standing::Spent);
        }
        let lock = self.lock(waiting.name);
        if let Some(standing) = lock.standing(now, next.nonce) {
            return Some(standing);
        }
        if lock.place(next.nonce).is_some() {
            return Some(Standing::Queued);
        }
        if let Some(place) = lock.place(waiting.nonce) {
            lock.queue[place] = Waiter {
                entry: next,
                heard: now,
            };
            self.deeds.push(Deed::Replaced { waiting, next });
            return Some(Standing::Queued);
        }
        let holder = lock.holder.as_ref()?;
        if holder.entry.nonce != waiting.nonce {
            return None;
        }
        let token = holder.token;
        lock.holder = None;
        self.deeds.push(Deed::Ended {
            of: waiting,
            token,
            why: Ended::Released,
            at: now,
        });
        self.grant(now, next, next.ttl, false);
        self.lock(waiting.name).standing(now, next.nonce)
    }

    /// Ends the hold on `name` and hands the lock to the first waiter that is alive.
    fn end(&mut self, now: Duration, name: &'static str, why: Ended) {
        let Some(ended) = self.lock(name).holder.take() else {
            return;
        };
        self.deeds.push(Deed::Ended {
            of: ended.entry,
            token: ended.token,
            why,
            at: if why == Ended::Expired {
                ended.ends
            } else {
                now
            },
        });
        while let Some(waiter) = self.lock(name).next() {
            if waiter.heard + WAITER_LEASE < now {
                self.deeds.push(Deed::Unqueued(waiter.entry));
                continue;
            }
            let ttl = waiter.entry.ttl;
            let window = self.claim_window.map_or(ttl, |window| window.min(ttl));
            self.grant(now, waiter.entry, window, true);
            return;
        }
    }

    fn grant(&mut self, now: Duration, to: Entry, length: Duration, pushed: bool) {
        let micros = u64::try_from(now.as_micros()).expect("a simulation is short");
        let last = self.last_token;
        self.last_token = (last + 1).max(micros + 1);
        let token = if broken(Sabotage::TokenReused) && last > 0 {
            last
        } else {
            self.last_token
        };
        let provisional = length < to.ttl;
        self.lock(to.name).holder = Some(Holder {
            entry: to,
            token,
            ends: now + served(length),
            provisional,
        });
        self.deeds.push(Deed::Granted { to, token, pushed });
    }

    fn bury(&mut self, now: Duration, nonce: Nonce) {
        if !broken(Sabotage::NoTombstones) {
            self.spent.insert(nonce, now + TOMBSTONE);
        }
    }

    fn is_spent(&self, nonce: Nonce) -> bool {
        self.spent.contains_key(&nonce)
    }

    fn lock(&mut self, name: &'static str) -> &mut Lock {
        self.locks.entry(name).or_default()
    }
}

impl Lock {
    fn place(&self, nonce: Nonce) -> Option<usize> {
        self.queue
            .iter()
            .position(|waiter| waiter.entry.nonce == nonce)
    }

    fn next(&mut self) -> Option<Waiter> {
        if broken(Sabotage::QueueUnordered) {
            return self.queue.pop_back();
        }
        self.queue.pop_front()
    }

    /// How the holder stands, if it is this one.
    fn standing(&self, now: Duration, nonce: Nonce) -> Option<Standing> {
        let holder = self.holder.as_ref()?;
        (holder.entry.nonce == nonce).then(|| Standing::Granted {
            token: holder.token,
            remaining: said(holder.ends.saturating_sub(now)),
            provisional: holder.provisional,
        })
    }
}

/// How long a lease of `length` really lasts.
fn served(length: Duration) -> Duration {
    if broken(Sabotage::EarlyExpiry) {
        length * 9 / 10
    } else {
        length
    }
}

/// How much of a lease is said to be left.
fn said(remaining: Duration) -> Duration {
    if broken(Sabotage::EarlyExpiry) {
        remaining * 10 / 9
    } else {
        remaining
    }
}
