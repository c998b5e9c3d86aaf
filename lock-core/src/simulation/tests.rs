//! Many schedules, the same ones each time; and that they would find what is broken.

use std::env;
use std::time::Duration;

use super::plan::Plan;
use super::sabotage::{Sabotage, breaking};
use super::shrink::shrink;
use super::{Outcome, run};
use crate::clock::Clock;

/// How many schedules a test run takes, unless `LOCK_SIM_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 10_000;
/// Within how many schedules something broken has to be found.
const SOON: u64 = 2_000;

#[test]
fn no_schedule_breaks_the_contract() {
    if let Some(seed) = number("LOCK_SIM_SEED") {
        return replay(seed);
    }
    match number("LOCK_SIM_MINUTES") {
        None => {
            let schedules = number("LOCK_SIM_SCHEDULES").unwrap_or(SCHEDULES);
            (0..schedules).for_each(verify);
        }
        Some(minutes) => verify_for(minutes),
    }
}

#[test]
fn equal_seeds_have_equal_histories() {
    for seed in 0..100 {
        let plan = Plan::of(seed);
        let [first, second] = [run(&plan, true).history, run(&plan, true).history];
        assert!(first.len() > 1, "a history of nothing proves nothing");
        let differs = first
            .iter()
            .zip(&second)
            .find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

#[test]
fn whatever_is_broken_is_found() {
    let found: Vec<_> = Sabotage::ALL
        .into_iter()
        .map(|part| (part, find(part)))
        .collect();
    for (part, seed) in &found {
        println!("{part:?}: {seed:?}");
    }
    for (part, seed) in found {
        assert!(
            seed.is_some(),
            "{part:?} is broken, and {SOON} schedules do not show it"
        );
    }
}

/// The first schedule that shows that `part` is broken, and the rule that it breaks.
fn find(part: Sabotage) -> Option<(u64, &'static str)> {
    breaking(part, || {
        (0..SOON).find_map(|seed| {
            let violation = run(&Plan::of(seed), false).violation?;
            Some((seed, violation.rule))
        })
    })
}

#[test]
fn what_is_cut_down_still_fails_in_the_same_way() {
    breaking(Sabotage::KeeperSleeps, || {
        let (plan, rule) = (0..SOON)
            .map(Plan::of)
            .find_map(|plan| Some((plan.clone(), run(&plan, false).violation?.rule)))
            .expect("it is found");
        let breaks_it = |plan: &Plan| {
            run(plan, false)
                .violation
                .is_some_and(|violation| violation.rule == rule)
        };
        let smallest = shrink(plan, breaks_it);
        assert!(breaks_it(&smallest));
        let visits: usize = smallest.users.iter().map(|user| user.visits.len()).sum();
        assert_eq!(
            (visits, smallest.faults.len()),
            (1, 0),
            "one holder is enough for it:\n{smallest}"
        );
    });
}

fn verify(seed: u64) {
    if run(&Plan::of(seed), false).violation.is_some() {
        replay(seed);
    }
}

fn verify_for(minutes: u64) {
    let clock = Clock::system();
    let end = (minutes > 0).then(|| clock.now() + Duration::from_secs(60 * minutes));
    // Others than the run before.
    let first = fastrand::u64(..u64::MAX / 2);
    println!("schedules from seed {first} on");
    let mut seed = first;
    while end.is_none_or(|end| clock.now() < end) {
        verify(seed);
        seed += 1;
    }
    println!("{} schedules", seed - first);
}

/// Runs one schedule; when it fails, says why, how, and how to see it again.
fn replay(seed: u64) {
    let plan = Plan::of(seed);
    let Outcome { violation, history } = run(&plan, true);
    let Some(violation) = violation else {
        println!("{}", history.join("\n"));
        return;
    };
    let fails = |plan: &Plan| {
        run(plan, false)
            .violation
            .is_some_and(|other| other.rule == violation.rule)
    };
    let smallest = shrink(plan, fails);
    let Outcome { violation, history } = run(&smallest, true);
    let violation = violation.expect("it has just failed");
    panic!(
        "seed {seed} breaks {}: {}\n\n{smallest}\n{}\n\nagain: cargo xtask simulate --seed {seed}\n",
        violation.rule,
        violation.what,
        history.join("\n"),
    );
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is not a whole number")),
    )
}
