//! How the clock of a process goes.

use std::time::Duration;

use super::plan::ProcessPlan;
use crate::clock::BootInstant;

/// From the world's time to that of a process, whose clock has an origin and a rate of its own.
#[derive(Clone, Copy)]
pub(super) struct Timeline {
    origin: Duration,
    drift: i64,
}

impl Timeline {
    pub(super) fn of(plan: &ProcessPlan) -> Self {
        Self {
            origin: plan.origin,
            drift: plan.drift,
        }
    }

    /// What the clock shows at `world`.
    pub(super) fn local(self, world: Duration) -> BootInstant {
        let rate = rate(self.drift);
        let passed = u64::try_from(world.as_nanos()).expect("a simulation is short") / 1_000;
        BootInstant::from_origin(self.origin + Duration::from_nanos(passed * rate / 1_000))
    }

    /// The first time at which the clock shows `local`.
    pub(super) fn world(self, local: BootInstant) -> Duration {
        let passed = local.since_origin().saturating_sub(self.origin).as_nanos() * 1_000;
        let micros = passed.div_ceil(rate(self.drift).into());
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX / 1_000_000))
    }
}

/// Nanoseconds of a clock per thousand microseconds of the world, times a thousand.
fn rate(drift: i64) -> u64 {
    (1_000_000 + drift).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn world_time_of_a_local_time_is_the_first_that_shows_it(
            origin in 0_u64..1_000_000, drift in -9_900_i64..=9_900, at in 0_u64..100_000_000
        ) {
            let timeline = Timeline { origin: Duration::from_millis(origin), drift };
            let local = BootInstant::from_origin(Duration::from_millis(origin) + Duration::from_nanos(at));
            let world = timeline.world(local);
            prop_assert!(timeline.local(world) >= local);
            prop_assert!(world.is_zero() || timeline.local(world - Duration::from_micros(1)) < local);
        }
    }
}
