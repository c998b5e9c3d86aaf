//! Removes the parents of queues that nobody uses any more.
//!
//! They are containers, which the server removes by itself in its own time: by default a minute or
//! more later, and not more than some thousand a minute. A program that locks many different names
//! would outrun it. A parent that somebody else has just joined is not empty and stays; one that is
//! removed under somebody who is about to join is made again by him.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::BootInstant;

/// A name that is used again within this time is left alone.
const IDLE: Duration = Duration::from_secs(2);

/// The parents that this client has left, each since when.
#[derive(Debug, Default)]
pub(crate) struct Tidy(Mutex<HashMap<String, BootInstant>>);

impl Tidy {
    pub(crate) fn in_use(&self, queue: &str) {
        self.lock().remove(queue);
    }

    pub(crate) fn left(&self, queue: &str, now: BootInstant) {
        self.lock().insert(queue.to_owned(), now);
    }

    /// Takes at most `most` parents that have been left for a while, or at all.
    pub(crate) fn take(&self, now: BootInstant, most: usize, at_all: bool) -> Vec<String> {
        let mut left = self.lock();
        let idle = |since: &BootInstant| at_all || now.saturating_since(*since) >= IDLE;
        let taken: Vec<String> = left
            .iter()
            .filter(|(_, since)| idle(since))
            .map(|(queue, _)| queue.clone())
            .take(most)
            .collect();
        for queue in &taken {
            left.remove(queue);
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BootInstant>> {
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
}
