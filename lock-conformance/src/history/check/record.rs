//! P4: every grant is justified by the backend's own record.

use std::collections::{BTreeMap, HashMap};

use super::Violation;
use crate::history::event::{Event, Left, What};
use crate::history::record::{Record, Stood};
use crate::history::trouble::Troubles;

/// **P4**: in the backend's own record the holds of a lock are disjoint and their tokens grow, and
/// every grant and every clean release that a client saw stands in it. A grant that was under way when a session was
/// ended by hand, or data lost, may have been taken before it was one.
///
/// # Errors
/// The first contradiction, within the record or between it and a client.
pub fn check_record(events: &[Event], records: &[Record]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let mut books: BTreeMap<&str, Book> = BTreeMap::new();
    for record in records {
        let book = books.entry(&record.name).or_default();
        book.take(record)?;
    }
    for event in events {
        let book = books.get(event.name.as_str());
        let overtaken = |token, asked| {
            let undone = troubles.undone(&event.name, token, asked);
            undone.is_some_and(|undone| undone <= event.at)
        };
        let standing = |token: &u64| book.and_then(|book| book.ended.get(token)).copied();
        let wrong = match &event.what {
            What::Granted { asked, token }
                if standing(token).is_none() && !overtaken(*token, *asked) =>
            {
                "a client was granted what the backend's record does not have"
            }
            What::Released {
                token,
                how: Left::Clean,
            } if standing(token) == Some(false) => {
                "a release was clean, and the backend's record has the hold still standing"
            }
            _ => continue,
        };
        return Err(Violation::new("P4", wrong, &[event]));
    }
    Ok(())
}

/// What the record says of one lock.
#[derive(Default)]
struct Book {
    /// Every token that began, and whether its hold has ended.
    ended: HashMap<u64, bool>,
    standing: Option<u64>,
    highest: u64,
}

impl Book {
    fn take(&mut self, Record { name, token, what }: &Record) -> Result<(), Violation> {
        let wrong = match (what, self.standing) {
            (Stood::Began, Some(other)) => {
                format!("{name:?}: {token} began while {other} stood")
            }
            (Stood::Began, None) if *token <= self.highest => {
                format!("{name:?}: {token} began after {}", self.highest)
            }
            (Stood::Began, None) => {
                self.highest = *token;
                self.standing = Some(*token);
                self.ended.insert(*token, false);
                return Ok(());
            }
            (Stood::Ended, Some(standing)) if standing == *token => {
                self.standing = None;
                self.ended.insert(*token, true);
                return Ok(());
            }
            (Stood::Ended, standing) => {
                format!("{name:?}: {token} ended while {standing:?} stood")
            }
        };
        let what = format!("the backend's own record contradicts itself: {wrong}");
        Err(Violation::new("P4", what, &[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Trouble;
    use crate::history::sample::*;

    fn history() -> Vec<Event> {
        let mut history = vec![granted(0, 10, "a", 3)];
        history.extend(clean(20, 21, "a", 3));
        history.push(granted(0, 30, "b", 7));
        history
    }

    #[test]
    fn record_that_has_every_grant_is_good() {
        // 5 is a grant that nobody saw: its asker had gone.
        let records = [began(3), ended(3), began(5), ended(5), began(7)];
        assert_eq!(check_record(&history(), &records), Ok(()));
    }

    #[test]
    fn grant_that_is_not_in_the_record_is_found() {
        let records = [began(3), ended(3)];
        assert_eq!(violated(check_record(&history(), &records)), "P4");
    }

    #[test]
    fn grant_that_a_loss_of_data_overtook_is_excused_and_no_other() {
        let records = [began(3), ended(3)];
        let lost = |since, at| trouble(at, "faults", Trouble::DataLost { since: ms(since) });
        let with = |event| [granted(0, 10, "a", 3), granted(20, 30, "b", 7), event];
        assert_eq!(check_record(&with(lost(28, 29)), &records), Ok(()));
        for other in [lost(31, 32), lost(1, 2)] {
            assert_eq!(violated(check_record(&with(other), &records)), "P4");
        }
    }

    #[test]
    fn clean_release_of_what_still_stands_is_found() {
        let mut history = history();
        history.pop();
        assert_eq!(violated(check_record(&history, &[began(3)])), "P4");
        assert_eq!(check_record(&history, &[began(3), ended(3)]), Ok(()));
    }

    #[test]
    fn holds_that_overlap_shrink_or_end_unbegun_in_the_record_are_found() {
        let bad = [
            [began(3), began(7)],
            [ended(3), began(7)],
            [began(3), ended(7)],
        ];
        for records in bad {
            assert_eq!(violated(check_record(&[], &records)), "P4");
        }
        let shrinking = [began(7), ended(7), began(3)];
        assert_eq!(violated(check_record(&[], &shrinking)), "P4");
    }

    #[test]
    fn record_of_another_lock_justifies_nothing() {
        let mut other = [began(3), ended(3), began(7)];
        for record in &mut other {
            record.name = "other".to_owned();
        }
        assert_eq!(violated(check_record(&history(), &other)), "P4");
    }
}
