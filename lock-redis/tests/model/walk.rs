//! Random walks, beyond what can be looked at whole; each is repeated from its seed.

use fastrand::Rng;

use crate::action::{Action, Scope, Setup};
use crate::explore::{Found, examine};
use crate::properties::{self, Property};
use crate::state::State;

/// How long one walk is.
const STEPS: usize = 150;
/// One state in so many is also healed.
const HEALED: usize = 8;

/// One walk. What it finds is shortened before it is reported.
pub(crate) fn walk(seed: u64, clients: u8, setup: &Setup, scope: &Scope) -> Result<(), Box<Found>> {
    let mut rng = Rng::with_seed(seed);
    let start = State::new(clients);
    let mut state = start.clone();
    let mut trace = Vec::new();
    for step in 1..=STEPS {
        let actions = state.enabled(scope);
        let weights: Vec<u32> = actions.iter().map(|action| weight(*action)).collect();
        let mut choice = rng.u32(0..weights.iter().sum());
        let at = weights
            .iter()
            .position(|weight| {
                let here = choice < *weight;
                choice = choice.saturating_sub(*weight);
                here
            })
            .expect("time can always pass");
        trace.push(actions[at]);
        state.apply(actions[at], setup);
        let healed = rng.usize(0..HEALED) == 0 || step == STEPS;
        let fine = if healed {
            examine(&state, setup).map_err(|sick| sick.property)
        } else {
            properties::check(&state)
        };
        if let Err(property) = fine {
            let trace = shorten(&start, trace, setup, property);
            return Err(Box::new(found(&start, trace, setup, property)));
        }
    }
    Ok(())
}

/// Faults are rare, and time passes slowly: otherwise nobody would ever get anywhere.
fn weight(action: Action) -> u32 {
    match action {
        Action::Execute(_) | Action::Deliver(..) | Action::Take(_) | Action::Connect(_) => 24,
        Action::Ask(_) | Action::Clean(_) | Action::Place(_) | Action::Lapse(_) => 12,
        Action::Tick | Action::Pass(_) | Action::Release(_) => 8,
        Action::Try(_) | Action::Renew(_) | Action::Replace(_) | Action::ExecuteLate(_) => 4,
        Action::Cancel(_) | Action::Discard(_) | Action::LosePush(_) => 3,
        Action::Crash(_) | Action::Step(_) | Action::FailOver(_) | Action::LoseData(_) => 1,
    }
}

/// Leaves out whatever the violation does not need.
fn shorten(start: &State, trace: Vec<Action>, setup: &Setup, property: Property) -> Vec<Action> {
    let mut trace = trace;
    let mut length = trace.len() / 2;
    while length > 0 {
        let mut at = 0;
        while at + length <= trace.len() {
            let mut shorter = trace.clone();
            shorter.drain(at..at + length);
            match violates(start, &shorter, setup, property) {
                Some(enough) => {
                    shorter.truncate(enough);
                    trace = shorter;
                }
                None => at += 1,
            }
        }
        length /= 2;
    }
    trace
}

/// After how many steps `trace` breaks `property`, if it can be gone and does so.
fn violates(start: &State, trace: &[Action], setup: &Setup, property: Property) -> Option<usize> {
    let mut state = start.clone();
    for (at, action) in trace.iter().enumerate() {
        if !state.may(*action) {
            return None;
        }
        state.apply(*action, setup);
        if let Err(broken) = properties::check(&state) {
            return (broken == property).then_some(at + 1);
        }
    }
    let sick = examine(&state, setup).err()?;
    (sick.property == property).then_some(trace.len())
}

fn found(start: &State, mut trace: Vec<Action>, setup: &Setup, property: Property) -> Found {
    let mut state = start.clone();
    for action in &trace {
        state.apply(*action, setup);
    }
    let depth = trace.len();
    if let Err(sick) = examine(&state, setup) {
        trace.extend(sick.way);
    }
    Found {
        property,
        start: start.clone(),
        trace,
        depth,
        setup: *setup,
    }
}
