//! P8: first in, first out, where it is declared.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, What};
use crate::history::hold::{Holds, holds_by_name};
use crate::history::request::{Request, requests_by_name};
use crate::history::trouble::Troubles;

/// **P8**: a waiter that was seen queued before another asked is served before it, unless it left, or
/// was kept from keeping its place: the server or its way there was broken, it did not run, or an operator
/// broke a hold. What was broken up to a lease before it asked counts too: a lease or session that was not renewed
/// then may end while it waits. A try overtakes nobody either.
///
/// # Errors
/// The first request that overtook a waiter.
pub fn check_order(events: &[Event]) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let requests = requests_by_name(events);
    let holds = holds_by_name(events, &troubles);
    let mut seen: BTreeMap<&str, Vec<Seen<'_>>> = BTreeMap::new();
    let lines: HashMap<(&str, &str), Vec<&Request<'_>>> = by_client(&requests);
    for event in events {
        let What::Queued { looked } = event.what else {
            continue;
        };
        let line = lines.get(&(event.name.as_str(), event.who.as_str()));
        let seen_now = line
            .zip(holds.get(event.name.as_str()))
            .and_then(|(line, holds)| Seen::of(line, holds, looked, event, &troubles));
        if let Some(waiter) = seen_now {
            seen.entry(&event.name).or_default().push(waiter);
        }
    }
    for (name, waiters) in seen {
        nobody_overtakes(&waiters, &requests[name])?;
    }
    Ok(())
}

/// A waiter that was seen in the queue and served later.
#[derive(Clone, Copy)]
struct Seen<'a> {
    at: Duration,
    token: u64,
    event: &'a Event,
}

impl<'a> Seen<'a> {
    /// The request that a look saw: the last that had begun by then, if it was served after the look
    /// and nothing was broken between.
    fn of(
        line: &[&Request<'a>],
        holds: &Holds<'_>,
        looked: Duration,
        event: &'a Event,
        troubles: &Troubles<'_>,
    ) -> Option<Self> {
        let begun = line.partition_point(|request| request.asked <= looked);
        let request = line.get(begun.checked_sub(1)?)?;
        let (token, granted) = request.granted()?;
        let lease = holds.of(token).and_then(|hold| hold.lease);
        let renewed = request
            .asked
            .saturating_sub(lease.map_or(Duration::ZERO, |(ttl, _)| ttl));
        // From its beginning on: what was seen may be what an unanswered attempt left behind. A grant that is broken
        // before anybody has heard of it is asked for again, at the end of the queue.
        let undisturbed = !troubles.disturbed(request.who, renewed, granted)
            && !troubles.broke(&event.name, request.asked, granted);
        (request.waits && granted >= looked && undisturbed).then_some(Self {
            at: event.at,
            token,
            event,
        })
    }
}

fn by_client<'r, 'a>(
    requests: &'r BTreeMap<&'a str, Vec<Request<'a>>>,
) -> HashMap<(&'a str, &'a str), Vec<&'r Request<'a>>> {
    let mut lines: HashMap<_, Vec<_>> = HashMap::new();
    for (name, requests) in requests {
        for request in requests {
            lines.entry((*name, request.who)).or_default().push(request);
        }
    }
    lines
}

/// `waiters` are in the order in which they were seen, `requests` in that in which they began.
fn nobody_overtakes(waiters: &[Seen<'_>], requests: &[Request<'_>]) -> Result<(), Violation> {
    let mut waiters = waiters.iter().peekable();
    let mut last: Option<&Seen<'_>> = None;
    for request in requests {
        while let Some(waiter) = waiters.next_if(|waiter| waiter.at < request.asked) {
            if last.is_none_or(|last| waiter.token > last.token) {
                last = Some(waiter);
            }
        }
        if let Some(last) = last
            && let Some((token, _)) = request.granted()
            && token < last.token
        {
            let what = format!(
                "a later request was granted {token}, a waiter that had been in the queue {}",
                last.token
            );
            return Err(Violation::new("P8", what, &[last.event, request.event]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Refusal, Trouble};
    use crate::history::sample::*;

    /// `a` was seen in the queue, then `b` asked; their tokens.
    fn served(a: u64, b: u64) -> Vec<Event> {
        vec![
            asks(0, "a"),
            queued(5, 6, "a"),
            asks(7, "b"),
            granted(0, 20, "a", a),
            granted(7, 30, "b", b),
        ]
    }

    #[test]
    fn waiters_served_in_order_are_good_and_others_are_found() {
        assert_eq!(check_order(&served(1, 2)), Ok(()));
        assert_eq!(violated(check_order(&served(2, 1))), "P8");
    }

    #[test]
    fn try_that_overtakes_is_found() {
        let mut history = served(2, 1);
        history[2] = tries(7, "b");
        assert_eq!(violated(check_order(&history)), "P8");
    }

    #[test]
    fn whoever_asked_before_the_look_had_ended_may_have_been_first() {
        let mut history = served(2, 1);
        history[2].at = ms(6);
        let What::Granted { asked, .. } = &mut history[4].what else {
            unreachable!("a grant");
        };
        *asked = ms(6);
        assert_eq!(check_order(&history), Ok(()));
    }

    #[test]
    fn waiter_that_left_was_not_overtaken() {
        let history = [
            asks(0, "a"),
            queued(5, 6, "a"),
            asks(7, "b"),
            granted(7, 10, "b", 1),
            refused(0, 12, "a", Refusal::TimedOut),
        ];
        assert_eq!(check_order(&history), Ok(()));
    }

    #[test]
    fn waiter_that_came_back_is_another_request() {
        let history = [
            asks(0, "a"),
            queued(5, 6, "a"),
            refused(0, 7, "a", Refusal::Cancelled),
            asks(8, "b"),
            asks(9, "a"),
            granted(8, 20, "b", 1),
            granted(9, 30, "a", 2),
        ];
        assert_eq!(check_order(&history), Ok(()));
    }

    #[test]
    fn place_that_was_lost_through_trouble_is_excused() {
        let mut history = served(2, 1);
        history.push(broke_down(8));
        history.push(healed(9));
        assert_eq!(check_order(&history), Ok(()));
    }

    #[test]
    fn lease_that_trouble_had_left_short_may_end_while_its_waiter_waits() {
        let with_lease = |ttl| {
            check_order(&[
                broke_down(100),
                healed(110),
                asks(200, "a"),
                queued(205, 206, "a"),
                asks(207, "b"),
                granted(207, 210, "b", 1),
                granted(200, 220, "a", 2),
                leased(220, "a", 2, ttl, true),
            ])
        };
        assert_eq!(with_lease(95), Ok(()));
        assert_eq!(violated(with_lease(85)), "P8");
    }

    #[test]
    fn grant_that_was_broken_before_it_was_heard_of_costs_the_place() {
        let mut history = served(2, 1);
        let broke = Trouble::Broke {
            token: 9,
            since: ms(7),
        };
        history.push(trouble(8, "faults", broke));
        assert_eq!(check_order(&history), Ok(()));
    }
}
