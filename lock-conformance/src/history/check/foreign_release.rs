//! P5: no foreign release.

use super::Violation;
use crate::history::event::{Event, Left, Loss};
use crate::history::hold::{Hold, holds_by_name};
use crate::history::trouble::Troubles;

/// **P5**: a hold ends by its own release, its expiry, a break, or something that was broken on
/// purpose, and by nothing else: nobody else's release or renewal ends it.
///
/// # Errors
/// The first hold that the backend took back within the validity it had shown, for no reason: its holder
/// was told, or found it gone when it gave it up.
pub fn check_foreign_release(events: &[Event]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    for holds in holds_by_name(events, &troubles).values() {
        for hold in holds.iter() {
            let Some((why, told)) = taken_back(hold) else {
                continue;
            };
            if hold.shown.is_some_and(|until| told.at < until)
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

/// How its holder learned that the backend had taken it back, if that is what ended it.
fn taken_back<'a>(hold: &Hold<'a>) -> Option<(Loss, &'a Event)> {
    match (hold.lost, hold.left) {
        (Some((why @ (Loss::NotHeld | Loss::Broken), told)), _) => {
            let released = hold.releasing.is_some_and(|releasing| releasing <= told.at);
            (!released).then_some((why, told))
        }
        (None, Some((Left::WasLost, told))) => Some((Loss::NotHeld, told)),
        _ => None,
    }
}

fn disturbed(troubles: &Troubles<'_>, hold: &Hold<'_>, told: &Event) -> bool {
    troubles.disturbed(&told.who, hold.asked, told.at)
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
    fn hold_that_its_own_release_finds_gone_within_its_validity_is_found() {
        let history = |at| {
            [
                granted(0, 10, "a", 1),
                shown(10, "a", 1, 100),
                releasing(at - 1, "a", 1),
                released(at, "a", 1, Left::WasLost),
            ]
        };
        assert_eq!(violated(check_foreign_release(&history(50))), "P5");
        assert_eq!(check_foreign_release(&history(100)), Ok(()));
        let mut broken = history(50).to_vec();
        let since = ms(40);
        broken.push(trouble(51, "op", Trouble::Broke { token: 1, since }));
        assert_eq!(check_foreign_release(&broken), Ok(()));
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
            history.push(broke_down(from));
            history.push(healed(to));
            assert_eq!(check_foreign_release(&history).is_ok(), good);
        }
    }
}
