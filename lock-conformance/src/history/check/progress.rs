//! P7: bounded progress after healing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::Violation;
use crate::history::event::{Event, Trouble, What};

/// **P7**: when nothing is broken, and whatever was has been healed for `bound`, a lock that is free and
/// that somebody waits for is granted within `bound`.
///
/// Whoever is refused with an error, and asks again, has been waiting all the time.
///
/// A lock is free when nobody holds it as far as the history says. So `bound` has to cover the lease of
/// a holder that died.
///
/// # Errors
/// The first lock that stayed free for longer, with the waiter that had waited longest.
pub fn check_progress(events: &[Event], bound: Duration) -> Result<(), Violation> {
    let mut locks: BTreeMap<&str, Lock<'_>> = BTreeMap::new();
    let mut failing = Failing::default();
    let mut broken = 0_usize;
    let mut paused = HashSet::new();
    for event in events {
        if let What::Trouble(trouble) = &event.what {
            let was_broken = broken > 0 || !paused.is_empty();
            match trouble {
                Trouble::Began { .. } => broken += 1,
                Trouble::Healed(_) => broken = broken.saturating_sub(1),
                Trouble::Paused => drop(paused.insert(event.process())),
                // Who is killed while it is paused does not come back.
                Trouble::Resumed | Trouble::Killed => drop(paused.remove(event.process())),
                Trouble::Stalled { .. } => continue,
                Trouble::DataLost { .. } | Trouble::Broke { .. } => {}
            }
            let is_broken = broken > 0 || !paused.is_empty();
            failing.0.clear();
            for lock in locks.values_mut() {
                if !was_broken {
                    lock.judge(event.at, bound)?;
                }
                if *trouble == Trouble::Killed {
                    lock.forget(event.process());
                }
                lock.count_from(event.at, is_broken);
            }
            continue;
        }
        let lock = locks.entry(&event.name).or_default();
        lock.judge(event.at, bound)?;
        let since = failing.take(event, lock.idle_since);
        if lock.take(event) {
            let since = since.unwrap_or(event.at);
            lock.count_from(since, broken > 0 || !paused.is_empty());
        }
    }
    let end = events.last().map_or(Duration::ZERO, |event| event.at);
    locks.values().try_for_each(|lock| lock.judge(end, bound))
}

/// Who was refused with an error when it last asked: by which lock, and since when that had been free.
#[derive(Default)]
struct Failing<'a>(HashMap<&'a str, (&'a str, Duration)>);

impl<'a> Failing<'a> {
    /// If somebody asks again who was refused: since when the lock has been free, which is `idle` now.
    fn take(&mut self, event: &'a Event, idle: Option<Duration>) -> Option<Duration> {
        let (who, name) = (event.who.as_str(), event.name.as_str());
        match &event.what {
            What::Asked { waits: true } => {
                let (of, since) = self.0.remove(who)?;
                (of == name).then_some(since)
            }
            What::Granted { .. } => {
                self.0.retain(|asker, (of, _)| *asker != who && *of != name);
                None
            }
            What::Refused { why, .. } if why.is_error() => {
                let since = idle?;
                self.0.insert(who, (name, since));
                None
            }
            _ => None,
        }
    }
}

/// **P7**, of a history in which nothing was broken, and nobody paused or killed: a lock that is free and
/// wanted is granted within `bound`, a lost wake-up included. For as long as the machine did not run some process it
/// may take longer.
///
/// Says nothing of any other history.
///
/// # Errors
/// As [`check_progress`].
pub fn check_prompt(events: &[Event], bound: Duration) -> Result<(), Violation> {
    let mut stalled = Duration::ZERO;
    for event in events {
        match &event.what {
            What::Trouble(Trouble::Stalled { since }) => {
                stalled += event.at.saturating_sub(*since);
            }
            What::Trouble(_) => return Ok(()),
            // Nobody renews it, and nobody need give it up.
            What::Leased { kept: false, .. } => return Ok(()),
            _ => {}
        }
    }
    check_progress(events, bound + stalled)
}

/// What is known of one lock at one time.
#[derive(Default)]
struct Lock<'a> {
    waiting: HashMap<(&'a str, Duration), &'a Event>,
    holding: HashMap<u64, &'a Event>,
    gone: HashSet<&'a str>,
    /// Since when it has been free, wanted, and in nobody's way.
    idle_since: Option<Duration>,
}

impl<'a> Lock<'a> {
    /// Whether the event says anything about who holds and who waits.
    fn take(&mut self, event: &'a Event) -> bool {
        match event.what {
            What::Asked { waits: true } => {
                // What a process wrote down before it was killed may arrive after the news of that.
                if !self.gone.contains(event.process()) {
                    self.waiting.insert((&event.who, event.at), event);
                }
                // One more waiter does not start the time of the others again.
                return self.idle_since.is_none();
            }
            What::Granted { asked, token } => {
                self.waiting.remove(&(event.who.as_str(), asked));
                // Nobody would ever give it up: it is free from now on.
                if !self.gone.contains(event.process()) {
                    self.holding.insert(token, event);
                }
            }
            What::Refused { asked, .. } => {
                self.waiting.remove(&(event.who.as_str(), asked));
                return self.waiting.is_empty();
            }
            What::Releasing { token } | What::Lost { token, .. } => {
                if self.holding.remove(&token).is_none() {
                    return false;
                }
            }
            _ => return false,
        }
        true
    }

    fn forget(&mut self, process: &'a str) {
        self.gone.insert(process);
        self.waiting.retain(|_, asked| asked.process() != process);
        self.holding
            .retain(|_, granted| granted.process() != process);
    }

    fn count_from(&mut self, at: Duration, broken: bool) {
        let idle = !broken && self.holding.is_empty() && !self.waiting.is_empty();
        self.idle_since = idle.then_some(at);
    }

    fn judge(&self, at: Duration, bound: Duration) -> Result<(), Violation> {
        let Some(idle) = self.idle_since.map(|since| at.saturating_sub(since)) else {
            return Ok(());
        };
        let longest = self.waiting.values().min_by_key(|asked| asked.at);
        match longest {
            Some(longest) if idle > bound => Err(Violation::new(
                "P7",
                format!("a free lock was not granted to its waiters for {idle:.1?}"),
                &[longest],
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{Loss, Refusal};
    use crate::history::sample::*;

    fn check(history: &[Event]) -> Result<(), Violation> {
        check_progress(history, ms(100))
    }

    fn end(at: u64) -> Event {
        event(at, "suite", What::Note("the end".into()))
    }

    fn cut(at: u64) -> Event {
        began_to_be_cut(at, &["a"])
    }

    #[test]
    fn waiter_that_a_free_lock_is_not_granted_is_found() {
        assert_eq!(violated(check(&[asks(0, "a"), end(101)])), "P7");
        assert_eq!(check(&[asks(0, "a"), end(100)]), Ok(()));
    }

    #[test]
    fn late_grant_is_found_as_well() {
        let history = [asks(0, "a"), granted(0, 150, "a", 1)];
        assert_eq!(violated(check(&history)), "P7");
    }

    #[test]
    fn others_that_come_meanwhile_do_not_start_the_time_again() {
        let history = [asks(0, "a"), asks(60, "b"), end(101)];
        assert_eq!(violated(check(&history)), "P7");
    }

    #[test]
    fn whoever_is_refused_with_errors_and_asks_again_has_been_waiting() {
        let again = |at| {
            [
                asks(0, "a"),
                refused(0, 40, "a", Refusal::Unavailable),
                asks(60, "a"),
                refused(60, 90, "a", Refusal::Indeterminate),
                asks(95, "a"),
                end(at),
            ]
        };
        assert_eq!(check(&again(100)), Ok(()));
        assert_eq!(violated(check(&again(101))), "P7");
    }

    #[test]
    fn two_who_are_refused_by_turns_have_both_been_waiting() {
        let mut history = Vec::new();
        for turn in 0..6 {
            let (who, asked) = (["a", "b"][turn % 2], 20 * turn as u64);
            history.push(asks(asked, who));
            history.push(refused(asked, asked + 10, who, Refusal::Unavailable));
        }
        history.push(asks(121, "a"));
        history.push(end(122));
        assert_eq!(violated(check(&history)), "P7");
    }

    #[test]
    fn whoever_was_served_or_went_elsewhere_meanwhile_has_not_been_waiting() {
        let history = [
            asks(0, "a"),
            refused(0, 40, "a", Refusal::Unavailable),
            asks(60, "a"),
            granted(60, 70, "a", 1),
            releasing(80, "a", 1),
            asks(150, "a"),
            granted(150, 240, "a", 2),
        ];
        assert_eq!(check(&history), Ok(()));
        let elsewhere = |event: Event| Event {
            name: "other".to_owned(),
            ..event
        };
        let history = [
            asks(0, "a"),
            refused(0, 40, "a", Refusal::Unavailable),
            elsewhere(asks(60, "a")),
            elsewhere(granted(60, 70, "a", 1)),
            elsewhere(releasing(140, "a", 1)),
            asks(150, "a"),
            end(240),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn waiter_behind_a_holder_waits_for_as_long_as_that_holds() {
        let history = [
            asks(0, "b"),
            granted(0, 10, "a", 1),
            releasing(500, "a", 1),
            granted(0, 590, "b", 2),
        ];
        assert_eq!(check(&history), Ok(()));
        let history = [
            asks(0, "b"),
            granted(0, 10, "a", 1),
            lost(500, "a", 1, Loss::Expired),
            granted(0, 610, "b", 2),
        ];
        assert_eq!(violated(check(&history)), "P7");
    }

    #[test]
    fn time_counts_from_the_last_healing_on() {
        let good = [asks(0, "a"), cut(50), healed(500), granted(0, 599, "a", 1)];
        assert_eq!(check(&good), Ok(()));
        let bad = [asks(0, "a"), cut(50), healed(500), granted(0, 601, "a", 1)];
        assert_eq!(violated(check(&bad)), "P7");
    }

    #[test]
    fn two_faults_are_healed_when_both_are() {
        let both = |last| {
            [
                asks(0, "a"),
                cut(10),
                cut(20),
                healed(30),
                healed(500),
                granted(0, last, "a", 1),
            ]
        };
        assert_eq!(check(&both(590)), Ok(()));
        assert_eq!(violated(check(&both(610))), "P7");
    }

    #[test]
    fn whoever_gives_up_and_whoever_is_killed_wants_nothing_any_more() {
        let gave_up = [
            asks(0, "a"),
            refused(0, 90, "a", Refusal::TimedOut),
            end(500),
        ];
        assert_eq!(check(&gave_up), Ok(()));
        let killed = [
            asks(0, "worker 1.0"),
            trouble(90, "worker 1", Trouble::Killed),
            end(500),
        ];
        assert_eq!(check(&killed), Ok(()));
    }

    #[test]
    fn lock_of_a_holder_that_was_killed_is_free_from_then_on() {
        let history = |at| {
            [
                asks(0, "b"),
                granted(0, 10, "worker 1.0", 1),
                trouble(300, "worker 1", Trouble::Killed),
                granted(0, at, "b", 2),
            ]
        };
        assert_eq!(check(&history(390)), Ok(()));
        assert_eq!(violated(check(&history(410))), "P7");
    }

    #[test]
    fn grant_that_a_killed_process_wrote_down_last_does_not_keep_the_lock() {
        let history = |at| {
            [
                asks(0, "b"),
                asks(0, "worker 1.0"),
                trouble(90, "worker 1", Trouble::Killed),
                granted(0, 91, "worker 1.0", 1),
                granted(0, at, "b", 2),
            ]
        };
        assert_eq!(check(&history(191)), Ok(()));
        assert_eq!(violated(check(&history(192))), "P7");
    }

    #[test]
    fn process_that_is_killed_while_it_is_paused_breaks_nothing_any_more() {
        let history = |at| {
            [
                trouble(10, "worker 1", Trouble::Paused),
                trouble(20, "worker 1", Trouble::Killed),
                asks(30, "b"),
                granted(30, at, "b", 1),
            ]
        };
        assert_eq!(check(&history(130)), Ok(()));
        assert_eq!(violated(check(&history(131))), "P7");
    }

    #[test]
    fn tries_wait_for_nothing() {
        assert_eq!(check(&[tries(0, "a"), end(500)]), Ok(()));
    }
}
