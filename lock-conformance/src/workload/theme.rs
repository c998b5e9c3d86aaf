//! Which kind of fault a run has.

use std::fmt;

use crate::case::Fault;

/// Which kind of fault a run has. They are not mixed at will: a loss of data suspends other promises
/// than a cut connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Theme {
    /// Nothing is broken but what the workload itself is about.
    Calm,
    /// Clients: their connections, their processes, and holds by operators.
    Clients,
    /// The server as well: it is killed, and comes back with its data, or is stopped for a while.
    Server,
    /// The server forgets every lock, or ends the session of one: a declared exception.
    DataLoss,
    /// The server that leads is killed, and another takes its place. Where that loses what was written
    /// last, it is a declared exception.
    Failover,
    /// The server's wall clock is stepped. Forward, which ends leases early where they hang on that
    /// clock, it is a declared exception.
    Clock,
}

impl Theme {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Calm,
        Self::Clients,
        Self::Server,
        Self::DataLoss,
        Self::Failover,
        Self::Clock,
    ];

    /// Whether there is anything to break under this theme, if there are the faults that `has` says.
    #[must_use]
    pub fn is_possible(self, has: impl Fn(Fault) -> bool) -> bool {
        match self {
            // Holds can be broken and processes killed without a fault hook.
            Self::Calm | Self::Clients => true,
            Self::Server => has(Fault::Kill) && has(Fault::Pause),
            Self::DataLoss => has(Fault::Wipe),
            Self::Failover => has(Fault::Failover),
            Self::Clock => has(Fault::StepClock),
        }
    }
}

impl fmt::Display for Theme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Calm => "calm",
            Self::Clients => "clients",
            Self::Server => "server",
            Self::DataLoss => "data loss",
            Self::Failover => "failover",
            Self::Clock => "clock",
        })
    }
}

/// What a schedule is drawn from.
pub(super) const KNOWN: [Fault; 21] = [
    Fault::Kill,
    Fault::Pause,
    Fault::Wipe,
    Fault::Cut,
    Fault::BlackHole,
    Fault::HoldReplies,
    Fault::DropReplies,
    Fault::DropPushes,
    Fault::FlushScripts,
    Fault::HalfOpen,
    Fault::DropRequest,
    Fault::KillSession,
    Fault::Compact,
    Fault::MoveLeader,
    Fault::Reconfigure,
    Fault::HoldRequest,
    Fault::Reset,
    Fault::Delay,
    Fault::Failover,
    Fault::StopReplication,
    Fault::StepClock,
];
