//! Every state within a scope, nearest first, so that what is found is as short as it can be.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;

use crate::action::{Action, Scope, Setup, describe};
use crate::heal::{self, Sick};
use crate::properties::{self, Property};
use crate::state::State;

/// A violation, and how to get there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) property: Property,
    pub(crate) start: State,
    pub(crate) trace: Vec<Action>,
    /// After how many steps of the trace faults stopped, if it shows only after that.
    pub(crate) depth: usize,
    pub(crate) setup: Setup,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) depth: usize,
    /// Whether there is nothing in the scope beyond that depth.
    pub(crate) whole: bool,
}

/// Looks at every state that can be reached from `start` in at most `depth` steps, and at what
/// becomes of each when faults stop.
pub(crate) fn explore(
    start: &State,
    setup: &Setup,
    scope: &Scope,
    depth: usize,
) -> Result<Looked, Box<Found>> {
    let hasher = foldhash::fast::FixedState::default();
    let mut seen = HashSet::with_hasher(hasher.clone());
    // How each state was reached: from which one, and by what.
    let mut reached: Vec<Option<(usize, Action)>> = vec![None];
    let mut level = vec![(0, start.clone())];
    seen.insert(hasher.hash_one(start));
    let mut looked = Looked::default();
    while !level.is_empty() && looked.depth < depth {
        let mut next = Vec::new();
        for (at, state) in &level {
            for action in state.enabled(scope) {
                let mut after = state.clone();
                after.apply(action, setup);
                looked.transitions += 1;
                if !seen.insert(hasher.hash_one(&after)) {
                    continue;
                }
                reached.push(Some((*at, action)));
                if let Err(sick) = examine(&after, setup) {
                    let mut trace = way_to(&reached, reached.len() - 1);
                    let depth = trace.len();
                    trace.extend(sick.way);
                    return Err(Box::new(Found {
                        property: sick.property,
                        start: start.clone(),
                        trace,
                        depth,
                        setup: *setup,
                    }));
                }
                next.push((reached.len() - 1, after));
            }
        }
        level = next;
        looked.depth += 1;
    }
    looked.states = reached.len();
    looked.whole = level.is_empty();
    Ok(looked)
}

/// Checks a state, and what becomes of it when faults stop.
pub(crate) fn examine(state: &State, setup: &Setup) -> Result<(), Sick> {
    properties::check(state).map_err(|property| Sick {
        property,
        way: Vec::new(),
    })?;
    heal::heal(state, setup)?;
    // Only a clock that was set can make a waiter's lease long.
    if state.spent.steps > 0 && state.spent.crashes > 0 {
        heal::settle(state, setup)?;
    }
    Ok(())
}

fn way_to(reached: &[Option<(usize, Action)>], mut at: usize) -> Vec<Action> {
    let mut way = Vec::new();
    while let Some((before, action)) = reached[at] {
        way.push(action);
        at = before;
    }
    way.reverse();
    way
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.property)?;
        let mut state = self.start.clone();
        for (at, action) in self.trace.iter().enumerate() {
            if at == self.depth {
                writeln!(f, "      (faults stop here)")?;
            }
            writeln!(f, "{:4}. {}", at + 1, describe(&state, *action))?;
            state.apply(*action, &self.setup);
        }
        writeln!(f, "then the server is {:?}", state.server)?;
        for client in &state.clients {
            writeln!(f, "and a client {client:?}")?;
        }
        Ok(())
    }
}
