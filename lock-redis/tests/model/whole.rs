//! The protocol as it is breaks nothing: whole neighbourhoods of telling states, and random walks.

use std::env;

use crate::action::{Scope, Setup};
use crate::explore::explore;
use crate::rules::Rules;
use crate::scenes::{empty, held, orphaned, place_lost, queued};
use crate::state::State;
use crate::walk::walk;

/// One of each fault, and callers of every kind.
const ANYTHING: Scope = Scope {
    asks: 2,
    tries: true,
    passes: true,
    ticks: 7,
    cancels: 1,
    discards: 2,
    losses: 1,
    crashes: 1,
    steps: 1,
    restarts: 1,
};
/// Broken connections, and nothing else that is wrong.
const BROKEN: Scope = Scope {
    cancels: 1,
    discards: 2,
    losses: 1,
    ..Scope::CALM
};
/// How many steps more than here a nightly run looks ahead.
const DEEPER: (&str, u64) = ("LOCK_MODEL_DEEPER", 0);
/// How many random walks there are, and from which seed on; nightly runs set both.
const WALKS: (&str, u64) = ("LOCK_MODEL_WALKS", 5_000);
const SEED: (&str, u64) = ("LOCK_MODEL_SEED", 0);

/// Nothing breaks within `depth` steps from `start`; there are at least so many states.
fn whole(start: &State, scope: &Scope, depth: usize, states: usize) {
    let deeper = usize::try_from(number(DEEPER)).expect("a small number");
    match explore(start, &Setup::with(Rules::ALL), scope, depth + deeper) {
        Ok(looked) => {
            // A model in which little can happen breaks nothing either.
            assert!(looked.states >= states, "only {looked:?}");
        }
        Err(found) => panic!("{found}"),
    }
}

#[test]
fn nothing_breaks_while_all_goes_well() {
    whole(&empty(2), &Scope::CALM, 15, 900_000);
}

#[test]
fn nothing_breaks_when_connections_do() {
    whole(&empty(2), &BROKEN, 9, 180_000);
    whole(&queued(2), &BROKEN, 9, 300_000);
}

#[test]
fn nothing_breaks_from_the_beginning() {
    whole(&empty(2), &ANYTHING, 7, 280_000);
}

#[test]
fn nothing_breaks_around_a_hold() {
    whole(&held(2), &ANYTHING, 7, 300_000);
}

#[test]
fn nothing_breaks_around_a_queue() {
    whole(&queued(2), &ANYTHING, 7, 350_000);
    whole(&queued(3), &ANYTHING, 6, 250_000);
}

#[test]
fn nothing_breaks_around_a_dead_holder() {
    whole(&orphaned(3), &ANYTHING, 7, 350_000);
}

#[test]
fn nothing_breaks_around_a_lost_place() {
    whole(&place_lost(), &ANYTHING, 6, 300_000);
}

#[test]
fn random_walks_break_nothing() {
    let setup = Setup::with(Rules::ALL);
    let first = number(SEED);
    for seed in first..first + number(WALKS) {
        if let Err(found) = walk(seed, 3, &setup, &Scope::WIDE) {
            panic!(
                "seed {seed}: {found}\nagain: {}={seed} {}=1 cargo test -p lock-redis --test model random_walks",
                SEED.0, WALKS.0,
            );
        }
    }
}

fn number((name, default): (&str, u64)) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
