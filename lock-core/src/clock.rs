//! The one clock that validity is measured on.

mod manual;

use std::fmt;
use std::future::Future;
use std::ops::Add;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use self::manual::Hand;
pub use self::manual::ManualClock;

/// The clock of the platform that also runs while the machine is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SUSPEND_AWARE: ClockId = ClockId::CLOCK_BOOTTIME;
/// On Apple's systems `CLOCK_MONOTONIC` is `mach_continuous_time`: it counts through sleep.
#[cfg(target_vendor = "apple")]
const SUSPEND_AWARE: ClockId = ClockId::CLOCK_MONOTONIC;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
compile_error!(
    "distlock needs a monotonic clock that runs while the machine is suspended (ADR 0003)"
);

/// Tokio's timers do not see a suspended machine, so a long sleep is taken in steps of this length.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A point in time on a clock that never steps and that counts through suspend.
///
/// `std::time::Instant` is not used anywhere in this workspace: on Linux it stops while the machine
/// is suspended, and a lock that was valid before a laptop lid closed would look valid after it.
///
/// # Source
/// ADR 0003; Linux `clock_gettime(2)`, `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The point `since_origin` after the clock's own origin.
    #[must_use]
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// How far this point is from the clock's own origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this point; zero when `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved back by `by`, at most to the clock's origin.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// Where time comes from: the machine in production, the test's hand in tests.
///
/// Cheap to clone. All of core and every backend asks the clock they were given and no other.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<Hand>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Manual(_) => "Manual",
        })
    }
}

impl Clock {
    /// The machine's own suspend-aware monotonic clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// The current time.
    ///
    /// # Panics
    /// When the operating system does not have the clock this crate was compiled for.
    #[must_use]
    pub fn now(&self) -> BootInstant {
        match &self.0 {
            Source::System => {
                let now = clock_gettime(SUSPEND_AWARE)
                    .expect("the platform was checked at compile time to have this clock");
                BootInstant(now.into())
            }
            Source::Manual(hand) => hand.now(),
        }
    }

    /// Waits until the clock shows `at`, or later.
    ///
    /// Must be awaited on a tokio runtime with time enabled when this is the system's clock. After
    /// a suspend it resolves within a second of the machine's waking.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future leaves nothing behind.
    pub async fn sleep_until(&self, at: BootInstant) {
        match &self.0 {
            Source::System => loop {
                let left = at.saturating_since(self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            },
            Source::Manual(hand) => hand.sleep_until(at).await,
        }
    }

    /// Waits for `length`; see [`sleep_until`](Self::sleep_until).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn sleep(&self, length: Duration) {
        self.sleep_until(self.now() + length).await;
    }

    /// Runs `work` for at most `limit`; `None` when the time was up first.
    ///
    /// A result that is ready at the same instant wins.
    ///
    /// # Cancel safety
    /// As cancel safe as `work`, which is dropped when the time is up.
    pub async fn timeout<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        self.timeout_at(self.now() + limit, work).await
    }

    /// Runs `work` until `at` at the latest; `None` when the time was up first.
    ///
    /// # Cancel safety
    /// As cancel safe as `work`, which is dropped when the time is up.
    pub async fn timeout_at<F: Future>(&self, at: BootInstant, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.sleep_until(at) => None,
        }
    }

    /// [`sleep_until`](Self::sleep_until) for an optional point: `None` never comes.
    pub(crate) fn sleep_until_some(
        &self,
        at: Option<BootInstant>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match at {
            Some(at) => Box::pin(self.sleep_until(at)),
            None => Box::pin(std::future::pending()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_does_not_run_backwards() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(first.since_origin() > Duration::ZERO);
    }

    #[tokio::test]
    async fn output_wins_over_the_limit_at_the_same_instant() {
        let clock = ManualClock::new().clock();
        assert_eq!(clock.timeout(Duration::ZERO, async { 7 }).await, Some(7));
    }
}
