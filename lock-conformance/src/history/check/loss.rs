//! P9: loss is signalled before the next grant.

use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Loss};
use crate::history::hold::{Hold, holds_by_name};
use crate::history::trouble::Troubles;

/// **P9**: a holder that lost its lock was told before anybody else was granted it. What a process
/// that was not running writes down late is excused, and so are the declared exceptions.
///
/// A holder that asks, and hears that it may not act any more, has not been told: a signal that never
/// comes is as bad as one that comes too late.
///
/// `lateness` is by how much a task that was not paused may be late in writing down what it was told.
///
/// # Errors
/// The first loss that came too late.
pub fn check_loss_before_grant(events: &[Event], lateness: Duration) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    for holds in holds_by_name(events, &troubles).values() {
        for hold in holds.iter() {
            let asked = hold.doubted.map(|asked| (Loss::Expired, asked));
            let Some((why, told)) = asked.or(hold.lost) else {
                continue;
            };
            let newer = holds.first_newer(hold.token);
            let newer = newer.filter(|newer| newer.granted + lateness < told.at);
            let Some(newer) = newer.filter(|newer| !excused(hold, why, newer.granted)) else {
                continue;
            };
            if !troubles.idle(&told.who, newer.granted.saturating_sub(lateness), told.at) {
                return Err(Violation::new(
                    "P9",
                    "loss was signalled after the next grant",
                    &[newer.event, told],
                ));
            }
        }
    }
    Ok(())
}

/// Whether the hold had ended by its holder's will, or by a declared exception, when the next was granted.
fn excused(hold: &Hold<'_>, why: Loss, next: Duration) -> bool {
    let released = hold.releasing.is_some_and(|releasing| releasing <= next);
    why == Loss::Broken || released || hold.undone_by(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Trouble;
    use crate::history::sample::*;

    fn check(history: &[Event]) -> Result<(), Violation> {
        check_loss_before_grant(history, Duration::ZERO)
    }

    fn told_at(at: u64, who: &str) -> [Event; 3] {
        [
            granted(0, 10, who, 1),
            granted(0, 20, "b", 2),
            lost(at, who, 1, Loss::Expired),
        ]
    }

    #[test]
    fn loss_told_after_the_next_grant_is_found() {
        assert_eq!(violated(check(&told_at(21, "a"))), "P9");
    }

    #[test]
    fn loss_told_before_the_next_grant_or_as_late_as_tasks_are_is_good() {
        assert_eq!(check(&told_at(20, "a")), Ok(()));
        assert_eq!(check_loss_before_grant(&told_at(25, "a"), ms(5)), Ok(()));
    }

    #[test]
    fn loss_that_only_a_question_brings_to_light_is_found() {
        let history = |at| {
            [
                granted(0, 10, "a", 1),
                granted(0, 20, "b", 2),
                checked(at, at, "a", 1, false),
            ]
        };
        assert_eq!(violated(check(&history(21))), "P9");
        assert_eq!(check(&history(20)), Ok(()));
        assert_eq!(check_loss_before_grant(&history(25), ms(5)), Ok(()));
    }

    #[test]
    fn question_after_the_loss_was_told_says_nothing_new() {
        let history = [
            granted(0, 10, "a", 1),
            lost(15, "a", 1, Loss::Expired),
            granted(0, 20, "b", 2),
            checked(30, 30, "a", 1, false),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn process_that_was_paused_is_told_when_it_runs_again() {
        let mut history = told_at(31, "worker 1.0").to_vec();
        history.push(trouble(15, "worker 1", Trouble::Paused));
        history.push(trouble(30, "worker 1", Trouble::Resumed));
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn pause_of_another_process_or_at_another_time_excuses_nothing() {
        for (who, from) in [("worker 2", 15), ("worker 1", 5)] {
            let mut history = told_at(31, "worker 1.0").to_vec();
            history.push(trouble(from, who, Trouble::Paused));
            history.push(trouble(from + 1, who, Trouble::Resumed));
            assert_eq!(violated(check(&history)), "P9");
        }
    }

    #[test]
    fn process_that_the_machine_did_not_run_is_excused() {
        let mut history = told_at(31, "a.0").to_vec();
        let stalled = Trouble::Stalled { since: ms(18) };
        history.push(trouble(31, "a", stalled));
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn break_by_an_operator_may_come_before_its_victim_hears() {
        let history = [
            granted(0, 10, "a", 1),
            granted(0, 20, "b", 2),
            lost(21, "a", 1, Loss::Broken),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn loss_of_data_or_release_after_the_next_grant_excuses_nothing() {
        let mut history = told_at(32, "a").to_vec();
        let lost = Trouble::DataLost { since: ms(30) };
        history.push(trouble(31, "faults", lost));
        assert_eq!(violated(check(&history)), "P9");
        let mut history = told_at(32, "a").to_vec();
        history.push(releasing(30, "a", 1));
        history.sort_by_key(|event| event.at);
        assert_eq!(violated(check(&history)), "P9");
    }

    #[test]
    fn holder_of_what_the_server_forgot_may_hear_late() {
        let mut history = told_at(31, "a").to_vec();
        let lost = Trouble::DataLost { since: ms(15) };
        history.push(trouble(16, "faults", lost));
        assert_eq!(check(&history), Ok(()));
    }
}
