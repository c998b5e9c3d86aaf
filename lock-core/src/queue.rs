//! The order in which one client's callers stand for one name: pure state, no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::BootInstant;
use crate::owner::OwnerId;
#[cfg(test)]
use crate::simulation::{Sabotage, broken};

/// Callers in the order in which they came.
///
/// Whoever leaves is found by an index: ten thousand callers who are cancelled one after another
/// must not keep the client's thread from its renewals.
#[derive(Debug)]
pub(crate) struct LocalQueue<T> {
    entries: BTreeMap<Place, Entry<T>>,
    next_place: Place,
    tickets: HashMap<u64, Place>,
    tries: BTreeSet<Place>,
    owned: BTreeSet<(OwnerId, Place)>,
    /// The ends of all bounded waits.
    limits: BTreeSet<(BootInstant, Place)>,
}

/// Grows with every caller. Tickets do not do: they are drawn before the queue is reached.
type Place = u64;

/// One caller in line.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) ticket: u64,
    pub(crate) owner: Option<OwnerId>,
    /// Whether it waits, or goes away when the lock is busy.
    pub(crate) waits: bool,
    /// Until when it stands here at the longest.
    pub(crate) limit: Option<BootInstant>,
    pub(crate) caller: T,
}

impl<T> LocalQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            next_place: 0,
            tickets: HashMap::new(),
            tries: BTreeSet::new(),
            owned: BTreeSet::new(),
            limits: BTreeSet::new(),
        }
    }

    pub(crate) fn push(&mut self, entry: Entry<T>) {
        let place = self.next_place;
        self.next_place += 1;
        self.tickets.insert(entry.ticket, place);
        if !entry.waits {
            self.tries.insert(place);
        }
        if let Some(owner) = entry.owner {
            self.owned.insert((owner, place));
        }
        if let Some(limit) = entry.limit {
            self.limits.insert((limit, place));
        }
        self.entries.insert(place, entry);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        #[cfg(test)]
        if broken(Sabotage::LineUnordered) {
            let (place, entry) = self.entries.pop_last()?;
            return Some(self.left(place, entry));
        }
        let (place, entry) = self.entries.pop_first()?;
        Some(self.left(place, entry))
    }

    /// When the next bounded wait ends.
    pub(crate) fn earliest_limit(&self) -> Option<BootInstant> {
        #[cfg(test)]
        if broken(Sabotage::DeadlineIgnored) {
            return None;
        }
        self.limits.first().map(|(limit, _)| *limit)
    }

    pub(crate) fn withdraw(&mut self, ticket: u64) {
        if let Some(place) = self.tickets.get(&ticket).copied() {
            self.take([place]);
        }
    }

    /// Those who only try.
    pub(crate) fn take_tries(&mut self) -> Vec<T> {
        let tries = std::mem::take(&mut self.tries);
        self.take(tries)
    }

    pub(crate) fn take_owned_by(&mut self, owner: OwnerId) -> Vec<T> {
        let owned = self.owned.range((owner, Place::MIN)..=(owner, Place::MAX));
        let places: Vec<_> = owned.map(|(_, place)| *place).collect();
        self.take(places)
    }

    pub(crate) fn take_expired(&mut self, now: BootInstant) -> Vec<T> {
        let expired = self.limits.range(..=(now, Place::MAX));
        let places: BTreeSet<_> = expired.map(|(_, place)| *place).collect();
        self.take(places)
    }

    pub(crate) fn take_all(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn take(&mut self, places: impl IntoIterator<Item = Place>) -> Vec<T> {
        places
            .into_iter()
            .filter_map(|place| {
                let entry = self.entries.remove(&place)?;
                Some(self.left(place, entry))
            })
            .collect()
    }

    /// Takes an entry that has left out of every index.
    fn left(&mut self, place: Place, entry: Entry<T>) -> T {
        self.tickets.remove(&entry.ticket);
        self.tries.remove(&place);
        if let Some(owner) = entry.owner {
            self.owned.remove(&(owner, place));
        }
        if let Some(limit) = entry.limit {
            self.limits.remove(&(limit, place));
        }
        entry.caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(secs: u64) -> BootInstant {
        BootInstant::from_origin(Duration::from_secs(secs))
    }

    fn entry(ticket: u64, waits: bool, limit: Option<u64>, owner: Option<OwnerId>) -> Entry<u64> {
        Entry {
            ticket,
            owner,
            waits,
            limit: limit.map(at),
            caller: ticket,
        }
    }

    #[test]
    fn order_is_kept_whoever_leaves() {
        let mine = OwnerId::new();
        let mut queue = LocalQueue::new();
        queue.push(entry(1, true, None, None));
        queue.push(entry(2, false, Some(5), None));
        queue.push(entry(3, true, Some(4), Some(mine)));
        queue.push(entry(4, false, Some(9), Some(mine)));
        queue.push(entry(5, true, None, None));
        assert_eq!(queue.earliest_limit(), Some(at(4)));
        assert_eq!(queue.take_expired(at(4)), [3]);
        assert_eq!(queue.take_owned_by(mine), [4]);
        assert_eq!(queue.take_tries(), [2]);
        assert_eq!(queue.earliest_limit(), None);
        queue.withdraw(1);
        assert_eq!(queue.pop(), Some(5));
        assert_eq!(queue.pop(), None);
    }

    proptest! {
        #[test]
        fn indices_agree_with_the_entries(
            ops in prop::collection::vec((0_u8..6, any::<bool>(), prop::option::of(0_u64..20)), 1..60)
        ) {
            let mut queue = LocalQueue::new();
            for (ticket, (op, waits, limit)) in (0_u64..).zip(ops) {
                match op {
                    0..=2 => queue.push(entry(ticket, waits, limit, None)),
                    3 => { queue.pop(); }
                    4 => { queue.take_expired(at(limit.unwrap_or(0))); }
                    _ => queue.withdraw(ticket / 2),
                }
                let tickets: Vec<_> = queue.entries.values().map(|entry| entry.ticket).collect();
                prop_assert!(tickets.is_sorted());
                let indexed: HashMap<_, _> =
                    queue.entries.iter().map(|(place, entry)| (entry.ticket, *place)).collect();
                prop_assert_eq!(&queue.tickets, &indexed);
                let tries = queue.entries.iter().filter(|(_, e)| !e.waits).map(|(p, _)| *p);
                prop_assert_eq!(&queue.tries, &tries.collect());
                let limits = queue.entries.iter().filter_map(|(p, e)| Some((e.limit?, *p)));
                prop_assert_eq!(&queue.limits, &limits.collect());
            }
        }
    }
}
