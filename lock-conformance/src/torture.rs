//! Torture: round after round of a random workload with random faults, until the time is up or a
//! history cannot be.
//!
//! Everything that is left to chance in a round comes from the round's seed, and that of the first
//! round is the seed of the whole run: so the seed of any round, given with a single round, plays the
//! same workload with the same faults again. What the machine makes of it may differ; a rare race
//! may take several tries.

mod interrupt;
mod round;
mod summary;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lock_core::Clock;

use self::interrupt::Interrupt;
use self::round::{Ended, Themes};
use self::summary::Summary;
use crate::environment;
use crate::harness::Harness;
use crate::program::this_program;
use crate::workload::Plan;

const MINUTES: &str = "LOCK_TORTURE_MINUTES";
const SEED: &str = "LOCK_TORTURE_SEED";
const ROUNDS: &str = "LOCK_TORTURE_ROUNDS";

/// How long to torture, and from which seed on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Torture {
    /// No round begins after this.
    pub length: Duration,
    /// The most rounds. Defaults to as many as there is time for.
    pub rounds: Option<u64>,
    /// The seed of the first round.
    pub seed: u64,
}

/// The end of a run of torture.
#[derive(Debug)]
pub enum Verdict {
    /// Every history was good.
    Good {
        /// How many rounds there were.
        rounds: u64,
    },
    /// A round was not.
    Bad(Box<Bad>),
    /// There is nothing to run on, and whoever runs it has allowed that.
    Missing(String),
}

/// A round that was not good.
#[derive(Debug)]
pub struct Bad {
    /// The seed of the round.
    pub seed: u64,
    /// What was to be done, when it came to that.
    pub plan: Option<Plan>,
    /// What was wrong: the property, the least history that shows it, and the command that plays the
    /// round again.
    pub report: String,
}

impl Torture {
    /// What the environment asks for: `LOCK_TORTURE_MINUTES`, which may be a fraction,
    /// `LOCK_TORTURE_ROUNDS`, and `LOCK_TORTURE_SEED`. `None` without the first two.
    ///
    /// # Errors
    /// When one of them is no such number, or there is a seed and nothing else.
    pub fn from_env() -> Result<Option<Self>, String> {
        let length = environment::option(MINUTES, "a number of minutes", |text| {
            let minutes: f64 = text.parse().ok()?;
            Duration::try_from_secs_f64(minutes * 60.0).ok()
        })?;
        let (rounds, seed) = (environment::number(ROUNDS)?, environment::number(SEED)?);
        Ok(match (length, rounds) {
            (None, None) if seed.is_some() => {
                return Err(format!("{SEED} without {MINUTES} or {ROUNDS}: how long?"));
            }
            (None, None) => None,
            _ => Some(Self {
                length: length.unwrap_or(Duration::MAX),
                rounds,
                seed: seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)),
            }),
        })
    }
}

/// Tortures until the time is up, the rounds are over, or a round is not good. `say` is given a line
/// for each round, and a summary in the end.
pub fn torture(harness: Arc<dyn Harness>, torture: &Torture, say: impl FnMut(&str)) -> Verdict {
    torture_until(&Interrupt::never(), harness, torture, say)
}

fn torture_until(
    interrupt: &Interrupt,
    harness: Arc<dyn Harness>,
    torture: &Torture,
    mut say: impl FnMut(&str),
) -> Verdict {
    let clock = Clock::system();
    let began = clock.now();
    let mut summary = Summary::default();
    let mut seed = torture.seed;
    let mut verdict = None;
    let mut themes = Themes::of(&*harness);
    say(&format!("torturing {} from seed {seed} on", harness.name()));
    say(&themes.to_string());
    while verdict.is_none()
        && !interrupt.has_come()
        && summary.rounds() < torture.rounds.unwrap_or(u64::MAX)
        && clock.now().saturating_since(began) < torture.length
    {
        let round = clock.now();
        match round::play_in_time(Arc::clone(&harness), &themes, seed, interrupt) {
            Ended::Good(done) => {
                let took = clock.now().saturating_since(round);
                say(&summary.add(seed, &done, took));
            }
            Ended::Bad { plan, what } => {
                let report = format!("{what}again: {}", again(seed));
                say(&format!(
                    "round {} is not good\n{report}",
                    summary.rounds() + 1
                ));
                verdict = Some(Verdict::Bad(Box::new(Bad { seed, plan, report })));
            }
            Ended::Missing { theme, what } => {
                say(&format!(
                    "no more rounds of {theme}, as was allowed: {what}"
                ));
                themes.leave_out(theme);
                if themes.is_empty() {
                    verdict = Some(Verdict::Missing(what));
                }
                // The same seed means another round now.
                continue;
            }
            Ended::Interrupted => break,
        }
        seed = next(seed);
    }
    say(&summary.to_string());
    let rounds = summary.rounds();
    verdict.unwrap_or(Verdict::Good { rounds })
}

/// Tortures as a program does: prints, ends when it is interrupted, and answers with an exit code.
pub(crate) fn run_as_program(harness: Arc<dyn Harness>, options: &Torture) -> ExitCode {
    match torture_until(&Interrupt::listen(), harness, options, say) {
        Verdict::Good { rounds: 0 } => {
            say("no round came to its end: that proves nothing, and is a failure");
            ExitCode::FAILURE
        }
        Verdict::Good { .. } => ExitCode::SUCCESS,
        Verdict::Bad(_) => ExitCode::FAILURE,
        Verdict::Missing(what) => {
            say(&format!("skipped, as that was allowed: {what}"));
            ExitCode::SUCCESS
        }
    }
}

/// The seed of the round after the one with this seed. Any other function without short circles would
/// do; small numbers are easier to type.
fn next(seed: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ 0x746f_7274_7572_6521).u64(..1_000_000_000)
}

/// The command that plays a round again.
fn again(seed: u64) -> String {
    let (program, _) = this_program();
    format!("{ROUNDS}=1 {SEED}={seed} {program}")
}

#[expect(clippy::print_stdout, reason = "the report of a test program")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_of_rounds_do_not_run_in_a_short_circle() {
        let seeds: BTreeSet<u64> = std::iter::successors(Some(1), |seed| Some(next(*seed)))
            .take(5_000)
            .collect();
        assert_eq!(seeds.len(), 5_000);
    }
}
