//! What was broken when, as far as a history says.

use std::collections::HashMap;
use std::time::Duration;

use super::event::{Event, Hits, Trouble, What, process_of};

type Span = (Duration, Duration);

/// The troubles of a history.
#[derive(Debug, Default)]
pub(super) struct Troubles<'a> {
    /// When a process did not run, in the order of time.
    idle: HashMap<&'a str, Vec<Span>>,
    /// When it was paused, of these.
    paused: HashMap<&'a str, Vec<Span>>,
    killed: HashMap<&'a str, Duration>,
    losses: Vec<Span>,
    breaks: HashMap<(&'a str, u64), Span>,
    /// When requests of anybody may go without an answer: in order, and disjoint.
    outages: Vec<Span>,
    /// When those of one process may: in order, and disjoint.
    cut_off: HashMap<&'a str, Vec<Span>>,
}

/// A machine on which a process does not run for so long is too busy for answers in time.
const BUSY: Duration = Duration::from_millis(500);

impl<'a> Troubles<'a> {
    pub(super) fn of(events: &'a [Event]) -> Self {
        let mut troubles = Self::default();
        let mut paused: HashMap<&str, Duration> = HashMap::new();
        let mut broken: Vec<(Duration, &Hits)> = Vec::new();
        for event in events {
            let What::Trouble(trouble) = &event.what else {
                continue;
            };
            let (who, at) = (event.process(), event.at);
            match trouble {
                Trouble::Began { hits, .. } => broken.push((at, hits)),
                Trouble::Healed(_) => {
                    if let Some((since, hits)) = broken.pop() {
                        troubles.hit(hits, (since, at));
                    }
                }
                Trouble::Paused => drop(paused.insert(who, at)),
                Trouble::Resumed | Trouble::Killed => {
                    // Who is killed while it is paused does not come back either.
                    if let Some(since) = paused.remove(who) {
                        troubles.paused.entry(who).or_default().push((since, at));
                    }
                    if *trouble == Trouble::Killed {
                        troubles.killed.entry(who).or_insert(at);
                    }
                }
                Trouble::Stalled { since } => {
                    troubles.idle.entry(who).or_default().push((*since, at));
                    if at.saturating_sub(*since) > BUSY {
                        troubles.outages.push((*since, at));
                    }
                }
                Trouble::DataLost { since } => {
                    troubles.losses.push((*since, at));
                    troubles.outages.push((*since, at));
                }
                Trouble::Broke { token, since } => {
                    let broke = troubles.breaks.entry((&event.name, *token));
                    broke.or_insert((*since, at));
                }
            }
        }
        let end = Duration::MAX;
        for (since, hits) in broken {
            troubles.hit(hits, (since, end));
        }
        for (who, since) in paused {
            troubles.paused.entry(who).or_default().push((since, end));
        }
        for (who, spans) in &troubles.paused {
            troubles.idle.entry(who).or_default().extend(spans);
        }
        make_disjoint(&mut troubles.outages);
        let by_process = [
            &mut troubles.idle,
            &mut troubles.paused,
            &mut troubles.cut_off,
        ];
        for spans in by_process.into_iter().flat_map(HashMap::values_mut) {
            make_disjoint(spans);
        }
        troubles
    }

    fn hit(&mut self, hits: &'a Hits, span: Span) {
        match hits {
            Hits::Everybody => self.outages.push(span),
            Hits::These(processes) => {
                for who in processes {
                    self.cut_off.entry(who).or_default().push(span);
                }
            }
        }
    }

    /// Whether `who` may not have been running at some time between `from` and `to`.
    pub(super) fn idle(&self, who: &str, from: Duration, to: Duration) -> bool {
        during(&self.idle, who, from, to)
    }

    /// Whether `who` was paused at some time between `from` and `to`.
    pub(super) fn paused(&self, who: &str, from: Duration, to: Duration) -> bool {
        during(&self.paused, who, from, to)
    }

    /// For how long in all `who` was not running between `from` and `to`.
    pub(super) fn idle_for(&self, who: &str, from: Duration, to: Duration) -> Duration {
        let spans = self.idle.get(process_of(who));
        let inside = |(begin, end): &Span| (*end).min(to).saturating_sub((*begin).max(from));
        spans.into_iter().flatten().map(inside).sum()
    }

    /// When `who` was killed.
    pub(super) fn killed(&self, who: &str) -> Option<Duration> {
        self.killed.get(process_of(who)).copied()
    }

    /// Whether requests of `who` could go without an answer between `from` and `to`: the server or the way to
    /// it was broken, or the machine too busy to answer. What happens to another process is no outage.
    pub(super) fn outage(&self, who: &str, from: Duration, to: Duration) -> bool {
        overlaps(&self.outages, from, to) || during(&self.cut_off, who, from, to)
    }

    /// Whether anything kept `who` from what it was about between `from` and `to`.
    pub(super) fn disturbed(&self, who: &str, from: Duration, to: Duration) -> bool {
        self.outage(who, from, to) || self.idle(who, from, to)
    }

    /// Whether an operator broke a hold of `name` between `from` and `to`.
    pub(super) fn broke(&self, name: &str, from: Duration, to: Duration) -> bool {
        let of_name = self.breaks.iter().filter(|((of, _), _)| *of == name);
        of_name
            .map(|(_, span)| span)
            .any(|(begin, end)| *begin <= to && from <= *end)
    }

    /// From when on a hold that was asked for at `asked` may have been taken by a declared
    /// exception. A request that was under way during a loss of data may have been granted before it.
    pub(super) fn undone(&self, name: &str, token: u64, asked: Duration) -> Option<Duration> {
        let lost = self.losses.iter().find(|(_, to)| asked <= *to);
        let lost = lost.map(|(from, _)| *from);
        let broken = self.breaks.get(&(name, token)).map(|(since, _)| *since);
        match (lost, broken) {
            (Some(lost), Some(broken)) => Some(lost.min(broken)),
            (one, other) => one.or(other),
        }
    }
}

fn make_disjoint(spans: &mut Vec<Span>) {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for (from, to) in spans.drain(..) {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    *spans = merged;
}

fn during(spans: &HashMap<&str, Vec<Span>>, who: &str, from: Duration, to: Duration) -> bool {
    let spans = spans.get(process_of(who));
    spans.is_some_and(|spans| overlaps(spans, from, to))
}

fn overlaps(spans: &[Span], from: Duration, to: Duration) -> bool {
    let first = spans.partition_point(|(_, end)| *end < from);
    spans.get(first).is_some_and(|(begin, _)| *begin <= to)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{began_to_be_cut, broke_down, healed, ms, trouble};
    use super::*;

    #[test]
    fn pause_ends_with_a_kill_as_with_a_resumption() {
        for end in [Trouble::Resumed, Trouble::Killed] {
            let history = [
                trouble(10, "worker 1", Trouble::Paused),
                trouble(20, "worker 1", end),
            ];
            let troubles = Troubles::of(&history);
            assert!(troubles.paused("worker 1.0", ms(15), ms(16)));
            assert!(troubles.idle("worker 1.0", ms(15), ms(16)));
            assert!(!troubles.idle("worker 1.0", ms(21), ms(22)));
            assert_eq!(troubles.idle_for("worker 1.0", ms(12), ms(30)), ms(8));
        }
    }

    #[test]
    fn stall_is_no_pause() {
        let since = ms(10);
        let history = [trouble(70, "a", Trouble::Stalled { since })];
        let troubles = Troubles::of(&history);
        assert!(troubles.idle("a.1", ms(20), ms(21)));
        assert!(!troubles.paused("a.1", ms(20), ms(21)));
    }

    #[test]
    fn outage_hits_whom_it_is_said_to_hit_until_it_is_healed() {
        let history = [
            broke_down(10),
            began_to_be_cut(20, &["client 1"]),
            trouble(25, "worker 2", Trouble::Killed),
            healed(30),
            healed(40),
        ];
        let troubles = Troubles::of(&history);
        assert!(troubles.outage("client 0", ms(35), ms(36)));
        assert!(!troubles.outage("client 0", ms(41), ms(50)));
        let only = [began_to_be_cut(20, &["client 1"]), healed(30)];
        let troubles = Troubles::of(&only);
        assert!(troubles.outage("client 1.3", ms(25), ms(26)));
        assert!(!troubles.outage("client 1.3", ms(31), ms(32)));
        assert!(!troubles.outage("client 0.3", ms(25), ms(26)));
    }
}
