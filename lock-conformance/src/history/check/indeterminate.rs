//! P10: indeterminate operations may have been executed or not, definite answers are definite.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Refusal, What};
use crate::history::record::{Record, Stood};
use crate::history::request::{Answer, Request, requests_by_name};
use crate::history::trouble::Troubles;

/// **P10**: a request whose outcome nobody knows may have won or not, and both histories are good. But
/// every hold in the backend's own record that no client saw needs such a request to explain it: one
/// that was told "busy", or that was granted another hold, does not.
///
/// # Errors
/// The first hold that nobody can have asked for.
pub fn check_indeterminate(events: &[Event], records: &[Record]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let requests = requests_by_name(events);
    let mut stood: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.what == Stood::Began) {
        stood.entry(&record.name).or_default().push(record.token);
    }
    let mut seen: BTreeMap<&str, BTreeMap<u64, Duration>> = BTreeMap::new();
    for event in events {
        if let What::Granted { token, .. } = event.what {
            let of_name = seen.entry(&event.name).or_default();
            of_name.insert(token, event.at);
        }
    }
    let nothing = BTreeMap::new();
    for (name, tokens) in &mut stood {
        let Some(requests) = requests.get(name) else {
            continue;
        };
        tokens.sort_unstable();
        let unseen = unseen(tokens, seen.get(name).unwrap_or(&nothing));
        explained(name, unseen, requests, &troubles)?;
    }
    Ok(())
}

/// The tokens that no client saw, each behind the time by which it had been asked for: it came before
/// the next one that a client did see, so that was granted later. The one with the least time first.
fn unseen(tokens: &[u64], seen: &BTreeMap<u64, Duration>) -> Vec<(Duration, u64)> {
    let mut unseen = Vec::new();
    let mut latest = Duration::MAX;
    let mut later = seen.iter().rev().peekable();
    for token in tokens.iter().rev() {
        while let Some((_, at)) = later.next_if(|(other, _)| *other > token) {
            latest = latest.min(*at);
        }
        if !seen.contains_key(token) {
            unseen.push((latest, *token));
        }
    }
    unseen.sort_unstable();
    unseen
}

/// Whether there is a request for each of the tokens.
fn explained(
    name: &str,
    unseen: Vec<(Duration, u64)>,
    requests: &[Request<'_>],
    troubles: &Troubles<'_>,
) -> Result<(), Violation> {
    let mut open = requests
        .iter()
        .filter_map(|request| openness(request, troubles).map(|many| (request, many)))
        .peekable();
    let (mut once, mut any) = (0_usize, false);
    for (used, (latest, token)) in unseen.into_iter().enumerate() {
        while let Some((_, many)) = open.next_if(|(request, _)| request.asked <= latest) {
            once += 1;
            any |= many;
        }
        if used >= once && !any {
            let refused = requests.iter().rev().find(|request| {
                request.asked <= latest
                    && matches!(request.end, Some((Answer::Refused(Refusal::Busy), _)))
            });
            let what = format!(
                "the backend's record has a hold {token} of {name:?} that no client saw, and nobody \
                 asked for it whose answer was left open"
            );
            let evidence: Vec<&Event> = refused.iter().map(|request| request.event).collect();
            return Err(Violation::new("P10", what, &evidence));
        }
    }
    Ok(())
}

/// Whether the request may have won a hold that nobody saw; and if so, whether more than one: a waiter
/// that something happens to comes back, and may be granted what it does not see each time.
fn openness(request: &Request<'_>, troubles: &Troubles<'_>) -> Option<bool> {
    let end = request.end.map_or(Duration::MAX, |(_, at)| at);
    let disturbed = request.waits
        && (troubles.active(request.asked, end) || troubles.idle(request.who, request.asked, end));
    match request.end {
        _ if disturbed => Some(true),
        Some((Answer::Granted(_) | Answer::Refused(Refusal::Busy), _)) => None,
        None | Some((Answer::Refused(_), _)) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Trouble;
    use crate::history::sample::*;

    fn tried(asked: u64, at: u64, why: Refusal) -> [Event; 2] {
        [tries(asked, "a"), refused(asked, at, "a", why)]
    }

    const WON: fn() -> [Record; 2] = || [began(1), ended(1)];

    #[test]
    fn indeterminate_request_may_have_won_or_not() {
        let history = tried(0, 10, Refusal::Indeterminate);
        assert_eq!(check_indeterminate(&history, &WON()), Ok(()));
        assert_eq!(check_indeterminate(&history, &[]), Ok(()));
    }

    #[test]
    fn request_that_was_told_busy_and_won_is_found() {
        let history = tried(0, 10, Refusal::Busy);
        assert_eq!(violated(check_indeterminate(&history, &WON())), "P10");
    }

    #[test]
    fn one_open_request_explains_one_hold() {
        let history = tried(0, 10, Refusal::Indeterminate);
        let records = [began(1), ended(1), began(2), ended(2)];
        assert_eq!(violated(check_indeterminate(&history, &records)), "P10");
        let mut twice = history.to_vec();
        twice.extend(tried(20, 30, Refusal::Cancelled));
        assert_eq!(check_indeterminate(&twice, &records), Ok(()));
    }

    #[test]
    fn request_that_was_granted_explains_nothing_else() {
        let history = [asks(0, "a"), granted(0, 10, "a", 2)];
        let records = [began(1), ended(1), began(2), ended(2)];
        assert_eq!(violated(check_indeterminate(&history, &records)), "P10");
    }

    #[test]
    fn waiter_that_something_happened_to_may_have_won_before() {
        let history = [
            asks(0, "a"),
            trouble(5, "faults", Trouble::Began("cut".into())),
            trouble(6, "faults", Trouble::Healed("cut".into())),
            granted(0, 10, "a", 2),
        ];
        let records = [began(1), ended(1), began(2), ended(2)];
        assert_eq!(check_indeterminate(&history, &records), Ok(()));
    }

    #[test]
    fn request_that_began_after_a_later_grant_explains_no_earlier_one() {
        let mut history = vec![tries(0, "b"), granted(0, 10, "b", 2)];
        history.extend(tried(20, 30, Refusal::Indeterminate));
        let records = [began(1), ended(1), began(2), ended(2)];
        assert_eq!(violated(check_indeterminate(&history, &records)), "P10");
    }

    #[test]
    fn request_of_a_process_that_was_killed_may_have_won() {
        let history = [
            tries(0, "worker 1.0"),
            trouble(5, "worker 1", Trouble::Killed),
        ];
        assert_eq!(check_indeterminate(&history, &WON()), Ok(()));
    }
}
