//! P2: what the fence protects.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::event::{Event, What};

/// **P2**: the resource never accepts an older token after a newer one, and loses no update: every
/// accepted write is one more than the one before.
///
/// Looks at the writes only, in the order in which the resource took them.
///
/// # Errors
/// The first write that should have been refused or that overwrote another.
pub fn check_resource(events: &[Event]) -> Result<(), Violation> {
    let mut last: BTreeMap<&str, (u64, u64, &Event)> = BTreeMap::new();
    for event in events {
        let What::Wrote {
            token,
            value,
            accepted: true,
        } = event.what
        else {
            continue;
        };
        if let Some((newest, before, earlier)) = last.get(event.name.as_str()).copied() {
            let evidence = [earlier, event];
            if token < newest {
                return Err(Violation::new(
                    "P2",
                    "an older token was accepted",
                    &evidence,
                ));
            }
            if value != before + 1 {
                return Err(Violation::new("P2", "an update was lost", &evidence));
            }
        }
        last.insert(&event.name, (token, value, event));
    }
    Ok(())
}

/// How many accepted writes were overwritten by somebody who had not seen them.
#[must_use]
pub fn lost_updates(events: &[Event]) -> u64 {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut lost = 0;
    for event in events {
        if let What::Wrote {
            value,
            accepted: true,
            ..
        } = event.what
        {
            let before = last.insert(&event.name, value);
            if before.is_some_and(|before| value != before + 1) {
                lost += 1;
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::*;

    #[test]
    fn resource_that_counts_on_is_exact() {
        let history = [
            wrote(1, 1, 1, true),
            wrote(2, 1, 2, true),
            wrote(3, 1, 9, false),
            wrote(4, 3, 3, true),
        ];
        assert_eq!(check_resource(&history), Ok(()));
        assert_eq!(lost_updates(&history), 0);
    }

    #[test]
    fn writes_that_were_decided_at_one_time_are_taken_in_their_order() {
        let history = [wrote(1, 1, 1, true), wrote(1, 2, 2, true)];
        assert_eq!(check_resource(&history), Ok(()));
    }

    #[test]
    fn older_token_that_was_accepted_is_found() {
        let history = [wrote(1, 2, 1, true), wrote(2, 1, 2, true)];
        assert_eq!(violated(check_resource(&history)), "P2");
    }

    #[test]
    fn lost_update_is_found_and_counted() {
        let history = [
            wrote(1, 1, 1, true),
            wrote(2, 2, 2, true),
            wrote(3, 3, 2, true),
        ];
        assert_eq!(violated(check_resource(&history)), "P2");
        assert_eq!(lost_updates(&history), 1);
    }
}
