//! R1 as clients saw it.

use super::Violation;
use crate::history::event::Event;
use crate::history::hold::{Hold, holds_by_name};
use crate::history::trouble::Troubles;

/// **R1 as clients saw it**: no two holders of one name were right to believe in it at once. A hold
/// counts from the return of its grant to the beginning of a release that was executed, or to the last
/// check that confirmed it.
///
/// A process that was paused is not right to believe in anything it did not ask again, and a declared
/// exception ends a hold.
///
/// # Errors
/// The first two holds that overlap.
pub fn check_exclusion(events: &[Event]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    for holds in holds_by_name(events, &troubles).values() {
        let mut by_time: Vec<&Hold<'_>> = holds
            .iter()
            .filter(|hold| hold.granted <= hold.believed_until())
            .filter(|hold| !was_over_on_arrival(hold, &troubles))
            .collect();
        by_time.sort_by_key(|hold| hold.granted);
        let mut last: Option<&Hold<'_>> = None;
        for hold in by_time {
            if let Some(last) = last.filter(|last| hold.granted < last.believed_until()) {
                return Err(overlap(last, hold));
            }
            if last.is_none_or(|last| hold.believed_until() > last.believed_until()) {
                last = Some(hold);
            }
        }
    }
    Ok(())
}

/// Whether the process did not run between the grant and its return, and never had it confirmed after that: what was
/// granted was over when its holder heard of it.
fn was_over_on_arrival(hold: &Hold<'_>, troubles: &Troubles<'_>) -> bool {
    let confirmed = hold.shown.is_some() || hold.believed_until() > hold.granted;
    !confirmed && troubles.idle(&hold.event.who, hold.asked, hold.granted)
}

fn overlap(first: &Hold<'_>, second: &Hold<'_>) -> Violation {
    let until = first.believed_until() - first.granted;
    let what = format!(
        "two holders at once: the first rightly believed in its hold for {until:.1?} from its grant on"
    );
    let mut evidence = vec![first.event, second.event];
    evidence.extend(first.left.map(|(_, event)| event));
    Violation::new("R1", what, &evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Left, Loss, Trouble};
    use crate::history::sample::*;

    #[test]
    fn overlapping_holds_are_found() {
        let mut history = vec![granted(0, 10, "a", 1), granted(0, 15, "b", 2)];
        history.extend(clean(20, 21, "a", 1));
        history.extend(clean(30, 31, "b", 2));
        assert_eq!(violated(check_exclusion(&history)), "R1");
    }

    #[test]
    fn overlap_with_a_hold_that_is_not_the_one_just_before_is_found() {
        let mut history = vec![granted(0, 10, "a", 1), granted(0, 12, "b", 2)];
        history.extend([
            granted(0, 15, "c", 3),
            checked(16, 16, "a", 1, true),
            checked(16, 16, "c", 3, true),
        ]);
        assert_eq!(violated(check_exclusion(&history)), "R1");
    }

    #[test]
    fn hold_counts_to_its_last_confirmation_when_it_was_lost() {
        let mut history = vec![
            granted(0, 10, "a", 1),
            checked(12, 12, "a", 1, true),
            // Whoever writes down a loss may be late; that is for P9 to judge.
            granted(0, 15, "b", 2),
            lost(16, "a", 1, Loss::Expired),
        ];
        history.extend(clean(30, 31, "b", 2));
        assert_eq!(check_exclusion(&history), Ok(()));
    }

    #[test]
    fn grant_that_was_over_when_its_process_ran_again_is_no_belief() {
        let history = |who| {
            let mut history = vec![
                trouble(5, who, Trouble::Paused),
                granted(0, 10, "b", 2),
                trouble(14, who, Trouble::Resumed),
                granted(0, 15, "worker 1.0", 1),
                releasing(16, "worker 1.0", 1),
                released(17, "worker 1.0", 1, Left::WasLost),
            ];
            history.extend(clean(30, 31, "b", 2));
            history
        };
        assert_eq!(check_exclusion(&history("worker 1")), Ok(()));
        assert_eq!(violated(check_exclusion(&history("worker 2"))), "R1");
        let mut believed = history("worker 1");
        believed.insert(4, shown(15, "worker 1.0", 1, 40));
        assert_eq!(violated(check_exclusion(&believed)), "R1");
    }

    #[test]
    fn holder_that_was_killed_believes_in_nothing_any_more() {
        let history = [
            granted(0, 10, "worker 1.0", 1),
            trouble(11, "worker 1", Trouble::Killed),
            granted(5, 15, "b", 2),
        ];
        assert_eq!(check_exclusion(&history), Ok(()));
    }

    #[test]
    fn process_that_was_paused_past_its_lease_and_drops_its_guard_does_not_overlap() {
        let history = [
            granted(0, 10, "worker 1.0", 1),
            trouble(11, "worker 1", Trouble::Paused),
            granted(5, 60, "b", 2),
            trouble(70, "worker 1", Trouble::Resumed),
            releasing(71, "worker 1.0", 1),
            checked(80, 80, "b", 2, true),
        ];
        assert_eq!(check_exclusion(&history), Ok(()));
    }

    #[test]
    fn paused_process_whose_release_was_executed_held_all_the_time() {
        let mut history = vec![
            granted(0, 10, "worker 1.0", 1),
            trouble(11, "worker 1", Trouble::Paused),
            granted(5, 20, "b", 2),
            trouble(70, "worker 1", Trouble::Resumed),
        ];
        history.extend(clean(71, 72, "worker 1.0", 1));
        assert_eq!(violated(check_exclusion(&history)), "R1");
    }

    #[test]
    fn hold_ends_with_a_declared_loss_of_data() {
        let lost = Trouble::DataLost { since: ms(12) };
        let mut history = vec![
            granted(0, 10, "a", 1),
            trouble(13, "faults", lost),
            granted(0, 15, "b", 2),
        ];
        history.extend(clean(20, 21, "a", 1));
        assert_eq!(check_exclusion(&history), Ok(()));
    }

    #[test]
    fn grant_that_was_under_way_during_a_loss_of_data_may_be_gone_at_once() {
        let lost = Trouble::DataLost { since: ms(8) };
        let mut history = vec![
            trouble(9, "faults", lost),
            granted(5, 10, "a", 1),
            granted(11, 15, "b", 2),
        ];
        history.extend(clean(20, 21, "a", 1));
        assert_eq!(check_exclusion(&history), Ok(()));
    }

    #[test]
    fn grant_after_a_loss_of_data_counts_again() {
        let lost = Trouble::DataLost { since: ms(1) };
        let mut history = vec![
            trouble(2, "faults", lost),
            granted(5, 10, "a", 1),
            granted(11, 15, "b", 2),
        ];
        history.extend(clean(20, 21, "a", 1));
        assert_eq!(violated(check_exclusion(&history)), "R1");
    }
}
