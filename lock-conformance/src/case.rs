//! What a case is.

use std::fmt;
use std::time::Duration;

use lock_core::{Capabilities, Error};
use serde::{Deserialize, Serialize};

/// One thing that a backend has to do. How it is found out is the suite's own affair.
#[derive(Clone, Copy)]
pub struct Case {
    /// Rule and number, such as `R1.03`. Never reused for another case.
    pub id: &'static str,
    /// What must hold, as a sentence.
    pub name: &'static str,
    /// What it takes to run; empty for a case that every backend must pass.
    pub needs: &'static [Need],
    /// When it runs.
    pub tier: Tier,
    /// Whether no other case may run meanwhile, because it measures or because it loads the machine.
    pub alone: bool,
    /// The longest it may take; a case that takes longer hangs.
    pub deadline: Duration,
}

impl Case {
    /// The rule of the contract that the case belongs to.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(rule, _)| rule)
    }

    /// Whether the case injects this fault.
    #[must_use]
    pub fn injects(&self, fault: Fault) -> bool {
        self.needs
            .iter()
            .any(|need| matches!(need, Need::Fault(wanted) if *wanted == fault))
    }

    /// The case as the runner lists it.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}::{}", self.id, self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)?;
        f.write_str("::")?;
        f.write_str(self.name)
    }
}

/// What a case cannot run without.
#[derive(Clone, Copy)]
pub enum Need {
    /// Something that the backend declares.
    Capability(&'static str, fn(&Capabilities) -> bool),
    /// Something that the harness can break.
    Fault(Fault),
    /// Worker processes.
    Processes,
}

impl fmt::Debug for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(what, _) => write!(f, "capability: {what}"),
            Self::Fault(fault) => write!(f, "fault: {}", fault.describe()),
            Self::Processes => f.write_str("worker processes"),
        }
    }
}

/// A way to break things, or to look behind the backend's back.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// [`Faults::kill_server`](crate::Faults::kill_server) and [`Faults::restart_server`](crate::Faults::restart_server).
    Kill,
    /// [`Faults::wipe`](crate::Faults::wipe).
    Wipe,
    /// [`Faults::pause_server`](crate::Faults::pause_server) and [`Faults::resume_server`](crate::Faults::resume_server).
    Pause,
    /// [`Faults::flush_scripts`](crate::Faults::flush_scripts).
    FlushScripts,
    /// [`Faults::step_clock`](crate::Faults::step_clock).
    StepClock,
    /// [`Faults::cut`](crate::Faults::cut).
    Cut,
    /// [`Faults::reset`](crate::Faults::reset).
    Reset,
    /// [`Faults::delay`](crate::Faults::delay).
    Delay,
    /// [`Faults::black_hole`](crate::Faults::black_hole).
    BlackHole,
    /// [`Faults::hold_replies`](crate::Faults::hold_replies).
    HoldReplies,
    /// [`Faults::drop_replies`](crate::Faults::drop_replies).
    DropReplies,
    /// [`Faults::drop_pushes`](crate::Faults::drop_pushes).
    DropPushes,
    /// [`Faults::hold_next_request`](crate::Faults::hold_next_request).
    HoldRequest,
    /// [`Faults::records`](crate::Faults::records) and [`Faults::unbounded_records`](crate::Faults::unbounded_records).
    Records,
    /// [`Faults::commands_during`](crate::Faults::commands_during), [`Faults::scripts`](crate::Faults::scripts), [`Faults::connections`](crate::Faults::connections) and
    /// [`Faults::subscriptions`](crate::Faults::subscriptions).
    Count,
    /// [`Faults::wrong_credentials`](crate::Faults::wrong_credentials).
    WrongCredentials,
    /// [`Faults::obstruct`](crate::Faults::obstruct).
    Obstruct,
    /// [`Faults::half_open`](crate::Faults::half_open).
    HalfOpen,
    /// [`Faults::drop_nth_request`](crate::Faults::drop_nth_request).
    DropRequest,
    /// [`Faults::kill_session`](crate::Faults::kill_session).
    KillSession,
    /// [`Faults::compact`](crate::Faults::compact).
    Compact,
    /// [`Faults::move_leader`](crate::Faults::move_leader).
    MoveLeader,
    /// [`Faults::fail_over`](crate::Faults::fail_over).
    Failover,
    /// [`Faults::stop_replication`](crate::Faults::stop_replication), with [`Self::Failover`].
    StopReplication,
    /// [`Faults::reconfigure`](crate::Faults::reconfigure).
    Reconfigure,
    /// [`Faults::witness`](crate::Faults::witness).
    Witness,
}

impl Fault {
    /// What a report says is missing.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Kill => "killing and restarting the server",
            Self::Wipe => "making the server lose its data",
            Self::Pause => "stopping and continuing the server",
            Self::FlushScripts => "making the server forget its scripts",
            Self::StepClock => "stepping the server's clock",
            Self::Cut => "cutting connections",
            Self::Reset => "resetting connections",
            Self::Delay => "a slow network",
            Self::BlackHole => "a connection on which nothing arrives",
            Self::HoldReplies => "holding replies back",
            Self::DropReplies => "dropping replies",
            Self::DropPushes => "dropping notifications",
            Self::HoldRequest => "holding a request back and delivering it later",
            Self::Records => "looking at the backend's own records",
            Self::Count => "counting commands at the server",
            Self::WrongCredentials => "connecting with wrong credentials",
            Self::Obstruct => "putting something else where a lock would be",
            Self::HalfOpen => "connections that only one side believes in",
            Self::DropRequest => "losing a request",
            Self::KillSession => "ending a session or lease from outside",
            Self::Compact => "making the server forget its history",
            Self::MoveLeader => "moving the leader in an orderly way",
            Self::Failover => "killing the leader for another to take its place",
            Self::StopReplication => "a failover that loses what was written last",
            Self::Reconfigure => "changing settings of a running server",
            Self::Witness => "reading the backend's own record of holds",
        }
    }
}

/// When a case runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Always.
    Fast,
    /// With `LOCK_TEST_TIER=full`.
    Full,
}

impl Tier {
    /// Whether a run of this tier has cases of the other in it.
    pub(crate) fn includes(self, case: Self) -> bool {
        self == Self::Full || case == Self::Fast
    }
}

/// How a case ended, if it did not fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// What must hold held.
    Passed,
    /// It could not be tried, for this reason.
    Skipped(String),
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

/// What did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    what: String,
    is_verdict: bool,
}

impl Failure {
    /// A failure that says `what`.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            is_verdict: true,
        }
    }

    /// A failure that says nothing of what must hold: the case hung, or panicked, or did not come as far as
    /// trying. No declared deviation covers it.
    pub(crate) fn no_verdict(what: impl Into<String>) -> Self {
        Self {
            is_verdict: false,
            ..Self::new(what)
        }
    }

    /// Whether it was seen that something does not hold.
    pub(crate) const fn is_verdict(&self) -> bool {
        self.is_verdict
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        let at = std::panic::Location::caller();
        Self::new(format!("{error} [{error:?}] at {at}"))
    }
}

impl From<std::io::Error> for Failure {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        let at = std::panic::Location::caller();
        Self::new(format!("{error} at {at}"))
    }
}

/// What a case answers.
pub(crate) type Verdict = Result<Outcome, Failure>;

impl Case {
    pub(crate) const fn base(id: &'static str, name: &'static str) -> Self {
        Self {
            id,
            name,
            needs: &[],
            tier: Tier::Fast,
            alone: false,
            deadline: Duration::from_secs(60),
        }
    }

    pub(crate) const fn needs(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    pub(crate) const fn full(mut self) -> Self {
        self.tier = Tier::Full;
        self
    }

    pub(crate) const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) const fn deadline(mut self, secs: u64) -> Self {
        self.deadline = Duration::from_secs(secs);
        self
    }
}
