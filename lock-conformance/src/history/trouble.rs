//! What was broken when, as far as a history says.

use std::collections::HashMap;
use std::time::Duration;

use super::event::{Event, Trouble, What, process_of};

type Span = (Duration, Duration);

/// The troubles of a history.
#[derive(Debug, Default)]
pub(super) struct Troubles<'a> {
    /// When a process did not run, in the order of time.
    idle: HashMap<&'a str, Vec<Span>>,
    killed: HashMap<&'a str, Duration>,
    losses: Vec<Span>,
    breaks: HashMap<(&'a str, u64), Duration>,
    /// When anything at all was broken, or had just been: in order, and disjoint.
    active: Vec<Span>,
    /// When requests of anybody may go without an answer: in order, and disjoint.
    outages: Vec<Span>,
}

/// A machine on which a process does not run for so long is too busy for answers in time.
const BUSY: Duration = Duration::from_millis(500);

impl<'a> Troubles<'a> {
    pub(super) fn of(events: &'a [Event]) -> Self {
        let mut troubles = Self::default();
        let mut paused: HashMap<&str, Duration> = HashMap::new();
        let mut broken = 0_usize;
        let mut since = Duration::ZERO;
        for event in events {
            let What::Trouble(trouble) = &event.what else {
                continue;
            };
            let (who, at) = (event.process(), event.at);
            // Who is killed while it is paused does not come back either.
            let paused_since = match trouble {
                Trouble::Resumed | Trouble::Killed => paused.remove(who),
                _ => None,
            };
            if let Some(from) = paused_since {
                troubles.idle.entry(who).or_default().push((from, at));
            }
            match trouble {
                Trouble::Paused => drop(paused.insert(who, at)),
                Trouble::Resumed => {}
                Trouble::Stalled { since } => {
                    troubles.idle.entry(who).or_default().push((*since, at));
                }
                Trouble::Killed => drop(troubles.killed.entry(who).or_insert(at)),
                Trouble::DataLost { since } => troubles.losses.push((*since, at)),
                Trouble::Broke { token, since } => {
                    let broke = troubles.breaks.entry((&event.name, *token));
                    broke.or_insert(*since);
                }
                Trouble::Began(_) | Trouble::Healed(_) => {}
            }
            match trouble {
                Trouble::Began(_) | Trouble::Paused => {
                    if broken == 0 {
                        since = at;
                    }
                    broken += 1;
                }
                Trouble::Healed(_) => {
                    broken = broken.saturating_sub(1);
                    if broken == 0 {
                        troubles.active.push((since, at));
                    }
                }
                Trouble::Resumed | Trouble::Killed => {
                    if paused_since.is_some() {
                        broken = broken.saturating_sub(1);
                    }
                    let from = if broken == 0 && paused_since.is_some() {
                        since
                    } else {
                        at
                    };
                    troubles.active.push((from, at));
                }
                Trouble::Stalled { .. } => troubles.active.push((at, at)),
                Trouble::DataLost { since } | Trouble::Broke { since, .. } => {
                    troubles.active.push((*since, at));
                }
            }
        }
        let end = Duration::MAX;
        if broken > 0 {
            troubles.active.push((since, end));
        }
        for (who, from) in paused {
            troubles.idle.entry(who).or_default().push((from, end));
        }
        troubles.active = disjoint(std::mem::take(&mut troubles.active));
        troubles.outages = outages(events);
        for spans in troubles.idle.values_mut() {
            *spans = disjoint(std::mem::take(spans));
        }
        troubles
    }

    /// Whether `who` may not have been running at some time between `from` and `to`.
    pub(super) fn idle(&self, who: &str, from: Duration, to: Duration) -> bool {
        let spans = self.idle.get(process_of(who));
        spans.is_some_and(|spans| overlaps(spans, from, to))
    }

    /// When `who` was killed.
    pub(super) fn killed(&self, who: &str) -> Option<Duration> {
        self.killed.get(process_of(who)).copied()
    }

    /// Whether anything was broken between `from` and `to`.
    pub(super) fn active(&self, from: Duration, to: Duration) -> bool {
        overlaps(&self.active, from, to)
    }

    /// Whether the server, or the way to it, was broken between `from` and `to`, or the machine too busy to
    /// answer. What happens to a client's process is no outage for the others.
    pub(super) fn outage(&self, from: Duration, to: Duration) -> bool {
        overlaps(&self.outages, from, to)
    }

    /// From when on a hold that was asked for at `asked` may have been taken by a declared
    /// exception. A request that was under way during a loss of data may have been granted before it.
    pub(super) fn undone(&self, name: &str, token: u64, asked: Duration) -> Option<Duration> {
        let lost = self.losses.iter().find(|(_, to)| asked <= *to);
        let lost = lost.map(|(from, _)| *from);
        let broken = self.breaks.get(&(name, token)).copied();
        match (lost, broken) {
            (Some(lost), Some(broken)) => Some(lost.min(broken)),
            (one, other) => one.or(other),
        }
    }
}

fn outages(events: &[Event]) -> Vec<Span> {
    let (mut spans, mut open) = (Vec::new(), Vec::new());
    for event in events {
        let What::Trouble(trouble) = &event.what else {
            continue;
        };
        match trouble {
            Trouble::Began(_) => open.push(event.at),
            Trouble::Healed(_) => spans.extend(open.pop().map(|since| (since, event.at))),
            Trouble::DataLost { since } => spans.push((*since, event.at)),
            Trouble::Stalled { since } if event.at.saturating_sub(*since) > BUSY => {
                spans.push((*since, event.at));
            }
            Trouble::Stalled { .. }
            | Trouble::Broke { .. }
            | Trouble::Paused
            | Trouble::Resumed
            | Trouble::Killed => {}
        }
    }
    spans.extend(open.into_iter().map(|since| (since, Duration::MAX)));
    disjoint(spans)
}

fn disjoint(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

fn overlaps(spans: &[Span], from: Duration, to: Duration) -> bool {
    let first = spans.partition_point(|(_, end)| *end < from);
    spans.get(first).is_some_and(|(begin, _)| *begin <= to)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{ms, trouble};
    use super::*;

    #[test]
    fn pause_ends_with_a_kill_as_with_a_resumption() {
        for end in [Trouble::Resumed, Trouble::Killed] {
            let history = [
                trouble(10, "worker 1", Trouble::Paused),
                trouble(20, "worker 1", end),
            ];
            let troubles = Troubles::of(&history);
            assert!(troubles.active(ms(15), ms(16)));
            assert!(troubles.idle("worker 1.0", ms(15), ms(16)));
            assert!(!troubles.active(ms(21), ms(22)));
            assert!(!troubles.idle("worker 1.0", ms(21), ms(22)));
        }
    }

    #[test]
    fn two_faults_are_an_outage_until_both_are_healed_and_a_process_is_none() {
        let history = [
            trouble(5, "worker 1", Trouble::Paused),
            trouble(10, "faults", Trouble::Began("cut".into())),
            trouble(20, "faults", Trouble::Began("pause".into())),
            trouble(25, "worker 2", Trouble::Killed),
            trouble(30, "faults", Trouble::Healed("pause".into())),
            trouble(40, "faults", Trouble::Healed("cut".into())),
        ];
        let troubles = Troubles::of(&history);
        assert!(!troubles.outage(ms(5), ms(9)));
        assert!(troubles.outage(ms(35), ms(36)));
        assert!(!troubles.outage(ms(41), ms(50)));
    }

    #[test]
    fn kill_of_a_process_that_runs_heals_nothing_else() {
        let history = [
            trouble(10, "faults", Trouble::Began("cut".into())),
            trouble(20, "worker 1", Trouble::Killed),
            trouble(30, "faults", Trouble::Healed("cut".into())),
        ];
        let troubles = Troubles::of(&history);
        assert!(troubles.active(ms(25), ms(26)));
        assert!(!troubles.active(ms(31), ms(32)));
    }
}
