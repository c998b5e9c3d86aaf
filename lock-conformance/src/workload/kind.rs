//! The ways in which locks are loaded, one module each.

mod counter;
mod long_holds;
mod names;
mod paused;
mod queue;
mod register;
mod timeouts;
mod tries;

use std::fmt;

use super::draft::Draft;
use super::script::ClientPlan;

/// A way to load locks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A counter behind a lock, read and written by everybody.
    Counter,
    /// Nobody ever waits.
    Tries,
    /// Waits that end at random, by a deadline or by being dropped.
    Timeouts,
    /// Many locks at once, most of them free.
    Names,
    /// Holds of several leases, renewed all the time.
    LongHolds,
    /// Holders that are stopped past their lease and do not know it.
    Paused,
    /// A register that holders write after their lease has ended.
    Register,
    /// One waiter for each client, seen in the queue before others come.
    Queue,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::Counter,
        Self::Tries,
        Self::Timeouts,
        Self::Names,
        Self::LongHolds,
        Self::Paused,
        Self::Register,
        Self::Queue,
    ];

    /// Whether it is about leases that end, or are renewed many times.
    pub(super) const fn waits_for_ends(self) -> bool {
        match self {
            Self::LongHolds | Self::Paused | Self::Register => true,
            Self::Counter | Self::Tries | Self::Timeouts | Self::Names | Self::Queue => false,
        }
    }

    /// The locks, and who does what with them.
    pub(super) fn clients(self, draft: &mut Draft<'_>) -> (Vec<String>, Vec<ClientPlan>) {
        match self {
            Self::Counter => counter::clients(draft),
            Self::Tries => tries::clients(draft),
            Self::Timeouts => timeouts::clients(draft),
            Self::Names => names::clients(draft),
            Self::LongHolds => long_holds::clients(draft),
            Self::Paused => paused::clients(draft),
            Self::Register => register::clients(draft),
            Self::Queue => queue::clients(draft),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Counter => "counter",
            Self::Tries => "tries",
            Self::Timeouts => "timeouts",
            Self::Names => "names",
            Self::LongHolds => "long holds",
            Self::Paused => "paused holders",
            Self::Register => "register",
            Self::Queue => "queue",
        })
    }
}
