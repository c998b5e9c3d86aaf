//! R9: no errors while nothing is broken.

use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, What};
use crate::history::trouble::Troubles;

/// **R9**: where nothing is broken, a request is granted or busy, or ends by whoever asked; it does not
/// end in an error.
///
/// An error is excused by what was broken while the request was under way, or less than `recovery` before it:
/// the server or the way to it, a machine that was too busy to answer, or a process of its own that was not
/// running. What happened earlier, or to another process, is no excuse.
///
/// # Errors
/// The first request that failed.
pub fn check_calm(events: &[Event], recovery: Duration) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let failed = events.iter().find(|event| {
        let What::Refused { asked, why } = &event.what else {
            return false;
        };
        let since = asked.saturating_sub(recovery);
        let excused =
            || troubles.outage(since, event.at) || troubles.idle(&event.who, since, event.at);
        why.is_error() && !excused()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Refusal, Trouble};
    use crate::history::sample::*;

    fn check(history: &[Event]) -> Result<(), Violation> {
        check_calm(history, ms(100))
    }

    fn failed(asked: u64) -> Event {
        refused(asked, asked + 10, "worker 1.0", Refusal::Unavailable)
    }

    #[test]
    fn busy_late_and_cancelled_requests_are_no_failures() {
        let history = [
            refused(0, 10, "a", Refusal::Busy),
            refused(0, 10, "b", Refusal::TimedOut),
            refused(0, 10, "c", Refusal::Cancelled),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn error_out_of_the_blue_is_found() {
        for why in [
            Refusal::Unavailable,
            Refusal::Indeterminate,
            Refusal::Failed("protocol".to_owned()),
        ] {
            let history = [refused(0, 10, "a", why)];
            assert_eq!(violated(check(&history)), "R9");
        }
    }

    #[test]
    fn error_is_excused_by_an_outage_until_the_recovery_is_over() {
        let history = |asked| {
            [
                trouble(500, "faults", Trouble::Began("cut".to_owned())),
                trouble(600, "faults", Trouble::Healed("cut".to_owned())),
                failed(asked),
            ]
        };
        for asked in [490, 550, 700] {
            assert_eq!(check(&history(asked)), Ok(()), "{asked}");
        }
        for asked in [480, 701, 5000] {
            assert_eq!(violated(check(&history(asked))), "R9", "{asked}");
        }
    }

    #[test]
    fn error_is_excused_by_a_pause_of_its_own_process_only() {
        let history = |who| {
            [
                trouble(500, who, Trouble::Paused),
                trouble(600, who, Trouble::Resumed),
                failed(650),
            ]
        };
        assert_eq!(check(&history("worker 1")), Ok(()));
        assert_eq!(violated(check(&history("worker 2"))), "R9");
    }

    #[test]
    fn error_is_not_excused_by_a_killed_process_or_a_broken_hold() {
        let since = ms(590);
        for what in [Trouble::Killed, Trouble::Broke { token: 1, since }] {
            let history = [trouble(600, "worker 2", what), failed(600)];
            assert_eq!(violated(check(&history)), "R9");
        }
    }

    #[test]
    fn error_is_excused_by_a_long_stall_of_anybody_and_by_no_short_one() {
        let history = |length: u64| {
            let since = ms(1000 - length);
            [
                trouble(1000, "client 0", Trouble::Stalled { since }),
                failed(1000),
            ]
        };
        assert_eq!(check(&history(700)), Ok(()));
        assert_eq!(violated(check(&history(60))), "R9");
    }
}
