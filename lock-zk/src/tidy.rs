//! The parents of queues: which there probably are, and which nobody uses any more.
//!
//! They are containers, which the server removes by itself in its own time: by default a minute or
//! more later, and not more than some thousand a minute. A program that locks many different names
//! would outrun it. A parent that somebody else has just joined is not empty and stays; one that is
//! removed under somebody who is about to join is made again by him.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::BootInstant;

/// A name that is used again within this time is left alone.
const IDLE: Duration = Duration::from_secs(5);
/// How many parents are remembered that others use too.
const SHARED: usize = 4096;

/// The parents that this client has had to do with.
#[derive(Debug, Default)]
pub(crate) struct Tidy(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Since when each has been left; `None` for one that is in use.
    mine: HashMap<String, Option<BootInstant>>,
    /// Left by this client, but not by others when it was last seen.
    shared: HashSet<String>,
}

impl Tidy {
    /// Takes note that a parent is about to be used; answers whether it is probably there.
    pub(crate) fn in_use(&self, queue: &str) -> bool {
        let mut inner = self.lock();
        let mine = inner.mine.insert(queue.to_owned(), None).is_some();
        inner.shared.remove(queue) || mine
    }

    pub(crate) fn left(&self, queue: &str, now: BootInstant) {
        self.lock().mine.insert(queue.to_owned(), Some(now));
    }

    /// Others use it: it is for them to remove it.
    pub(crate) fn shared(&self, queue: &str) {
        let mut inner = self.lock();
        if inner.shared.len() >= SHARED {
            // What is forgotten costs a request.
            inner.shared.clear();
        }
        inner.shared.insert(queue.to_owned());
    }

    /// Takes at most `most` parents that have been left for a while, or at all.
    pub(crate) fn take(&self, now: BootInstant, most: usize, at_all: bool) -> Vec<String> {
        let mut inner = self.lock();
        let idle = |since: BootInstant| at_all || now.saturating_since(since) >= IDLE;
        let taken: Vec<String> = inner
            .mine
            .iter()
            .filter(|(_, since)| since.is_some_and(idle))
            .map(|(queue, _)| queue.clone())
            .take(most)
            .collect();
        for queue in &taken {
            inner.mine.remove(queue);
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_been_left_for_a_while_is_taken() {
        let tidy = Tidy::default();
        let start = BootInstant::from_origin(Duration::from_secs(100));
        tidy.left("/l/a", start);
        tidy.left("/l/b", start + IDLE);
        tidy.left("/l/c", start);
        tidy.in_use("/l/c");
        assert!(tidy.take(start, 10, false).is_empty());
        assert_eq!(tidy.take(start + IDLE, 10, false), ["/l/a"]);
        assert!(tidy.take(start + IDLE, 10, false).is_empty());
        assert_eq!(tidy.take(start, 10, true), ["/l/b"]);
    }

    #[test]
    fn parent_is_known_until_it_is_taken_or_when_others_use_it() {
        let tidy = Tidy::default();
        let now = BootInstant::from_origin(Duration::from_secs(100));
        assert!(!tidy.in_use("/l/a"));
        assert!(tidy.in_use("/l/a"));
        tidy.left("/l/a", now);
        assert_eq!(tidy.take(now, 10, true), ["/l/a"]);
        tidy.shared("/l/a");
        assert!(tidy.in_use("/l/a"));
        tidy.left("/l/a", now);
        assert_eq!(tidy.take(now, 10, true), ["/l/a"]);
        assert!(!tidy.in_use("/l/a"));
    }

    #[test]
    fn no_more_is_remembered_of_others_than_there_is_room_for() {
        let tidy = Tidy::default();
        for queue in 0..=SHARED {
            tidy.shared(&queue.to_string());
        }
        assert!(tidy.lock().shared.len() <= SHARED);
    }
}
