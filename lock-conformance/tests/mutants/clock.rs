//! R3, R4, R7: clients whose clock is wrong, on a backend whose clock is right.
//!
//! This is what core's own timing looks like from outside when it is broken: every wait, every deadline
//! and every look at a lease is taken on the client's clock.

use std::sync::Weak;
use std::thread;

use lock_core::ManualClock;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        ClockStandsStill,
        "is used by clients that never see time pass",
        ["R4.10"]
    ),
    mutant!(
        ClockRunsSlow,
        "is used by clients whose clock runs at a third of the true speed",
        ["R4.01"]
    ),
    mutant!(
        ClockRunsFast,
        "is used by clients whose clock runs at three times the true speed",
        ["R7.06", "R9.06"]
    ),
];

/// How often a wrong clock is moved.
const TICK: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct ClockStandsStill(WrongClock<0>);

#[derive(Debug)]
struct ClockRunsSlow(WrongClock<33>);

#[derive(Debug)]
struct ClockRunsFast(WrongClock<300>);

impl Default for ClockRunsSlow {
    fn default() -> Self {
        Self(WrongClock::running())
    }
}

impl Default for ClockRunsFast {
    fn default() -> Self {
        Self(WrongClock::running())
    }
}

/// A clock that runs at so many hundredths of the true speed.
#[derive(Debug, Default)]
struct WrongClock<const PERCENT: u32>(Arc<ManualClock>);

impl<const PERCENT: u32> WrongClock<PERCENT> {
    fn running() -> Self {
        Self(running_at(|| PERCENT))
    }

    /// The grant as a client measures it that has this clock.
    fn measured(&self, claim: &Claim, grant: &Grant) -> Grant {
        Grant::new(claim, grant.token(), whole(&self.0.clock(), claim))
    }

    async fn renewed(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let measured = |grant: &&Grant| whole(&self.0.clock(), grant.claim());
        let answers = real.renew(grants).await;
        answers
            .into_iter()
            .zip(grants)
            .map(|(answer, grant)| match answer? {
                Renewal::Extended(_) => Ok(Renewal::Extended(measured(grant))),
                Renewal::Gone => Ok(Renewal::Gone),
            })
            .collect()
    }
}

/// A clock that runs at so many hundredths of the true speed.
pub(crate) fn running_at(percent: impl Fn() -> u32 + Send + 'static) -> Arc<ManualClock> {
    let hand = Arc::new(ManualClock::new());
    let weak = Arc::downgrade(&hand);
    thread::spawn(move || drive(&weak, percent));
    hand
}

/// Moves the clock for as long as anybody has it.
fn drive(hand: &Weak<ManualClock>, percent: impl Fn() -> u32) {
    let clock = Clock::system();
    let mut last = clock.now();
    while let Some(hand) = hand.upgrade() {
        let now = clock.now();
        hand.advance(now.saturating_since(last) * percent() / 100);
        last = now;
        drop(hand);
        thread::sleep(TICK);
    }
}

/// A bend whose clients have the clock of its only field.
macro_rules! clock_bend {
    ($bend:ident) => {
        #[async_trait]
        impl Bend for $bend {
            fn client_clock(&self) -> Option<Clock> {
                Some(self.0.0.clock())
            }

            async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
                self.0.measured(claim, &grant)
            }

            async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
                self.0.renewed(real, grants).await
            }

            // Told of the end by the backend, a holder does not need its own clock.
            fn events(&self, _: &Real) -> BoxStream<'static, Event> {
                silence()
            }
        }
    };
}

clock_bend!(ClockStandsStill);
clock_bend!(ClockRunsSlow);
clock_bend!(ClockRunsFast);
