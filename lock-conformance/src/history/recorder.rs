//! Collecting what many clients see.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lock_core::Clock;

use super::event::{Event, What};

/// Collects the history of one case. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    clock: Clock,
    events: Arc<Mutex<Vec<Event>>>,
    seed: Arc<OnceLock<u64>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A recorder on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Clock::system(),
            events: Arc::default(),
            seed: Arc::default(),
        }
    }

    /// Says which seed the case goes by: whoever reports that it hung or panicked wants to know that too.
    pub(crate) fn goes_by(&self, seed: u64) {
        // The first one is right: a case goes by one seed.
        let _ = self.seed.set(seed);
    }

    /// The seed that the case goes by, if there is one.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed.get().copied()
    }

    /// The time, as events carry it.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.now().since_origin()
    }

    /// Records what happened just now.
    pub fn record(&self, who: &str, name: &str, what: What) {
        self.add(Event {
            at: self.now(),
            who: who.to_owned(),
            name: name.to_owned(),
            what,
        });
    }

    /// Records what happened at another time, or in another process.
    pub fn add(&self, event: Event) {
        self.lock().push(event);
    }

    /// Everything so far, in the order of time.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.lock().clone();
        events.sort_by_key(|event| event.at);
        events
    }

    /// The last `count` events, one line each.
    #[must_use]
    pub fn excerpt(&self, count: usize) -> String {
        let events = self.events();
        let skipped = events.len().saturating_sub(count);
        let mut text = String::new();
        if skipped > 0 {
            text = format!("  ... {skipped} earlier events\n");
        }
        for event in &events[skipped..] {
            text.push_str(&format!("  {event}\n"));
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{granted, releasing};
    use super::*;

    #[test]
    fn excerpt_shows_the_end_in_the_order_of_time() {
        let recorder = Recorder::new();
        recorder.add(releasing(20, "b", 1));
        recorder.add(granted(0, 10, "a", 1));
        recorder.add(releasing(5, "early", 0));
        let text = recorder.excerpt(2);
        assert!(text.contains("1 earlier"), "{text}");
        assert!(!text.contains("early  "), "{text}");
        let granted = text.find("granted 1").expect("shown");
        assert!(granted < text.find("releasing 1").expect("shown"), "{text}");
    }
}
