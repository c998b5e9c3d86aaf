//! Making a history that cannot be as short as it can be read.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lock_core::{BootInstant, Clock};

use super::check::Violation;
use super::event::{Event, What};

/// No more than so many attempts: what is left by then is short enough.
const ATTEMPTS: usize = 3_000;
/// And for no longer: whoever waits for the report gives up in the end.
const LIMIT: Duration = Duration::from_secs(20);

/// The least part of `events` in which `check` still finds the same violation: the same property, with
/// the same evidence.
///
/// First the locks and the clients go that have nothing to do with it, then whole operations (a request
/// with all that became of it), ever fewer at a time.
pub fn shrink(
    events: &[Event],
    violation: &Violation,
    check: impl Fn(&[Event]) -> Result<(), Violation>,
) -> Vec<Event> {
    let mut shrinking = Shrinking {
        violation,
        check,
        left: ATTEMPTS,
        until: Clock::system().now() + LIMIT,
        events: events.to_vec(),
    };
    let named: BTreeSet<&str> = names(&violation.evidence).collect();
    if !named.is_empty() {
        shrinking.keep(|event| event.name.is_empty() || named.contains(event.name.as_str()));
    }
    shrinking.drop_clients();
    shrinking.drop_operations();
    shrinking.events
}

fn names(events: &[Event]) -> impl Iterator<Item = &str> {
    events.iter().map(|event| event.name.as_str())
}

struct Shrinking<'a, C> {
    violation: &'a Violation,
    check: C,
    left: usize,
    until: BootInstant,
    events: Vec<Event>,
}

impl<C: Fn(&[Event]) -> Result<(), Violation>> Shrinking<'_, C> {
    /// Keeps only what is `wanted`, if the violation is still there then; whether it was.
    fn keep(&mut self, wanted: impl Fn(&Event) -> bool) -> bool {
        let kept: Vec<Event> = self.events.iter().filter(|e| wanted(e)).cloned().collect();
        if kept.len() == self.events.len() {
            return true;
        }
        self.try_out(kept)
    }

    fn try_out(&mut self, events: Vec<Event>) -> bool {
        if self.left == 0 || Clock::system().now() > self.until {
            self.left = 0;
            return false;
        }
        self.left -= 1;
        let same = (self.check)(&events).is_err_and(|found| {
            found.property == self.violation.property && found.evidence == self.violation.evidence
        });
        if same {
            self.events = events;
        }
        same
    }

    fn drop_clients(&mut self) {
        let clients: BTreeSet<String> = self.events.iter().map(|event| event.who.clone()).collect();
        for client in clients {
            self.keep(|event| event.who != client);
        }
    }

    /// Delta debugging: without one part of the operations after the other, in ever smaller parts.
    fn drop_operations(&mut self) {
        let mut parts = 2;
        loop {
            let operations = operations(&self.events);
            let count = operations.iter().max().map_or(0, |last| last + 1);
            if count < 2 || self.left == 0 {
                return;
            }
            let size = count.div_ceil(parts).max(1);
            let dropped = (0..count).step_by(size).any(|from| {
                let kept = self.events.iter().zip(&operations);
                let kept = kept.filter(|(_, at)| !(from..from + size).contains(*at));
                let kept = kept.map(|(event, _)| event.clone()).collect();
                self.try_out(kept)
            });
            match dropped {
                true => parts = parts.saturating_sub(1).max(2),
                false if size == 1 => return,
                false => parts = (parts * 2).min(count),
            }
        }
    }
}

/// For each event, the number of the operation that it belongs to.
fn operations(events: &[Event]) -> Vec<usize> {
    let mut next = 0;
    let mut requests: HashMap<(&str, &str, Duration), usize> = HashMap::new();
    let mut holds: HashMap<(&str, u64), usize> = HashMap::new();
    let mut numbers = Vec::with_capacity(events.len());
    for Event {
        at,
        who,
        name,
        what,
    } in events
    {
        let mut fresh = || {
            next += 1;
            next - 1
        };
        let number = match what {
            What::Asked { .. } => {
                let number = fresh();
                requests.insert((name, who, *at), number);
                number
            }
            What::Granted { asked, token } => {
                let number = requests.get(&(name, who, *asked)).copied();
                let number = number.unwrap_or_else(&mut fresh);
                holds.insert((name, *token), number);
                number
            }
            What::Refused { asked, .. } => {
                let number = requests.get(&(name, who, *asked)).copied();
                number.unwrap_or_else(&mut fresh)
            }
            What::Leased { token, .. }
            | What::Shown { token, .. }
            | What::Checked { token, .. }
            | What::Releasing { token }
            | What::Released { token, .. }
            | What::Lost { token, .. }
            | What::Wrote { token, .. } => {
                let number = holds.get(&(name.as_str(), *token)).copied();
                number.unwrap_or_else(|| {
                    let number = fresh();
                    holds.insert((name, *token), number);
                    number
                })
            }
            What::Queued { .. } | What::Rest { .. } | What::Trouble(_) | What::Note(_) => fresh(),
        };
        numbers.push(number);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::check::check_tokens;
    use super::super::sample::*;
    use super::*;

    /// Many good operations of many clients on two locks, with two bad ones among them.
    fn long_history() -> Vec<Event> {
        let mut history = Vec::new();
        for step in 0..200_u64 {
            let (at, who) = (step * 10, format!("c{}", step % 7));
            let token = match step {
                50 => 1000,
                120 => 60,
                _ => step + 2000,
            };
            history.push(asks(at, &who));
            history.push(granted(at, at + 2, &who, token));
            history.extend(clean(at + 3, at + 4, &who, token));
        }
        for event in &mut history {
            if !(500..=1300).contains(&event.at.as_millis()) {
                event.name = "other".to_owned();
            }
        }
        // Between the two bad ones the tokens would be too large for the second: they belong elsewhere.
        history.retain(|event| match event.what {
            What::Granted { token, .. } => event.name == "other" || token < 2000,
            _ => true,
        });
        history
    }

    #[test]
    fn long_history_shrinks_to_the_operations_that_matter() {
        let history = long_history();
        let violation = check_tokens(&history).expect_err("the second token is too small");
        let short = shrink(&history, &violation, check_tokens);
        assert_eq!(check_tokens(&short), Err(violation.clone()));
        for event in &violation.evidence {
            assert!(short.contains(event), "{event} is gone");
        }
        assert!(short.len() <= 8, "{} events are left", short.len());
    }

    #[test]
    fn shrinking_does_not_slip_to_another_violation() {
        let mut history = long_history();
        let violation = check_tokens(&history).expect_err("the second token is too small");
        // A loose write in the middle would be a violation of P2 as soon as others go.
        history.push(wrote(700, 1000, 1, true));
        let short = shrink(&history, &violation, check_tokens);
        assert_eq!(check_tokens(&short), Err(violation));
    }
}
