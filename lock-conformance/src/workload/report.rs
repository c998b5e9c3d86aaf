//! Judging what became of a plan, and saying what was wrong.

use std::fmt;
use std::time::Duration;

use super::plan::Plan;
use super::run::Ran;
use crate::case::Failure;
use crate::history::{Event, Violation, What, check_workload, shrink};

/// How many events of the whole history are shown around what is wrong.
const AROUND: usize = 40;

/// What was done in a run that was good.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) grants: u64,
    pub(crate) checks: u64,
    /// How many waiters were seen in a queue.
    pub(crate) queued: u64,
    pub(crate) longest_wait: Duration,
}

/// A run that was not good, with all that is needed to see why.
struct Broken<'a> {
    plan: &'a Plan,
    failure: Failure,
    /// The part of the history that shows it.
    shrunken: Vec<Event>,
    around: Vec<Event>,
}

impl Ran {
    /// Whether the history can be; if not, with the least part of it that cannot.
    pub(crate) fn judge(self, plan: &Plan) -> Result<Tally, Failure> {
        let Self {
            events,
            records,
            terms,
            trouble,
        } = self;
        let check = |events: &[Event]| check_workload(events, records.as_deref(), &terms);
        if let Err(violation) = check(&events) {
            let shrunken = shrink(&events, &violation, check);
            let around = around(&events, &violation, &shrunken);
            let broken = Broken {
                plan,
                failure: violation.into(),
                shrunken,
                around,
            };
            return Err(Failure::new(broken.to_string()));
        }
        match trouble {
            None => Ok(tally(&events)),
            Some(failure) => {
                let broken = Broken {
                    plan,
                    failure,
                    shrunken: Vec::new(),
                    around: events[events.len().saturating_sub(AROUND)..].to_vec(),
                };
                Err(Failure::new(broken.to_string()))
            }
        }
    }
}

/// The events of the lock in question before and just after the last of the evidence, or of the least
/// history where something is missing and nothing shows that.
fn around(events: &[Event], violation: &Violation, shrunken: &[Event]) -> Vec<Event> {
    let evidence = violation.evidence.iter().max_by_key(|event| event.at);
    let Some(last) = evidence.or(shrunken.last()) else {
        return Vec::new();
    };
    let near: Vec<&Event> = events
        .iter()
        .filter(|event| event.name.is_empty() || event.name == last.name)
        .collect();
    let end = near.partition_point(|event| event.at <= last.at) + AROUND / 4;
    let near = &near[..end.min(near.len())];
    let from = near.len().saturating_sub(AROUND);
    near[from..].iter().copied().cloned().collect()
}

fn tally(events: &[Event]) -> Tally {
    let mut tally = Tally::default();
    for event in events {
        match event.what {
            What::Asked { .. } => tally.requests += 1,
            What::Granted { asked, .. } => {
                tally.grants += 1;
                let waited = event.at.saturating_sub(asked);
                tally.longest_wait = tally.longest_wait.max(waited);
            }
            What::Checked { .. } => tally.checks += 1,
            What::Queued { .. } => tally.queued += 1,
            _ => {}
        }
    }
    tally
}

impl fmt::Display for Broken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            plan,
            failure,
            shrunken,
            around,
        } = self;
        writeln!(f, "{failure}")?;
        writeln!(f, "seed {}: {plan}", plan.seed)?;
        if !shrunken.is_empty() {
            writeln!(f, "the least history that shows it:")?;
            show(f, shrunken)?;
        }
        if !around.is_empty() {
            writeln!(f, "and what was around it:")?;
            show(f, around)?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, events: &[Event]) -> fmt::Result {
    events.iter().try_for_each(|event| writeln!(f, "  {event}"))
}
