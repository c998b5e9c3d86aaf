//! P3: what a holder is told of its validity is true.

use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, What};
use crate::history::hold::{Hold, holds_by_name};
use crate::history::trouble::Troubles;

/// **P3**: after `check()` said "valid", no newer grant had completed before that check began; and none
/// completes before the end of the validity that a holder was shown, unless the holder gave it up or
/// was told first.
///
/// Pauses excuse nothing here: both are told by the clock at the time of the question.
///
/// # Errors
/// The first check that was wrong.
pub fn check_validity(events: &[Event]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let names = holds_by_name(events, &troubles);
    for event in events {
        let (token, until, what) = match event.what {
            What::Checked {
                began,
                token,
                valid: true,
            } => (token, began, "a check said valid after the next grant"),
            What::Shown { token, until } => (
                token,
                until,
                "the next grant came within the validity that its holder was shown",
            ),
            _ => continue,
        };
        let Some(holds) = names.get(event.name.as_str()) else {
            continue;
        };
        let hold = holds.of(token);
        let until = match event.what {
            What::Shown { .. } => bounded(hold, until, troubles.killed(&event.who)),
            _ => until,
        };
        // What a declared exception took was valid until then.
        let until = hold
            .and_then(|hold| hold.undone)
            .map_or(until, |undone| until.min(undone));
        let newer = holds
            .first_newer(token)
            .filter(|newer| newer.granted < until);
        if let Some(newer) = newer {
            return Err(Violation::new("P3", what, &[newer.event, event]));
        }
    }
    Ok(())
}

/// A validity ends with its holder: with a release, with being told, with the death of the process.
fn bounded(hold: Option<&Hold<'_>>, until: Duration, killed: Option<Duration>) -> Duration {
    let ended = hold.and_then(Hold::ended);
    [ended, killed].into_iter().flatten().fold(until, Ord::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Loss, Trouble};
    use crate::history::sample::*;

    #[test]
    fn check_that_says_valid_after_the_next_grant_is_found() {
        let history = |valid| {
            [
                granted(0, 10, "a", 1),
                granted(0, 20, "b", 2),
                checked(21, 22, "a", 1, valid),
            ]
        };
        assert_eq!(violated(check_validity(&history(true))), "P3");
        assert_eq!(check_validity(&history(false)), Ok(()));
    }

    #[test]
    fn check_that_began_before_the_next_grant_may_say_valid() {
        let history = [
            granted(0, 10, "a", 1),
            granted(0, 20, "b", 2),
            checked(19, 22, "a", 1, true),
        ];
        assert_eq!(check_validity(&history), Ok(()));
    }

    #[test]
    fn pause_does_not_excuse_a_check() {
        let history = [
            granted(0, 10, "worker 1.0", 1),
            trouble(11, "worker 1", Trouble::Paused),
            granted(0, 50, "b", 2),
            trouble(60, "worker 1", Trouble::Resumed),
            checked(61, 61, "worker 1.0", 1, true),
        ];
        assert_eq!(violated(check_validity(&history)), "P3");
    }

    #[test]
    fn grant_within_the_validity_that_was_shown_is_found() {
        let history = [
            granted(0, 10, "a", 1),
            shown(10, "a", 1, 100),
            granted(0, 90, "b", 2),
        ];
        assert_eq!(violated(check_validity(&history)), "P3");
    }

    #[test]
    fn grant_two_tokens_later_is_found_as_well() {
        let history = [
            granted(0, 10, "a", 1),
            shown(10, "a", 1, 100),
            granted(0, 200, "b", 2),
            granted(0, 90, "c", 3),
        ];
        assert_eq!(violated(check_validity(&history)), "P3");
    }

    #[test]
    fn validity_ends_with_a_release_with_being_told_and_with_a_death() {
        let ends = [
            releasing(50, "worker 1.0", 1),
            lost(50, "worker 1.0", 1, Loss::NotHeld),
            trouble(50, "worker 1", Trouble::Killed),
        ];
        for end in ends {
            let history = [
                granted(0, 10, "worker 1.0", 1),
                shown(10, "worker 1.0", 1, 100),
                end,
                granted(0, 60, "b", 2),
            ];
            assert_eq!(check_validity(&history), Ok(()));
        }
    }

    #[test]
    fn break_by_an_operator_is_excused_from_its_beginning_on() {
        let history = |since| {
            let broke = Trouble::Broke {
                token: 1,
                since: ms(since),
            };
            [
                granted(0, 10, "a", 1),
                granted(0, 20, "b", 2),
                checked(21, 22, "a", 1, true),
                trouble(30, "operator", broke),
            ]
        };
        assert_eq!(check_validity(&history(19)), Ok(()));
        assert_eq!(violated(check_validity(&history(25))), "P3");
    }

    #[test]
    fn loss_of_data_after_the_next_grant_excuses_nothing() {
        let history = |since| {
            [
                granted(0, 10, "a", 1),
                shown(10, "a", 1, 100),
                granted(0, 50, "b", 2),
                trouble(95, "faults", Trouble::DataLost { since: ms(since) }),
            ]
        };
        assert_eq!(violated(check_validity(&history(90))), "P3");
        assert_eq!(check_validity(&history(45)), Ok(()));
    }
}
