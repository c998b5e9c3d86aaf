//! Until when the command may run: pure, no clock of its own.

use std::time::Duration;

use distlock::BootInstant;

use crate::cli::OnLost;

/// SIGKILL comes this much before the end of the validity: a signal takes a moment to end a process.
const KILL_LEAD: Duration = Duration::from_millis(20);
/// A lock that does not end while its process lives ends after more than this: a hundred years.
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// When the command's process group gets which signal, on the machine's suspend-aware clock, if
/// nothing renews the lock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Deadlines {
    /// SIGTERM; `None` for never.
    pub(crate) term: Option<BootInstant>,
    /// SIGKILL; `None` for never.
    pub(crate) kill: Option<BootInstant>,
}

impl Deadlines {
    /// For a lock whose validity ends at `end`.
    pub(crate) fn before(end: BootInstant, kill_after: Duration, on_lost: OnLost) -> Self {
        if end.since_origin() > AGES {
            return Self::default();
        }
        match on_lost {
            OnLost::Ignore => Self::default(),
            OnLost::Kill => Self {
                term: None,
                kill: Some(end.saturating_sub(KILL_LEAD)),
            },
            OnLost::Term => Self {
                term: Some(end.saturating_sub(kill_after.max(KILL_LEAD))),
                kill: Some(end.saturating_sub(KILL_LEAD)),
            },
        }
    }

    /// For a lock that was lost just now: at once, with the grace that is left.
    pub(crate) fn lost(self, now: BootInstant, kill_after: Duration, on_lost: OnLost) -> Self {
        match on_lost {
            OnLost::Ignore => self,
            OnLost::Kill => Self {
                term: None,
                kill: Some(now),
            },
            OnLost::Term => self.tightened(Self {
                term: Some(now),
                kill: Some(now + kill_after),
            }),
        }
    }

    /// The earlier of each.
    pub(crate) fn tightened(self, other: Self) -> Self {
        let earlier = |a: Option<BootInstant>, b: Option<BootInstant>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            term: earlier(self.term, other.term),
            kill: earlier(self.kill, other.kill),
        }
    }

    /// The next of them.
    pub(crate) fn next(self) -> Option<BootInstant> {
        self.tightened(Self {
            term: self.kill,
            kill: self.term,
        })
        .kill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant::from_origin(Duration::from_millis(millis))
    }

    const GRACE: Duration = Duration::from_secs(2);

    #[test]
    fn term_leaves_the_grace_and_kill_comes_before_the_end() {
        let deadlines = Deadlines::before(at(10_000), GRACE, OnLost::Term);
        assert_eq!(deadlines.term, Some(at(8_000)));
        assert_eq!(deadlines.kill, Some(at(9_980)));
        assert_eq!(deadlines.next(), Some(at(8_000)));
        let deadlines = Deadlines::before(at(10_000), GRACE, OnLost::Kill);
        assert_eq!((deadlines.term, deadlines.kill), (None, Some(at(9_980))));
    }

    #[test]
    fn without_grace_term_is_not_later_than_kill() {
        let deadlines = Deadlines::before(at(10_000), Duration::ZERO, OnLost::Term);
        assert!(deadlines.term <= deadlines.kill);
    }

    #[test]
    fn lock_without_an_end_and_a_command_that_ignores_the_loss_have_none() {
        let now = Duration::from_secs(7);
        // As a guard says it: what is left of it by now.
        let never = BootInstant::from_origin(now) + (Duration::MAX - now * 2);
        let none = Deadlines::default();
        assert_eq!(Deadlines::before(never, GRACE, OnLost::Term), none);
        assert_eq!(Deadlines::before(at(10_000), GRACE, OnLost::Ignore), none);
        assert_eq!(none.lost(at(1), GRACE, OnLost::Ignore), none);
        assert_eq!(none.next(), None);
    }

    #[test]
    fn loss_never_moves_a_deadline_back() {
        let before = Deadlines::before(at(10_000), GRACE, OnLost::Term);
        let early = before.lost(at(5_000), GRACE, OnLost::Term);
        assert_eq!((early.term, early.kill), (Some(at(5_000)), Some(at(7_000))));
        let late = before.lost(at(9_500), GRACE, OnLost::Term);
        assert_eq!((late.term, late.kill), (Some(at(8_000)), Some(at(9_980))));
    }
}
