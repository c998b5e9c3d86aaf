//! P5: no foreign release.

use super::Violation;
use crate::history::event::{Event, Loss};
use crate::history::hold::{Hold, holds_by_name};
use crate::history::trouble::Troubles;

/// **P5**: a hold ends by its own release, its expiry, a break, or something that was broken on
/// purpose, and by nothing else: nobody else's release or renewal ends it.
///
/// # Errors
/// The first hold that the backend took back within the validity it had shown, for no reason.
pub fn check_foreign_release(events: &[Event]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    for holds in holds_by_name(events, &troubles).values() {
        for hold in holds.iter() {
            let Some((why @ (Loss::NotHeld | Loss::Broken), told)) = hold.lost else {
                continue;
            };
            if within_validity(hold, told)
                && !hold.undone_by(told.at)
                && (why == Loss::Broken || !disturbed(&troubles, hold, told))
            {
                return Err(Violation::new(
                    "P5",
                    "a hold ended within its validity, and nobody ended it",
                    &[hold.event, told],
                ));
            }
        }
    }
    Ok(())
}

/// Whether the holder was told while it held, and before the validity it had been shown was over.
fn within_validity(hold: &Hold<'_>, told: &Event) -> bool {
    let released = hold.releasing.is_some_and(|releasing| releasing <= told.at);
    !released && hold.shown.is_some_and(|until| told.at < until)
}

fn disturbed(troubles: &Troubles<'_>, hold: &Hold<'_>, told: &Event) -> bool {
    troubles.active(hold.asked, told.at) || troubles.idle(&told.who, hold.asked, told.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Trouble, What};
    use crate::history::sample::*;

    fn ended_at(at: u64, why: Loss) -> Vec<Event> {
        vec![
            granted(0, 10, "a", 1),
            shown(10, "a", 1, 100),
            lost(at, "a", 1, why),
        ]
    }

    #[test]
    fn hold_that_ends_within_its_validity_for_no_reason_is_found() {
        let history = ended_at(50, Loss::NotHeld);
        assert_eq!(violated(check_foreign_release(&history)), "P5");
    }

    #[test]
    fn expiry_and_what_comes_after_it_is_no_foreign_release() {
        assert_eq!(check_foreign_release(&ended_at(101, Loss::NotHeld)), Ok(()));
        assert_eq!(check_foreign_release(&ended_at(99, Loss::Expired)), Ok(()));
    }

    #[test]
    fn own_release_is_no_foreign_one() {
        let mut history = ended_at(50, Loss::NotHeld);
        history.push(releasing(49, "a", 1));
        assert_eq!(check_foreign_release(&history), Ok(()));
    }

    #[test]
    fn break_needs_somebody_who_broke_it() {
        let mut history = ended_at(50, Loss::Broken);
        assert_eq!(violated(check_foreign_release(&history)), "P5");
        let since = ms(40);
        history.push(trouble(51, "op", Trouble::Broke { token: 1, since }));
        assert_eq!(check_foreign_release(&history), Ok(()));
        let Some(What::Trouble(Trouble::Broke { token, .. })) =
            history.last_mut().map(|event| &mut event.what)
        else {
            unreachable!("just pushed");
        };
        *token = 2;
        assert_eq!(violated(check_foreign_release(&history)), "P5");
    }

    #[test]
    fn session_may_end_through_trouble_during_the_hold_but_not_before_it() {
        for (from, to, good) in [(20, 30, true), (60, 70, false)] {
            let mut history = ended_at(50, Loss::NotHeld);
            history.push(trouble(from, "faults", Trouble::Began("cut".into())));
            history.push(trouble(to, "faults", Trouble::Healed("cut".into())));
            assert_eq!(check_foreign_release(&history).is_ok(), good);
        }
    }
}
