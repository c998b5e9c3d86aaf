//! P1: real-time order implies token order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, What};

struct Grant<'a> {
    asked: Duration,
    granted: Duration,
    token: u64,
    event: &'a Event,
}

/// **P1**: a grant that was complete before another was asked for has the smaller token, and no token
/// is granted twice.
///
/// # Errors
/// The first pair of grants that contradicts it.
pub fn check_tokens(events: &[Event]) -> Result<(), Violation> {
    let mut names: BTreeMap<&str, Vec<Grant<'_>>> = BTreeMap::new();
    for event in events {
        if let What::Granted { asked, token } = event.what {
            names.entry(&event.name).or_default().push(Grant {
                asked,
                granted: event.at,
                token,
                event,
            });
        }
    }
    for grants in names.values() {
        no_token_twice(grants)?;
        no_smaller_token_later(grants)?;
    }
    Ok(())
}

fn no_token_twice(grants: &[Grant<'_>]) -> Result<(), Violation> {
    let mut by_token: Vec<&Grant<'_>> = grants.iter().collect();
    by_token.sort_by_key(|grant| grant.token);
    let twice = by_token
        .windows(2)
        .find(|pair| pair[0].token == pair[1].token);
    twice.map_or(Ok(()), |pair| {
        let evidence = [pair[0].event, pair[1].event];
        Err(Violation::new("P1", "one token, two grants", &evidence))
    })
}

fn no_smaller_token_later(grants: &[Grant<'_>]) -> Result<(), Violation> {
    let mut completed: Vec<&Grant<'_>> = grants.iter().collect();
    completed.sort_by_key(|grant| grant.granted);
    let mut asked: Vec<&Grant<'_>> = grants.iter().collect();
    asked.sort_by_key(|grant| grant.asked);
    let mut done = completed.into_iter().peekable();
    let mut highest: Option<&Grant<'_>> = None;
    for grant in asked {
        while let Some(before) = done.next_if(|before| before.granted < grant.asked) {
            if highest.is_none_or(|highest| before.token > highest.token) {
                highest = Some(before);
            }
        }
        if let Some(highest) = highest.filter(|highest| highest.token >= grant.token) {
            return Err(Violation::new(
                "P1",
                "the later grant has the smaller token",
                &[highest.event, grant.event],
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::*;

    #[test]
    fn concurrent_requests_may_be_granted_in_any_order() {
        // The second was asked for before the first returned: nothing says which came first.
        let history = [granted(0, 10, "a", 2), granted(9, 20, "b", 1)];
        assert_eq!(check_tokens(&history), Ok(()));
    }

    #[test]
    fn request_at_the_very_time_of_a_grant_is_concurrent_with_it() {
        let history = [granted(0, 10, "a", 2), granted(10, 20, "b", 1)];
        assert_eq!(check_tokens(&history), Ok(()));
    }

    #[test]
    fn later_grant_with_a_smaller_token_is_found() {
        let history = [granted(0, 10, "a", 2), granted(11, 20, "b", 1)];
        assert_eq!(violated(check_tokens(&history)), "P1");
    }

    #[test]
    fn later_grant_is_compared_with_the_highest_before_it_not_only_the_last() {
        let history = [
            granted(0, 10, "a", 9),
            granted(0, 11, "b", 3),
            granted(12, 20, "c", 5),
        ];
        assert_eq!(violated(check_tokens(&history)), "P1");
    }

    #[test]
    fn token_granted_twice_is_found_even_among_concurrent_requests() {
        let history = [granted(0, 10, "a", 1), granted(0, 10, "b", 1)];
        assert_eq!(violated(check_tokens(&history)), "P1");
    }

    #[test]
    fn tokens_of_different_names_do_not_compare() {
        let mut other = granted(11, 20, "b", 1);
        other.name = "other".to_owned();
        assert_eq!(check_tokens(&[granted(0, 10, "a", 2), other]), Ok(()));
    }
}
