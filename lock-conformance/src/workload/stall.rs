//! Seeing that a process does not run: the machine was busy, or somebody stopped it.

use std::time::Duration;

use lock_core::Clock;

use super::perform::Sink;
use crate::history::{Event, Trouble, What};

const TICK: Duration = Duration::from_millis(10);
/// From here on a process counts as one that was paused. A task that is later than this for other
/// reasons is late by its own fault.
pub(crate) const STALL: Duration = Duration::from_millis(50);

/// Writes down for every one of `who` when this process had not been running. Does not end.
pub(crate) async fn watch_for_stalls(who: Vec<String>, sink: Sink) {
    let clock = Clock::system();
    let mut last = clock.now();
    loop {
        tokio::time::sleep(TICK).await;
        let now = clock.now();
        if now.saturating_since(last) > STALL {
            for who in &who {
                let since = last.since_origin();
                sink(Event {
                    at: now.since_origin(),
                    who: who.clone(),
                    name: String::new(),
                    what: What::Trouble(Trouble::Stalled { since }),
                });
            }
        }
        last = now;
    }
}
