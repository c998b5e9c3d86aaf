//! P10: indeterminate operations may have been executed or not, definite answers are definite.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Refusal, What};
use crate::history::record::{Record, Stood};
use crate::history::request::{Answer, Request, requests_by_name};
use crate::history::trouble::Troubles;

/// **P10**: a request whose outcome nobody knows may have won or not, and both histories are good. But
/// every hold in the backend's own record that no client saw needs such a request to explain it. One
/// that was told "busy" explains a hold that has ended, as of a try that stood in the queue until it was
/// withdrawn and was first for a moment, and none that still stands. So does one that waited and was
/// granted another hold: a waiter whose lease a slow server let end while it came first joins again.
///
/// Says nothing of a lock that nobody in the history asked for: a server may have other clients.
///
/// # Errors
/// The first hold that nobody can have asked for.
pub fn check_indeterminate(events: &[Event], records: &[Record]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let requests = requests_by_name(events);
    let mut stood: BTreeMap<&str, BTreeMap<u64, Stood>> = BTreeMap::new();
    for Record { name, token, what } in records {
        stood.entry(name).or_default().insert(*token, *what);
    }
    let mut seen: BTreeMap<&str, BTreeMap<u64, Duration>> = BTreeMap::new();
    for event in events {
        if let What::Granted { token, .. } = event.what {
            let of_name = seen.entry(&event.name).or_default();
            of_name.insert(token, event.at);
        }
    }
    let nothing = BTreeMap::new();
    for (name, tokens) in &stood {
        let Some(requests) = requests.get(name) else {
            continue;
        };
        let unseen = unseen(tokens, seen.get(name).unwrap_or(&nothing));
        explained(name, unseen, requests, &troubles)?;
    }
    Ok(())
}

/// A hold that no client saw.
struct Unseen {
    /// By when it had been asked for: it came before the next one that a client did see, so that one
    /// was granted later.
    latest: Duration,
    token: u64,
    stands: bool,
}

/// The holds that no client saw, the one with the least time first.
fn unseen(tokens: &BTreeMap<u64, Stood>, seen: &BTreeMap<u64, Duration>) -> Vec<Unseen> {
    let mut unseen = Vec::new();
    let mut latest = Duration::MAX;
    let mut later = seen.iter().rev().peekable();
    for (token, what) in tokens.iter().rev() {
        while let Some((_, at)) = later.next_if(|(other, _)| *other > token) {
            latest = latest.min(*at);
        }
        if !seen.contains_key(token) {
            unseen.push(Unseen {
                latest,
                token: *token,
                stands: *what == Stood::Began,
            });
        }
    }
    unseen.sort_by_key(|hold| (hold.latest, hold.token));
    unseen
}

/// Whether there is a request for each of the holds.
fn explained(
    name: &str,
    unseen: Vec<Unseen>,
    requests: &[Request<'_>],
    troubles: &Troubles<'_>,
) -> Result<(), Violation> {
    let mut open = requests
        .iter()
        .filter_map(|request| openness(request, troubles).map(|open| (request, open)))
        .peekable();
    let (mut once, mut passing, mut any) = (0_usize, 0_usize, false);
    for (used, hold) in unseen.into_iter().enumerate() {
        let Unseen { latest, token, .. } = hold;
        while let Some((_, open)) = open.next_if(|(request, _)| request.asked <= latest) {
            match open {
                Open::Once => once += 1,
                Open::Passing => passing += 1,
                Open::Often => any = true,
            }
        }
        let explained = match hold.stands {
            true => once > 0,
            false => used < once + passing,
        };
        if !explained && !any {
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

/// How many holds that nobody saw a request may have won.
enum Open {
    Once,
    /// One that was taken back before its answer, or soon after.
    Passing,
    /// A waiter that something happens to comes back, and may be granted what it does not see each time.
    Often,
}

/// How many, if any.
fn openness(request: &Request<'_>, troubles: &Troubles<'_>) -> Option<Open> {
    let end = request.end.map_or(Duration::MAX, |(_, at)| at);
    let disturbed = request.waits
        && (troubles.disturbed(request.who, request.asked, end)
            || troubles.broke(&request.event.name, request.asked, end));
    match request.end {
        _ if disturbed => Some(Open::Often),
        Some((Answer::Granted(_), _)) if request.waits => Some(Open::Passing),
        Some((Answer::Granted(_), _)) => None,
        Some((Answer::Refused(Refusal::Busy), _)) => Some(Open::Passing),
        None | Some((Answer::Refused(_), _)) => Some(Open::Once),
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
    fn request_that_was_told_busy_and_holds_is_found() {
        let history = tried(0, 10, Refusal::Busy);
        assert_eq!(violated(check_indeterminate(&history, &[began(1)])), "P10");
        let open = tried(0, 10, Refusal::Indeterminate);
        assert_eq!(check_indeterminate(&open, &[began(1)]), Ok(()));
    }

    #[test]
    fn try_that_was_first_for_a_moment_when_it_was_withdrawn_is_good_once() {
        let history = tried(0, 10, Refusal::Busy);
        assert_eq!(check_indeterminate(&history, &WON()), Ok(()));
        let twice = [began(1), ended(1), began(2), ended(2)];
        assert_eq!(violated(check_indeterminate(&history, &twice)), "P10");
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
    fn try_that_was_granted_explains_nothing_else() {
        let history = [tries(0, "a"), granted(0, 10, "a", 2)];
        let records = [began(1), ended(1), began(2), ended(2)];
        assert_eq!(violated(check_indeterminate(&history, &records)), "P10");
    }

    #[test]
    fn waiter_that_was_granted_may_have_been_first_once_before_and_does_not_stand_there_any_more() {
        let history = [asks(0, "a"), granted(0, 10, "a", 3)];
        let once = [began(1), ended(1), began(3), ended(3)];
        assert_eq!(check_indeterminate(&history, &once), Ok(()));
        let twice = [began(1), ended(1), began(2), ended(2), began(3), ended(3)];
        assert_eq!(violated(check_indeterminate(&history, &twice)), "P10");
        let stands = [began(1), began(3), ended(3)];
        assert_eq!(violated(check_indeterminate(&history, &stands)), "P10");
    }

    #[test]
    fn waiter_that_something_happened_to_may_have_won_before() {
        let history = [
            asks(0, "a"),
            broke_down(5),
            healed(6),
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
