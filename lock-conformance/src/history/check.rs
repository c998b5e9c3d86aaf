//! The properties, one module each.

mod bounds;
mod calm;
mod exclusion;
mod foreign_release;
mod indeterminate;
mod loss;
mod order;
mod progress;
mod record;
mod renewal;
mod resource;
mod rest;
mod tokens;
mod validity;

use std::fmt;
use std::time::Duration;

pub use self::bounds::check_bounds;
pub use self::calm::check_calm;
pub use self::exclusion::check_exclusion;
pub use self::foreign_release::check_foreign_release;
pub use self::indeterminate::check_indeterminate;
pub use self::loss::check_loss_before_grant;
pub use self::order::check_order;
pub use self::progress::{check_progress, check_prompt};
pub use self::record::check_record;
pub use self::renewal::check_renewal;
pub use self::resource::{check_resource, lost_updates};
pub use self::rest::check_rest;
pub use self::tokens::check_tokens;
pub use self::validity::check_validity;
use super::event::Event;
use super::record::Record;

/// A history that cannot be.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The property that is broken, such as `P1`.
    pub property: &'static str,
    /// How.
    pub what: String,
    /// The events that show it, in the order in which they are to be read.
    pub evidence: Vec<Event>,
}

impl Violation {
    pub(super) fn new(
        property: &'static str,
        what: impl Into<String>,
        evidence: &[&Event],
    ) -> Self {
        Self {
            property,
            what: what.into(),
            evidence: evidence.iter().copied().cloned().collect(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violated: {}", self.property, self.what)?;
        for event in &self.evidence {
            write!(f, "\n  {event}")?;
        }
        Ok(())
    }
}

impl From<Violation> for crate::Failure {
    fn from(violation: Violation) -> Self {
        Self::new(violation.to_string())
    }
}

/// What a workload may be held to.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether the resource looks at tokens: otherwise P2 is not promised.
    pub fenced: bool,
    /// Whether waiters are served in order.
    pub fifo: bool,
    /// How long a free lock may stay free while somebody waits for it and nothing is broken.
    pub progress: Duration,
    /// The same, of a history in which nothing was broken from beginning to end.
    pub prompt: Duration,
    /// For how long requests may still fail when what was broken is healed.
    pub recovery: Duration,
    /// How long one request to the backend may take, slack included.
    pub op_timeout: Duration,
    /// From which TTL on a lease is renewed in time also by a busy machine.
    pub kept_ttl: Duration,
    /// How much later than it happened a task may write something down without having been paused.
    pub lateness: Duration,
}

/// Runs every check that needs nothing but the history, on one in which nothing was broken.
///
/// # Errors
/// The first violation found.
pub fn check_all(events: &[Event]) -> Result<(), Violation> {
    check_tokens(events)?;
    check_exclusion(events)?;
    check_validity(events)?;
    check_loss_before_grant(events, Duration::ZERO)
}

/// Runs every check on the whole history of a workload, and on the backend's own record where there
/// is one.
///
/// # Errors
/// The first violation found.
pub fn check_workload(
    events: &[Event],
    records: Option<&[Record]>,
    terms: &Terms,
) -> Result<(), Violation> {
    check_tokens(events)?;
    check_exclusion(events)?;
    if terms.fenced {
        check_resource(events)?;
    }
    check_validity(events)?;
    check_loss_before_grant(events, terms.lateness)?;
    check_foreign_release(events)?;
    if terms.fifo {
        check_order(events)?;
    }
    check_progress(events, terms.progress)?;
    check_prompt(events, terms.prompt)?;
    check_calm(events, terms.recovery)?;
    check_bounds(events, terms.op_timeout)?;
    check_renewal(events, terms.kept_ttl, terms.op_timeout)?;
    check_rest(events)?;
    if let Some(records) = records {
        check_record(events, records)?;
        check_indeterminate(events, records)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::event::{Loss, Trouble};
    use super::super::sample::*;
    use super::*;

    #[test]
    fn orderly_history_passes_every_check() {
        let mut history = vec![granted(0, 10, "a", 1), checked(11, 12, "a", 1, true)];
        history.extend(clean(20, 24, "a", 1));
        history.extend([
            granted(5, 25, "b", 2),
            lost(40, "b", 2, Loss::Expired),
            granted(30, 45, "c", 3),
        ]);
        history.extend(clean(50, 51, "c", 3));
        assert_eq!(check_all(&history), Ok(()));
        let records = [began(1), ended(1), began(2), ended(2), began(3), ended(3)];
        assert_eq!(check_workload(&history, Some(&records), &terms()), Ok(()));
    }

    #[test]
    fn violation_shows_its_evidence() {
        let history = [granted(0, 10, "a", 2), granted(11, 20, "b", 1)];
        let text = check_all(&history).expect_err("a bad history").to_string();
        for part in ["P1 violated", "granted 2", "granted 1"] {
            assert!(text.contains(part), "{text}");
        }
    }

    /// Checks that compare everything with everything would take hours for this one.
    #[test]
    fn history_of_a_hundred_thousand_events_is_checked() {
        let mut history = Vec::new();
        let mut records = Vec::new();
        for step in 1..=20_000_u64 {
            let (at, who) = (step * 10, format!("worker {}.0", step % 9));
            history.push(asks(at - 8, &who));
            history.push(queued(at - 7, at - 6, &who));
            history.push(granted(at - 8, at, &who, step));
            history.push(shown(at, &who, step, at + 500));
            history.extend(clean(at + 1, at + 1, &who, step));
            records.extend([began(step), ended(step)]);
            if step.is_multiple_of(50) {
                let since = ms(at - 5);
                history.push(trouble(at + 1, "worker 1", Trouble::Stalled { since }));
            }
        }
        history.sort_by_key(|event| event.at);
        assert!(history.len() > 120_000);
        assert_eq!(check_workload(&history, Some(&records), &terms()), Ok(()));
    }
}
