//! P6: no ghosts at rest.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::event::{Event, What};

/// **P6**: when everybody has gone, nobody holds, nobody waits, and the lock can be had at once.
///
/// Says nothing of a history in which nobody looked; where somebody looked, every lock that was asked
/// for has to have been looked at.
///
/// # Errors
/// The first lock that is not at rest.
pub fn check_rest(events: &[Event]) -> Result<(), Violation> {
    let mut looked = BTreeSet::new();
    let mut asked: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in events {
        match event.what {
            What::Rest {
                holders: 0,
                waiters: 0,
                free: true,
            } => drop(looked.insert(event.name.as_str())),
            What::Rest { .. } => {
                return Err(Violation::new("P6", "a ghost is left", &[event]));
            }
            What::Asked { .. } | What::Granted { .. } => {
                asked.entry(&event.name).or_insert(event);
            }
            _ => {}
        }
    }
    let unseen = asked.iter().find(|(name, _)| !looked.contains(*name));
    match unseen {
        Some((_, event)) if !looked.is_empty() => Err(Violation::new(
            "P6",
            "a lock was not looked at in the end",
            &[event],
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::*;

    #[test]
    fn lock_that_is_free_in_the_end_is_at_rest() {
        let history = [granted(0, 10, "a", 1), rest(20, 0, 0, true)];
        assert_eq!(check_rest(&history), Ok(()));
    }

    #[test]
    fn holders_waiters_and_refusals_at_the_end_are_ghosts() {
        for ghost in [
            rest(20, 1, 0, true),
            rest(20, 0, 1, true),
            rest(20, 0, 0, false),
        ] {
            let history = [granted(0, 10, "a", 1), ghost];
            assert_eq!(violated(check_rest(&history)), "P6");
        }
    }

    #[test]
    fn lock_that_nobody_looked_at_is_found_if_others_were() {
        let mut other = asks(5, "a");
        other.name = "other".to_owned();
        let history = [granted(0, 10, "a", 1), other];
        assert_eq!(check_rest(&history), Ok(()));
        let mut history = history.to_vec();
        history.push(rest(20, 0, 0, true));
        assert_eq!(violated(check_rest(&history)), "P6");
    }
}
