//! A clock that is moved by hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{BootInstant, Clock, Source};

/// A clock that moves only when told to, for tests of time without waiting.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let hand = lock_core::ManualClock::new();
/// let clock = hand.clock();
/// let before = clock.now();
/// hand.advance(Duration::from_secs(7));
/// assert_eq!(clock.now(), before + Duration::from_secs(7));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hand>);

impl ManualClock {
    /// A clock that shows one hour after its origin, so that tests can look back.
    #[must_use]
    pub fn new() -> Self {
        Self::at(BootInstant::from_origin(Duration::from_secs(3600)))
    }

    pub(crate) fn at(now: BootInstant) -> Self {
        Self(Arc::new(Hand(Mutex::new(State {
            now,
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
        }))))
    }

    /// The clock that this hand moves.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }

    /// Moves the clock forward and wakes every sleeper whose time has come, in the order of their
    /// times.
    pub fn advance(&self, by: Duration) {
        self.0.set(|now| now + by);
    }

    /// Moves the clock forward to `to`; whether that woke somebody.
    #[cfg(test)]
    pub(crate) fn advance_to(&self, to: BootInstant) -> bool {
        self.0.set(|now| now.max(to))
    }

    /// The earliest time that somebody sleeps for.
    #[cfg(test)]
    pub(crate) fn next_wake(&self) -> Option<BootInstant> {
        let state = self.0.state();
        state.sleepers.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
pub(super) struct Hand(Mutex<State>);

#[derive(Debug)]
struct State {
    now: BootInstant,
    /// By when they are to be woken, and who came first among those of one instant.
    sleepers: BTreeMap<(BootInstant, u64), Waker>,
    next_sleeper: u64,
}

impl Hand {
    pub(super) fn now(&self) -> BootInstant {
        self.state().now
    }

    pub(super) fn sleep_until(self: &Arc<Self>, at: BootInstant) -> Sleep {
        Sleep {
            hand: Arc::clone(self),
            at,
            place: None,
        }
    }

    fn set(&self, to: impl FnOnce(BootInstant) -> BootInstant) -> bool {
        let due = {
            let mut state = self.state();
            state.now = to(state.now);
            let now = state.now;
            if state
                .sleepers
                .first_key_value()
                .is_none_or(|((at, _), _)| *at > now)
            {
                return false;
            }
            let later = state.sleepers.split_off(&(now, u64::MAX));
            mem::replace(&mut state.sleepers, later)
        };
        // Not under the mutex: a waker is foreign code.
        due.into_values().for_each(Waker::wake);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a hand has moved its clock to a time.
pub(super) struct Sleep {
    hand: Arc<Hand>,
    at: BootInstant,
    place: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let hand = Arc::clone(&self.hand);
        let mut state = hand.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let place = *self.place.get_or_insert_with(|| {
            state.next_sleeper += 1;
            state.next_sleeper
        });
        state
            .sleepers
            .insert((self.at, place), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // Dropped after the mutex: a waker is foreign code.
            let _waker = self.hand.state().sleepers.remove(&(self.at, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn manual_sleeper_wakes_exactly_when_its_time_has_come() {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let at = clock.now() + Duration::from_millis(10);
        let mut sleep = std::pin::pin!(clock.sleep_until(at));
        hand.advance(Duration::from_millis(9));
        assert!(futures_util::poll!(&mut sleep).is_pending());
        hand.advance(Duration::from_millis(1));
        assert!(futures_util::poll!(&mut sleep).is_ready());
    }

    #[tokio::test]
    async fn sleeper_that_was_dropped_is_forgotten() {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let at = clock.now() + Duration::from_millis(10);
        {
            let mut sleep = Box::pin(clock.sleep_until(at));
            assert!(futures_util::poll!(&mut sleep).is_pending());
            assert_eq!(hand.next_wake(), Some(at));
        }
        assert_eq!(hand.next_wake(), None);
        assert!(!hand.advance_to(at), "nobody was there to be woken");
    }
}
