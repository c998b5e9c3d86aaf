//! What was done, round by round and in all.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::round::Done;
use crate::workload::Tally;

/// The rounds so far.
#[derive(Debug, Default)]
pub(super) struct Summary {
    by_kind: BTreeMap<String, Row>,
    whole: Row,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    rounds: u64,
    faults: usize,
    tally: Tally,
}

impl Row {
    fn add(&mut self, faults: usize, tally: &Tally) {
        self.rounds += 1;
        self.faults += faults;
        self.tally.requests += tally.requests;
        self.tally.grants += tally.grants;
        self.tally.checks += tally.checks;
        self.tally.longest_wait = self.tally.longest_wait.max(tally.longest_wait);
    }
}

impl Summary {
    pub(super) fn rounds(&self) -> u64 {
        self.whole.rounds
    }

    /// Takes in a round that was good; the line that says so.
    pub(super) fn add(&mut self, seed: u64, done: &Done, took: Duration) -> String {
        let Done { plan, theme, tally } = done;
        let faults = plan.faults.len();
        let row = self.by_kind.entry(plan.kind.to_string()).or_default();
        row.add(faults, tally);
        self.whole.add(faults, tally);
        format!(
            "round {:>4}  seed {seed:<9}  {:<14}  {theme:<9}  {faults:>2} faults  {:>6} requests  {:>6} grants  \
             {:>6} checks  longest wait {:>6.2} s  took {:>5.1} s",
            self.rounds(),
            plan.kind,
            tally.requests,
            tally.grants,
            tally.checks,
            tally.longest_wait.as_secs_f64(),
            took.as_secs_f64(),
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14} {:>7} {:>7} {:>9} {:>9} {:>9} {:>13}",
            "workload", "rounds", "faults", "requests", "grants", "checks", "longest wait"
        )?;
        for (kind, row) in &self.by_kind {
            show(f, kind, row)?;
        }
        show(f, "all", &self.whole)
    }
}

fn show(f: &mut fmt::Formatter<'_>, what: &str, row: &Row) -> fmt::Result {
    let Row {
        rounds,
        faults,
        tally,
    } = row;
    writeln!(
        f,
        "{what:<14} {rounds:>7} {faults:>7} {:>9} {:>9} {:>9} {:>11.2} s",
        tally.requests,
        tally.grants,
        tally.checks,
        tally.longest_wait.as_secs_f64(),
    )
}
