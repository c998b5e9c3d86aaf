//! R6: a live holder keeps its lock.

use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Left, Loss};
use crate::history::hold::{Hold, holds_by_name};
use crate::history::trouble::Troubles;

/// A holder that did not run for this part of its lease may have lost it.
const PART: u32 = 4;

/// **R6**: a lease that its client renews does not end while its holder lives, nothing is broken, and the process runs.
///
/// Leases shorter than `least` are left out: a busy machine may not keep up with them. What was broken less than a lease
/// and an operation (`op_timeout`) before the end excuses it.
///
/// # Errors
/// The first hold whose lease ended.
pub fn check_renewal(
    events: &[Event],
    least: Duration,
    op_timeout: Duration,
) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    for holds in holds_by_name(events, &troubles).values() {
        for hold in holds.iter() {
            let (Some((ttl, true)), Some(told)) = (hold.lease, expired(hold)) else {
                continue;
            };
            let since = told.at.saturating_sub(ttl + op_timeout);
            let excused = ttl < least
                || hold.undone_by(told.at)
                || troubles.outage(&told.who, since, told.at)
                || troubles.idle_for(&told.who, since, told.at) >= ttl / PART;
            if !excused {
                let what = "a lease that is renewed ended while nothing was broken";
                return Err(Violation::new("R6", what, &[hold.event, told]));
            }
        }
    }
    Ok(())
}

/// How its holder learned that the lease had ended, if that is what ended it.
fn expired<'a>(hold: &Hold<'a>) -> Option<&'a Event> {
    match (hold.lost, hold.doubted, hold.left) {
        (Some((Loss::Expired, told)), ..) => Some(told),
        (None, Some(told), _) | (None, None, Some((Left::WasLost, told))) => Some(told),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Trouble;
    use crate::history::sample::*;

    fn check(history: &[Event]) -> Result<(), Violation> {
        check_renewal(history, ms(300), ms(100))
    }

    fn ended(ttl: u64, kept: bool) -> Vec<Event> {
        vec![
            granted(0, 1000, "worker 1.0", 1),
            leased(1000, "worker 1.0", 1, ttl, kept),
            lost(1297, "worker 1.0", 1, Loss::Expired),
        ]
    }

    #[test]
    fn lease_that_ends_although_it_is_renewed_is_found() {
        assert_eq!(violated(check(&ended(300, true))), "R6");
        let found_out = [
            checked(1297, 1298, "worker 1.0", 1, false),
            released(1297, "worker 1.0", 1, Left::WasLost),
        ];
        for told in found_out {
            let mut history = ended(300, true);
            history[2] = told;
            assert_eq!(violated(check(&history)), "R6");
        }
    }

    #[test]
    fn lease_that_nobody_renews_or_that_is_too_short_may_end() {
        assert_eq!(check(&ended(300, false)), Ok(()));
        assert_eq!(check(&ended(299, true)), Ok(()));
    }

    #[test]
    fn outage_within_the_lease_excuses_and_one_before_it_does_not() {
        for (from, good) in [(1100, true), (890, true), (500, false)] {
            let mut history = ended(300, true);
            history.extend([broke_down(from), healed(from + 10)]);
            history.sort_by_key(|event| event.at);
            assert_eq!(check(&history).is_ok(), good, "{from}");
        }
    }

    #[test]
    fn process_that_did_not_run_for_long_may_have_lost_it_and_no_other() {
        for (who, since, good) in [
            ("worker 1", 1100, true),
            ("worker 1", 1170, false),
            ("worker 2", 1100, false),
        ] {
            let mut history = ended(300, true);
            let since = ms(since);
            history.insert(2, trouble(1200, who, Trouble::Stalled { since }));
            assert_eq!(check(&history).is_ok(), good, "{who} {since:?}");
        }
    }

    #[test]
    fn declared_exception_may_take_it() {
        let mut history = ended(300, true);
        let lost = Trouble::DataLost { since: ms(1100) };
        history.insert(2, trouble(1100, "faults", lost));
        assert_eq!(check(&history), Ok(()));
    }
}
