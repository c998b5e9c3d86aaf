//! A claim that stands in the queue, and who is before it.

use std::time::Duration;

use lock_core::BootInstant;

/// How often the first in the queue looks by itself, in case a deletion was not heard of.
const LOOK: Duration = Duration::from_millis(750);
/// Those behind look less often, in proportion to their place, up to so much less.
const SLOWEST: u32 = 8;

/// Whoever is right before a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ahead {
    pub(crate) key: Vec<u8>,
    /// The revision at which the key was created.
    pub(crate) created: i64,
    /// What the keys of that client for the name begin with.
    pub(crate) start: Vec<u8>,
    /// Whether it holds the lock, rather than waits itself.
    pub(crate) holds: bool,
    /// The revision at which all this was so.
    pub(crate) seen: i64,
    /// How many are before the claim, at most.
    pub(crate) place: u32,
}

/// A place in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) ahead: Ahead,
    /// When it is to be looked at; `None` while somebody does.
    pub(crate) due: Option<BootInstant>,
    /// Whether it is looked at because something was heard, and not only because time has passed.
    pub(crate) told: bool,
}

impl Wait {
    pub(crate) fn new(ahead: Ahead, now: BootInstant) -> Self {
        let due = Some(now + ahead.patience());
        Self {
            ahead,
            due,
            told: false,
        }
    }

    /// Something was heard: it is looked at as soon as possible.
    pub(crate) fn look_now(&mut self, now: BootInstant) {
        self.due = Some(now);
        self.told = true;
    }

    /// It was looked at, and nothing has changed but who holds, perhaps.
    pub(crate) fn looked(&mut self, ahead: Ahead, now: BootInstant) {
        let place = self.ahead.place.min(ahead.place);
        self.ahead = Ahead { place, ..ahead };
        let due = now + self.ahead.patience();
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

impl Ahead {
    fn patience(&self) -> Duration {
        let place = if self.holds { 1 } else { self.place };
        LOOK * place.clamp(1, SLOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(holds: bool, place: u32) -> Ahead {
        Ahead {
            key: b"k".to_vec(),
            created: 1,
            start: b"".to_vec(),
            holds,
            seen: 1,
            place,
        }
    }

    #[test]
    fn those_behind_look_less_often_up_to_a_bound() {
        let now = BootInstant::from_origin(Duration::from_secs(1));
        let due = |holds, place| Wait::new(ahead(holds, place), now).due;
        assert_eq!(due(true, 9), Some(now + LOOK));
        assert_eq!(due(false, 3), Some(now + LOOK * 3));
        assert_eq!(due(false, 1000), Some(now + LOOK * SLOWEST));
    }

    #[test]
    fn place_never_rises_and_an_earlier_look_is_kept() {
        let now = BootInstant::from_origin(Duration::from_secs(1));
        let mut wait = Wait::new(ahead(false, 2), now);
        wait.due = Some(now);
        wait.looked(ahead(false, 7), now);
        assert_eq!(wait.ahead.place, 2);
        assert_eq!(wait.due, Some(now));
    }
}
