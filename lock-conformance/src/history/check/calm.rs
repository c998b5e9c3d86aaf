//! R9: no errors while nothing is broken.

use std::collections::HashMap;
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Left, What};
use crate::history::trouble::Troubles;

/// **R9**: where nothing is broken, a request is granted or busy, or ends by whoever asked, and a release is
/// answered; none of them ends in an error.
///
/// An error is excused by what was broken while the request was under way, or less than `recovery` before it:
/// the server or the asker's own way to it, a machine that was too busy to answer, a pause of its process. What
/// happened earlier, or to another process, is no excuse.
///
/// # Errors
/// The first request that failed.
pub fn check_calm(events: &[Event], recovery: Duration) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let mut releasing: HashMap<(&str, u64), Duration> = HashMap::new();
    for event in events {
        let began = match &event.what {
            What::Refused { asked, why } if why.is_error() => *asked,
            What::Releasing { token } => {
                releasing.insert((&event.name, *token), event.at);
                continue;
            }
            What::Released {
                token,
                how: Left::Unknown | Left::Other(_),
            } => {
                let began = releasing.get(&(event.name.as_str(), *token));
                began.copied().unwrap_or(event.at)
            }
            _ => continue,
        };
        let since = began.saturating_sub(recovery);
        let excused = troubles.outage(&event.who, since, event.at)
            || troubles.paused(&event.who, since, event.at);
        if !excused {
            let what = "a request failed while nothing was broken";
            return Err(Violation::new("R9", what, &[event]));
        }
    }
    Ok(())
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
                began_to_be_cut(500, &["worker 1"]),
                healed(600),
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
    fn error_is_not_excused_by_an_outage_of_somebody_else() {
        let history = [began_to_be_cut(500, &["client 1"]), failed(550)];
        assert_eq!(violated(check(&history)), "R9");
        let history = [broke_down(500), failed(550)];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn release_that_is_not_answered_is_found_like_any_request() {
        let error = || Left::Other("an error".to_owned());
        for how in [Left::Unknown, error()] {
            let history = [
                releasing(700, "worker 1.0", 1),
                released(710, "worker 1.0", 1, how),
            ];
            assert_eq!(violated(check(&history)), "R9");
            let mut excused = vec![broke_down(500), healed(600)];
            excused.extend(history);
            assert_eq!(check(&excused), Ok(()));
        }
        for how in [Left::Clean, Left::WasLost, Left::Dropped] {
            let history = [releasing(700, "a", 1), released(710, "a", 1, how)];
            assert_eq!(check(&history), Ok(()));
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
        let history = |who: &str, length: u64| {
            let since = ms(1000 - length);
            [trouble(1000, who, Trouble::Stalled { since }), failed(1000)]
        };
        for who in ["client 0", "worker 1"] {
            assert_eq!(check(&history(who, 700)), Ok(()));
            assert_eq!(violated(check(&history(who, 60))), "R9");
        }
    }
}
