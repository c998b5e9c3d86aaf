//! The order in which one client's callers stand for one name: pure state, no I/O.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::BootInstant;
use crate::owner::OwnerId;

/// Callers in the order in which they came.
#[derive(Debug)]
pub(crate) struct LocalQueue<T> {
    entries: VecDeque<Entry<T>>,
    /// The ends of all bounded waits, so that finding the earliest does not walk the queue.
    limits: BTreeSet<(BootInstant, u64)>,
    tries: usize,
}

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
            entries: VecDeque::new(),
            limits: BTreeSet::new(),
            tries: 0,
        }
    }

    pub(crate) fn push(&mut self, entry: Entry<T>) {
        if let Some(limit) = entry.limit {
            self.limits.insert((limit, entry.ticket));
        }
        self.tries += usize::from(!entry.waits);
        self.entries.push_back(entry);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()?;
        Some(self.left(entry))
    }

    /// When the next bounded wait ends.
    pub(crate) fn earliest_limit(&self) -> Option<BootInstant> {
        self.limits.first().map(|(limit, _)| *limit)
    }

    pub(crate) fn withdraw(&mut self, ticket: u64) {
        self.take(1, |entry| entry.ticket == ticket);
    }

    /// Those who only try.
    pub(crate) fn take_tries(&mut self) -> Vec<T> {
        self.take(self.tries, |entry| !entry.waits)
    }

    pub(crate) fn take_owned_by(&mut self, owner: OwnerId) -> Vec<T> {
        self.take(usize::MAX, |entry| entry.owner == Some(owner))
    }

    pub(crate) fn take_expired(&mut self, now: BootInstant) -> Vec<T> {
        let expired = self
            .limits
            .iter()
            .take_while(|(limit, _)| *limit <= now)
            .count();
        self.take(expired, |entry| {
            entry.limit.is_some_and(|limit| limit <= now)
        })
    }

    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.take(usize::MAX, |_| true)
    }

    /// Takes out at most `most` of those that match; the others keep their order.
    fn take(&mut self, most: usize, matches: impl Fn(&Entry<T>) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        if most == 0 {
            return taken;
        }
        for entry in std::mem::take(&mut self.entries) {
            if taken.len() < most && matches(&entry) {
                taken.push(self.left(entry));
            } else {
                self.entries.push_back(entry);
            }
        }
        taken
    }

    fn left(&mut self, entry: Entry<T>) -> T {
        if let Some(limit) = entry.limit {
            self.limits.remove(&(limit, entry.ticket));
        }
        self.tries -= usize::from(!entry.waits);
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
        fn counters_agree_with_the_entries(
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
                let tickets: Vec<_> = queue.entries.iter().map(|entry| entry.ticket).collect();
                prop_assert!(tickets.is_sorted());
                prop_assert_eq!(queue.tries, queue.entries.iter().filter(|e| !e.waits).count());
                let limits = queue.entries.iter().filter_map(|e| Some((e.limit?, e.ticket)));
                prop_assert_eq!(&queue.limits, &limits.collect());
            }
        }
    }
}
