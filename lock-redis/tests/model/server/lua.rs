//! The scripts, each as its file in `src/lua/`.

use super::{Effect, Holder, Periods, Run, Server, Waiter};
use crate::network::{Standing, Why};
use crate::rules::Rule;
use crate::state::{CLAIM, Nonce, TTL, Time, Token};

// acquire.lua, place.lua, renew.lua, release.lua, pass.lua, replace.lua
impl Run<'_> {
    pub(super) fn acquire(&mut self, nonce: Nonce, why: Why) -> Standing {
        if self.holds(nonce) {
            return self.found();
        }
        if !self.live() {
            let promoted =
                self.rules.keep(Rule::QueueOwnsFreeLock) && self.settle(Some(nonce)).is_some();
            if !promoted {
                self.remove(nonce);
                self.grant(nonce, TTL, false, self.floor, None);
            }
            if self.holds(nonce) {
                return self.granted();
            }
        }
        if why == Why::Try {
            return Standing::Busy;
        }
        self.enqueue(nonce, None)
    }

    pub(super) fn place(&mut self, nonce: Nonce) -> Standing {
        if self.holds(nonce) {
            let answer = self.found();
            return if self.rules.keep(Rule::PlaceReportsGrant) {
                answer
            } else {
                Standing::Queued {
                    server: self.now,
                    again: self.periods.head,
                }
            };
        }
        if !self.live()
            && self.rules.keep(Rule::PlaceNoticesExpiry)
            && self.settle(Some(nonce)) == Some(nonce)
        {
            return self.granted();
        }
        let Some(rank) = self.lock.place(nonce) else {
            return Standing::Gone;
        };
        for ahead in (0..rank).rev() {
            self.sweep(ahead);
        }
        self.queued(nonce)
    }

    pub(super) fn renew(&mut self, nonce: Nonce) -> Time {
        let ended = self.lock.holder.is_some_and(|it| it.nonce == nonce) && !self.live();
        if self.holds(nonce) || ended && !self.rules.keep(Rule::RenewalNeverRevives) {
            self.extend(TTL, false);
            return TTL;
        }
        if !self.live() {
            if !self.rules.keep(Rule::RenewalNeverRecreates) && self.lock.queue.is_empty() {
                self.grant(nonce, TTL, false, self.floor, None);
                return TTL;
            }
            self.settle(None);
        }
        0
    }

    pub(super) fn release(&mut self, nonce: Nonce, bury: bool) -> bool {
        let held = self.holds(nonce);
        let frees = held || self.live() && !self.rules.keep(Rule::ReleaseIsByNonce);
        if self.rules.keep(Rule::CallerLeavesBeforePromotion) {
            self.remove(nonce);
        }
        self.bury(nonce, bury);
        if frees || !self.live() {
            self.settle(None);
        }
        self.remove(nonce);
        held
    }

    pub(super) fn pass(&mut self, old: Nonce, bury: bool, nonce: Nonce) -> (bool, Standing) {
        let dead = self.is_buried(nonce);
        self.remove(old);
        self.bury(old, bury);
        let held = self.holds(old);
        if held || !self.live() {
            if !dead && self.lock.queue.is_empty() {
                self.grant(nonce, TTL, false, self.floor, None);
                return (held, self.granted());
            }
            self.settle(Some(nonce));
        }
        if dead {
            return (held, Standing::Dead);
        }
        if self.holds(nonce) {
            return (held, self.granted());
        }
        if !self.live() {
            self.grant(nonce, TTL, false, self.floor, None);
            return (held, self.granted());
        }
        (held, self.enqueue(nonce, None))
    }

    pub(super) fn replace(&mut self, old: Nonce, nonce: Nonce) -> Standing {
        let dead = self.is_buried(nonce);
        let place = self.lock.place(old);
        let arrival = place.map(|at| self.lock.queue[at].arrival);
        self.remove(old);
        self.bury(old, self.rules.keep(Rule::ReplaceBuriesTheOld));
        let holds = self.holds(old);
        if holds && !dead {
            self.grant(nonce, TTL, false, self.floor, None);
            if let Some(Effect::Granted { inherited, .. }) = self.effects.last_mut() {
                *inherited = true;
            }
            return self.granted();
        }
        let (Some(place), Some(arrival), false) = (place, arrival, dead) else {
            if holds || !self.live() {
                self.settle(None);
            }
            return if dead { Standing::Dead } else { Standing::Gone };
        };
        let answer = self.enqueue(nonce, Some((place, arrival)));
        if self.live() {
            return answer;
        }
        if self.settle(Some(nonce)) == Some(nonce) {
            return self.granted();
        }
        self.queued(nonce)
    }
}

// lock.lua
impl Run<'_> {
    /// Answers the token of a lease that has ended and that nobody has noticed yet.
    pub(super) fn open(&mut self) -> Option<Token> {
        if let Some(holder) = &mut self.lock.holder {
            let latest = self.now + holder.lease;
            if holder.expires > latest && self.rules.keep(Rule::HolderIsClamped) {
                holder.expires = latest;
            }
        }
        (self.lock.holder.is_some() && !self.live()).then_some(self.lock.last)
    }

    pub(super) fn live(&self) -> bool {
        self.lock.live(self.now).is_some()
    }

    fn holds(&self, nonce: Nonce) -> bool {
        self.lock
            .live(self.now)
            .is_some_and(|holder| holder.nonce == nonce)
    }

    fn grant(
        &mut self,
        nonce: Nonce,
        lease: Time,
        provisional: bool,
        floor: Token,
        arrival: Option<u8>,
    ) {
        let mut token = 1;
        if self.rules.keep(Rule::TokenAboveLast) {
            token = token.max(self.lock.last + 1);
        }
        if self.rules.keep(Rule::TokenFromTime) {
            token = token.max(Server::token_of(self.now));
        }
        if self.rules.keep(Rule::TokenAboveSeen) {
            token = token.max(self.floor + 1).max(floor + 1);
        }
        self.lock.last = token;
        self.lock.holder = Some(Holder {
            nonce,
            expires: self.now + lease,
            lease,
            provisional,
        });
        self.effects.push(Effect::Granted {
            nonce,
            token,
            arrival,
            inherited: false,
        });
    }

    fn granted(&self) -> Standing {
        let left = self
            .lock
            .holder
            .map_or(0, |holder| holder.expires - self.now);
        Standing::Granted {
            token: self.lock.last,
            left,
        }
    }

    pub(super) fn is_buried(&self, nonce: Nonce) -> bool {
        self.rules.keep(Rule::TombstonesAreRespected) && self.lock.tombstones.contains(nonce)
    }

    fn bury(&mut self, nonce: Nonce, bury: bool) {
        if bury {
            self.lock.tombstones.insert(nonce);
        }
    }
}

// queue.lua
impl Run<'_> {
    fn remove(&mut self, nonce: Nonce) {
        self.lock.queue.retain(|waiter| waiter.nonce != nonce);
    }

    /// Removes the waiter at `place` if its lease has ended; answers whether it did.
    fn sweep(&mut self, place: usize) -> bool {
        let waiter = &mut self.lock.queue[place];
        let latest = self.now + waiter.lease;
        if waiter.ends > latest && self.rules.keep(Rule::WaiterIsClamped) {
            waiter.ends = latest;
        }
        if waiter.ends > self.now {
            return false;
        }
        let waiter = self.lock.queue.remove(place);
        self.effects.push(Effect::Swept(waiter.nonce));
        true
    }

    fn queued(&mut self, nonce: Nonce) -> Standing {
        let place = self.lock.place(nonce).expect("it stands there");
        let again = self.periods.at(place + 1);
        let waiter = &mut self.lock.queue[place];
        waiter.lease = Periods::lease(again);
        waiter.ends = self.now + waiter.lease;
        waiter.floor = waiter.floor.max(self.floor);
        Standing::Queued {
            server: self.now,
            again,
        }
    }

    /// At the end, or at a place that was given up; one that stands there keeps its place.
    fn enqueue(&mut self, nonce: Nonce, at: Option<(usize, u8)>) -> Standing {
        if self.lock.place(nonce).is_none() {
            let (place, arrival) = at.unwrap_or_else(|| {
                while self
                    .lock
                    .queue
                    .len()
                    .checked_sub(1)
                    .is_some_and(|tail| self.sweep(tail))
                {}
                *self.arrivals += 1;
                (self.lock.queue.len(), *self.arrivals)
            });
            self.lock.queue.insert(
                place,
                Waiter {
                    nonce,
                    ends: self.now,
                    lease: 0,
                    floor: self.floor,
                    arrival,
                },
            );
            self.effects.push(Effect::Queued { nonce, arrival });
        }
        self.queued(nonce)
    }

    /// Hands a lock that nobody holds to the first waiter that is still there.
    fn promote(&mut self, own: Option<Nonce>) -> Option<Nonce> {
        while !self.lock.queue.is_empty() {
            let first = self.lock.queue[0];
            if Some(first.nonce) != own && first.ends <= self.now {
                self.lock.queue.remove(0);
                self.effects.push(Effect::Swept(first.nonce));
                continue;
            }
            self.lock.queue.remove(0);
            if Some(first.nonce) == own {
                self.grant(first.nonce, TTL, false, first.floor, Some(first.arrival));
                return own;
            }
            let lease = if self.rules.keep(Rule::HandOffGrantsClaimWindow) {
                CLAIM
            } else {
                TTL
            };
            self.grant(first.nonce, lease, true, first.floor, Some(first.arrival));
            self.effects.push(Effect::Pushed {
                nonce: first.nonce,
                token: self.lock.last,
                lease,
                server: self.now,
            });
            return Some(first.nonce);
        }
        None
    }

    /// For a lock without a live holder: the next waiter, or nobody.
    fn settle(&mut self, own: Option<Nonce>) -> Option<Nonce> {
        let heir = self.promote(own);
        if heir.is_none() {
            self.lock.holder = None;
        }
        heir
    }

    fn extend(&mut self, lease: Time, provisional: bool) {
        if let Some(holder) = &mut self.lock.holder {
            holder.lease = lease;
            holder.expires = self.now + lease;
            holder.provisional = provisional;
        }
    }

    /// What a caller is told that turns out to hold the lock.
    fn found(&mut self) -> Standing {
        if let Some(holder) = self.lock.holder
            && holder.provisional
        {
            self.extend(holder.lease, true);
        }
        self.granted()
    }
}
