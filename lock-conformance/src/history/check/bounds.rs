//! R9: every operation is bounded.

use std::collections::HashMap;
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Left, What};
use crate::history::request::requests_by_name;
use crate::history::trouble::Troubles;

/// What a busy machine may add to any operation.
const BUSY: Duration = Duration::from_secs(1);
/// The longest that dropping a guard may take on a busy machine: it asks nobody.
const DROP: Duration = Duration::from_millis(250);
/// How many requests a release may take: it is repeated once when its answer was lost.
const RELEASE: u32 = 2;

/// **R9**: a try and a release are over within what their requests may take, whatever is broken, and dropping a guard takes
/// no time. `op_timeout` is for one request, slack included. For as long as the process itself did not run it may all
/// take longer.
///
/// # Errors
/// The first operation that took longer.
pub fn check_bounds(events: &[Event], op_timeout: Duration) -> Result<(), Violation> {
    let troubles = Troubles::of(events);
    let judge = |event: &Event, began: Duration, ended: Duration, bound: Duration, what: &str| {
        let took = ended.saturating_sub(began);
        let idle = troubles.idle_for(&event.who, began, ended);
        if took <= bound + idle {
            return Ok(());
        }
        let what = format!("{what} took {took:.1?}");
        Err(Violation::new("R9", what, &[event]))
    };
    for requests in requests_by_name(events).values() {
        for request in requests.iter().filter(|request| !request.waits) {
            if let Some((_, end)) = request.end {
                let bound = op_timeout + BUSY;
                judge(request.event, request.asked, end, bound, "a try")?;
            }
        }
    }
    let mut releasing: HashMap<(&str, u64), Duration> = HashMap::new();
    for event in events {
        match &event.what {
            What::Releasing { token } => {
                releasing.insert((&event.name, *token), event.at);
            }
            What::Released { token, how } => {
                let Some(began) = releasing.remove(&(event.name.as_str(), *token)) else {
                    continue;
                };
                let (bound, what) = match how {
                    Left::Dropped => (DROP, "dropping a guard"),
                    _ => (op_timeout * RELEASE + BUSY, "a release"),
                };
                judge(event, began, event.at, bound, what)?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Refusal, Trouble};
    use crate::history::sample::*;

    fn check(history: &[Event]) -> Result<(), Violation> {
        check_bounds(history, ms(100))
    }

    #[test]
    fn try_that_takes_too_long_is_found_however_it_ends() {
        for why in [Refusal::Busy, Refusal::Indeterminate] {
            let history = |at| [tries(0, "a"), refused(0, at, "a", why.clone())];
            assert_eq!(check(&history(1100)), Ok(()));
            assert_eq!(violated(check(&history(1101))), "R9");
        }
        assert_eq!(check(&[asks(0, "a"), granted(0, 9000, "a", 1)]), Ok(()));
    }

    #[test]
    fn release_or_drop_that_takes_too_long_is_found() {
        for (how, bound) in [
            (Left::Clean, 1200),
            (Left::Unknown, 1200),
            (Left::Dropped, 250),
        ] {
            let history = |at| [releasing(0, "a", 1), released(at, "a", 1, how.clone())];
            assert_eq!(check(&history(bound)), Ok(()));
            assert_eq!(violated(check(&history(bound + 1))), "R9");
        }
    }

    #[test]
    fn process_that_does_not_run_takes_as_much_longer() {
        let since = ms(100);
        let history = |at| {
            [
                releasing(0, "a.1", 1),
                trouble(400, "a", Trouble::Stalled { since }),
                released(at, "a.1", 1, Left::Dropped),
            ]
        };
        assert_eq!(check(&history(550)), Ok(()));
        assert_eq!(violated(check(&history(551))), "R9");
    }
}
