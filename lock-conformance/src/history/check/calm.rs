//! R9: no errors while nothing is broken.

use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Refusal, Trouble, What};

/// From here on a machine that was busy is an excuse for an answer that did not come.
const EXCUSE: Duration = Duration::from_millis(500);

/// **R9**: where nothing is broken, a request is granted or busy, or ends by whoever asked; it does not
/// end in an error.
///
/// Says nothing of a history in which anything was broken, paused or stalled for longer than a moment.
///
/// # Errors
/// The first request that failed.
pub fn check_calm(events: &[Event]) -> Result<(), Violation> {
    if events.iter().any(excuses) {
        return Ok(());
    }
    let failed = events.iter().find(|event| {
        let What::Refused { why, .. } = &event.what else {
            return false;
        };
        match why {
            Refusal::Busy | Refusal::TimedOut | Refusal::Cancelled => false,
            Refusal::Unavailable | Refusal::Indeterminate | Refusal::Failed(_) => true,
        }
    });
    match failed {
        None => Ok(()),
        Some(event) => Err(Violation::new(
            "R9",
            "a request failed while nothing was broken",
            &[event],
        )),
    }
}

fn excuses(event: &Event) -> bool {
    match &event.what {
        What::Trouble(Trouble::Stalled { since }) => event.at.saturating_sub(*since) > EXCUSE,
        What::Trouble(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::*;

    #[test]
    fn busy_late_and_cancelled_requests_are_no_failures() {
        let history = [
            refused(0, 10, "a", Refusal::Busy),
            refused(0, 10, "b", Refusal::TimedOut),
            refused(0, 10, "c", Refusal::Cancelled),
        ];
        assert_eq!(check_calm(&history), Ok(()));
    }

    #[test]
    fn error_out_of_the_blue_is_found() {
        for why in [
            Refusal::Unavailable,
            Refusal::Indeterminate,
            Refusal::Failed("protocol".to_owned()),
        ] {
            let history = [refused(0, 10, "a", why)];
            assert_eq!(violated(check_calm(&history)), "R9");
        }
    }

    #[test]
    fn error_is_excused_by_what_was_broken_and_by_a_long_stall_only() {
        let failure = refused(0, 900, "a", Refusal::Unavailable);
        let stall = |length: u64| {
            trouble(
                800,
                "a",
                Trouble::Stalled {
                    since: ms(800 - length),
                },
            )
        };
        let killed = trouble(5, "b", Trouble::Killed);
        assert_eq!(check_calm(&[killed, failure.clone()]), Ok(()));
        assert_eq!(check_calm(&[stall(700), failure.clone()]), Ok(()));
        assert_eq!(violated(check_calm(&[stall(60), failure])), "R9");
    }
}
