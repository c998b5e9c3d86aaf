//! What clients saw, on one clock, and what must be true of it.
//!
//! Every process of a machine shares the clock that [`lock_core::Clock::system`] reads, so the
//! histories of worker processes can be laid side by side.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::Clock;
use serde::{Deserialize, Serialize};

mod record;
#[cfg(test)]
mod tests;

pub use self::record::{Record, Stood};

/// Something that one client saw, or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    /// When it ended, on the machine's clock.
    pub at: Duration,
    /// Who saw it.
    pub who: String,
    /// The lock.
    pub name: String,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum What {
    /// A lock was asked for at `asked` and granted at the event's time.
    Granted {
        /// When the request began.
        asked: Duration,
        /// The fencing token.
        token: u64,
    },
    /// A lock was asked for and not granted.
    Refused {
        /// The error, or that it was busy.
        why: String,
    },
    /// The holder of `token` began to give it up. Stamped *before* the request.
    Releasing {
        /// The fencing token.
        token: u64,
    },
    /// Giving it up ended like this.
    Released {
        /// The fencing token.
        token: u64,
        /// How it ended.
        how: String,
    },
    /// The holder of `token` was told that it holds no longer.
    Lost {
        /// The fencing token.
        token: u64,
        /// Why.
        why: String,
    },
    /// The holder of `token` asked at `began` whether it may still act.
    Checked {
        /// When the question was asked.
        began: Duration,
        /// The fencing token.
        token: u64,
        /// The answer.
        valid: bool,
    },
    /// The resource answered a write that carried `token`.
    Wrote {
        /// The fencing token.
        token: u64,
        /// What the writer wrote.
        value: u64,
        /// Whether it was taken.
        accepted: bool,
    },
    /// Anything else worth reading in a report.
    Note(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            who,
            name,
            what,
        } = self;
        write!(f, "{:>12.6} {who:<10} {name:?} ", at.as_secs_f64())?;
        match what {
            What::Granted { asked, token } => {
                let waited = at.saturating_sub(*asked);
                write!(f, "granted {token} after {waited:.1?}")
            }
            What::Refused { why } => write!(f, "refused: {why}"),
            What::Releasing { token } => write!(f, "releasing {token}"),
            What::Released { token, how } => write!(f, "released {token}: {how}"),
            What::Lost { token, why } => write!(f, "lost {token}: {why}"),
            What::Checked { token, valid, .. } => write!(f, "checked {token}: valid = {valid}"),
            What::Wrote {
                token,
                value,
                accepted,
            } => write!(f, "wrote {value} with {token}: accepted = {accepted}"),
            What::Note(text) => f.write_str(text),
        }
    }
}

/// Collects the history of one case. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    clock: Clock,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A recorder on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Clock::system(),
            events: Arc::default(),
        }
    }

    /// The time, as events carry it.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.now().since_origin()
    }

    /// Records what happened just now.
    pub fn record(&self, who: &str, name: &str, what: What) {
        self.add(Event {
            at: self.now(),
            who: who.to_owned(),
            name: name.to_owned(),
            what,
        });
    }

    /// Records what happened at another time, or in another process.
    pub fn add(&self, event: Event) {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
    }

    /// Everything so far, in the order of time.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut events = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        events.sort_by_key(|event| event.at);
        events
    }

    /// The last `count` events, one line each.
    #[must_use]
    pub fn excerpt(&self, count: usize) -> String {
        let events = self.events();
        let skipped = events.len().saturating_sub(count);
        let mut text = String::new();
        if skipped > 0 {
            text = format!("  ... {skipped} earlier events\n");
        }
        for event in &events[skipped..] {
            text.push_str(&format!("  {event}\n"));
        }
        text
    }
}

/// A history that cannot be.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The property that is broken, such as `P1`.
    pub property: &'static str,
    /// How, with the events that show it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violated: {}", self.property, self.what)
    }
}

impl From<Violation> for crate::Failure {
    fn from(violation: Violation) -> Self {
        Self::new(violation.to_string())
    }
}

/// Runs every check that needs nothing but the history.
///
/// # Errors
/// The first violation found.
pub fn check_all(events: &[Event]) -> Result<(), Violation> {
    check_tokens(events)?;
    check_exclusion(events)?;
    check_validity(events)?;
    check_loss_before_grant(events)
}

struct Grant<'a> {
    asked: Duration,
    granted: Duration,
    token: u64,
    event: &'a Event,
}

fn grants_by_name(events: &[Event]) -> BTreeMap<&str, Vec<Grant<'_>>> {
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
    names
}

/// **P1**: a grant that was complete before another was asked for has the smaller token, and no token
/// is granted twice.
///
/// # Errors
/// The first pair of grants that contradicts it.
pub fn check_tokens(events: &[Event]) -> Result<(), Violation> {
    for grants in grants_by_name(events).values_mut() {
        let mut by_token: Vec<&Grant<'_>> = grants.iter().collect();
        by_token.sort_by_key(|grant| grant.token);
        for pair in by_token.windows(2) {
            if pair[0].token == pair[1].token {
                return Err(contradiction(
                    "P1",
                    "one token, two grants",
                    pair[0].event,
                    pair[1].event,
                ));
            }
        }
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
                return Err(contradiction(
                    "P1",
                    "the later grant has the smaller token",
                    highest.event,
                    grant.event,
                ));
            }
        }
    }
    Ok(())
}

/// **R1 as clients saw it**: no two holders of one name believed in it at once. A hold counts from
/// the return of its grant to the moment before its release, or to its loss.
///
/// Not for histories with paused processes: there the fence protects, not the belief.
///
/// # Errors
/// The first two holds that overlap.
pub fn check_exclusion(events: &[Event]) -> Result<(), Violation> {
    for (name, grants) in grants_by_name(events) {
        let mut ends: BTreeMap<u64, Duration> = BTreeMap::new();
        for event in events.iter().filter(|event| event.name == name) {
            if let What::Releasing { token } | What::Lost { token, .. } = event.what {
                let end = ends.entry(token).or_insert(event.at);
                *end = (*end).min(event.at);
            }
        }
        // A hold without a recorded end is one whose process died: nobody believed in it any more.
        let mut holds: Vec<(Duration, Duration, &Event)> = grants
            .iter()
            .filter_map(|grant| {
                ends.get(&grant.token)
                    .map(|end| (grant.granted, *end, grant.event))
            })
            .collect();
        holds.sort_by_key(|hold| hold.0);
        for pair in holds.windows(2) {
            if pair[1].0 < pair[0].1 {
                return Err(contradiction(
                    "R1",
                    "two holders at once",
                    pair[0].2,
                    pair[1].2,
                ));
            }
        }
    }
    Ok(())
}

/// **P3**: after `check()` said "valid", no newer grant had completed before that check began.
///
/// # Errors
/// The first check that was wrong.
pub fn check_validity(events: &[Event]) -> Result<(), Violation> {
    let grants = grants_by_name(events);
    for event in events {
        let What::Checked {
            began,
            token,
            valid: true,
        } = event.what
        else {
            continue;
        };
        let newer = grants
            .get(event.name.as_str())
            .into_iter()
            .flatten()
            .find(|grant| grant.token > token && grant.granted < began);
        if let Some(newer) = newer {
            return Err(contradiction(
                "P3",
                "a check said valid after the next grant",
                newer.event,
                event,
            ));
        }
    }
    Ok(())
}

/// **P9**: a holder that lost its lock was told before anybody else was granted it.
///
/// # Errors
/// The first loss that came too late.
pub fn check_loss_before_grant(events: &[Event]) -> Result<(), Violation> {
    let grants = grants_by_name(events);
    for event in events {
        let What::Lost { token, .. } = event.what else {
            continue;
        };
        let newer = grants
            .get(event.name.as_str())
            .into_iter()
            .flatten()
            .find(|grant| grant.token > token && grant.granted < event.at);
        if let Some(newer) = newer {
            return Err(contradiction(
                "P9",
                "loss was signalled after the next grant",
                newer.event,
                event,
            ));
        }
    }
    Ok(())
}

/// **P2**: the resource never accepts an older token after a newer one, and loses no update: every
/// accepted write is one more than the one before.
///
/// `events` are the resource's own, in the order in which it took them.
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
            if token < newest {
                return Err(contradiction(
                    "P2",
                    "an older token was accepted",
                    earlier,
                    event,
                ));
            }
            if value != before + 1 {
                return Err(contradiction("P2", "an update was lost", earlier, event));
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

fn contradiction(property: &'static str, what: &str, first: &Event, second: &Event) -> Violation {
    Violation {
        property,
        what: format!("{what}\n  {first}\n  {second}"),
    }
}
