//! Which keys are watched, and what was heard of them.
//!
//! A waiter follows the client before it: all keys which that client has for the name, deletions
//! only. In a steady rotation each client comes behind the same one again and again, so a watch stays
//! for a while after its last waiter, and a release causes one event, to one client.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lock_core::BootInstant;

/// How long a watch stays after its last waiter.
const LINGER: Duration = Duration::from_secs(10);
/// A watch without a waiter that has told so much in vain is given up before that: its client has come
/// to stand behind another one.
const MOST_IN_VAIN: u32 = 2;
/// How many watches without a waiter there are at most.
const MOST_IDLE: usize = 128;
/// The watch id of the client's inbox; those of waiters come after it.
pub(crate) const INBOX: i64 = 1;

/// What is to be said on the watch stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// Watch the keys that begin with this.
    Watch { id: i64, start: Vec<u8> },
    /// Stop watching.
    Cancel { id: i64 },
}

#[derive(Debug)]
struct Followed {
    id: i64,
    /// Whether the server has said that it watches.
    confirmed: bool,
    /// The revision at which each key was last deleted, as far as was heard.
    deleted: HashMap<Vec<u8>, i64>,
    followers: usize,
    idle_since: BootInstant,
    /// Deletions in a row that nobody waited for.
    in_vain: u32,
}

/// What a waiter finds when it begins to follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Following {
    /// It will be told.
    Watching,
    /// What it follows is gone already.
    Gone,
    /// The watch is not confirmed yet; it has to look once more when it is.
    NotYet,
}

/// Everything that one client follows.
#[derive(Debug)]
pub(crate) struct Follow {
    by_start: HashMap<Vec<u8>, Followed>,
    by_id: BTreeMap<i64, Vec<u8>>,
    last_id: i64,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            by_start: HashMap::new(),
            by_id: BTreeMap::new(),
            last_id: INBOX,
        }
    }
}

impl Follow {
    /// Begins to follow `key`, which was created at `created`, among those that begin with `start`.
    /// Answers what is to be said on the stream, if anything is.
    pub(crate) fn begin(
        &mut self,
        start: &[u8],
        key: &[u8],
        created: i64,
        now: BootInstant,
    ) -> (Following, Option<Order>) {
        if let Some(followed) = self.by_start.get_mut(start) {
            followed.followers += 1;
            let gone = followed.deleted.get(key).is_some_and(|at| *at > created);
            return match (gone, followed.confirmed) {
                (true, _) => (Following::Gone, None),
                (false, true) => (Following::Watching, None),
                (false, false) => (Following::NotYet, None),
            };
        }
        self.last_id += 1;
        let id = self.last_id;
        let followed = Followed {
            id,
            confirmed: false,
            deleted: HashMap::new(),
            followers: 1,
            idle_since: now,
            in_vain: 0,
        };
        self.by_start.insert(start.to_vec(), followed);
        self.by_id.insert(id, start.to_vec());
        let start = start.to_vec();
        (Following::NotYet, Some(Order::Watch { id, start }))
    }

    /// One follower less.
    pub(crate) fn end(&mut self, start: &[u8], now: BootInstant) {
        if let Some(followed) = self.by_start.get_mut(start) {
            followed.followers = followed.followers.saturating_sub(1);
            followed.idle_since = now;
        }
    }

    /// The server watches; answers what the keys of this watch begin with.
    pub(crate) fn confirmed(&mut self, id: i64) -> Option<Vec<u8>> {
        let start = self.by_id.get(&id)?;
        self.by_start.get_mut(start)?.confirmed = true;
        Some(start.clone())
    }

    /// A key was deleted. Answers what is to be said, if the watch is of no more use.
    pub(crate) fn deleted(&mut self, id: i64, key: &[u8], revision: i64) -> Option<Order> {
        let followed = self
            .by_id
            .get(&id)
            .and_then(|start| self.by_start.get_mut(start));
        let followed = followed?;
        let at = followed.deleted.entry(key.to_vec()).or_default();
        *at = revision.max(*at);
        if followed.followers > 0 {
            followed.in_vain = 0;
            return None;
        }
        followed.in_vain += 1;
        if followed.in_vain < MOST_IN_VAIN {
            return None;
        }
        let start = self.by_id.remove(&id)?;
        self.by_start.remove(&start);
        Some(Order::Cancel { id })
    }

    /// The stream has ended, and a new one begins: what is to be watched there.
    pub(crate) fn begin_again(&mut self) -> Vec<Order> {
        // An id may not be used again as long as the server knows it: new ones for all.
        let mut orders = Vec::new();
        self.by_id.clear();
        for (start, followed) in &mut self.by_start {
            self.last_id += 1;
            followed.id = self.last_id;
            followed.confirmed = false;
            // It may have been made and deleted again unheard; an old entry would be no harm, though.
            followed.deleted.clear();
            self.by_id.insert(followed.id, start.clone());
            orders.push(Order::Watch {
                id: followed.id,
                start: start.clone(),
            });
        }
        orders
    }

    /// The server has ended this one watch; it is asked for again under a new id.
    pub(crate) fn refused(&mut self, id: i64) -> Option<Order> {
        let start = self.by_id.remove(&id)?;
        let followed = self.by_start.get_mut(&start)?;
        self.last_id += 1;
        followed.id = self.last_id;
        followed.confirmed = false;
        self.by_id.insert(followed.id, start.clone());
        Some(Order::Watch {
            id: followed.id,
            start,
        })
    }

    /// Gives up watches that nobody has followed for a while; answers what is to be said, and when
    /// to look again.
    pub(crate) fn end_idle(&mut self, now: BootInstant) -> (Vec<Order>, Option<BootInstant>) {
        let mut idle: Vec<(BootInstant, i64)> = self
            .by_start
            .values()
            .filter(|followed| followed.followers == 0)
            .map(|followed| (followed.idle_since, followed.id))
            .collect();
        idle.sort_unstable();
        let too_many = idle.len().saturating_sub(MOST_IDLE);
        let mut orders = Vec::new();
        let mut next = None;
        for (place, (since, id)) in idle.into_iter().enumerate() {
            if place < too_many || since + LINGER <= now {
                if let Some(start) = self.by_id.remove(&id) {
                    self.by_start.remove(&start);
                }
                orders.push(Order::Cancel { id });
            } else {
                next = Some(since + LINGER);
                break;
            }
        }
        (orders, next)
    }

    /// How many watches there are, the inbox not counted.
    pub(crate) fn len(&self) -> usize {
        self.by_start.len()
    }
}

#[cfg(test)]
mod tests;
