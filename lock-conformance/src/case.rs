//! What a case is.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lock_core::{Capabilities, Error};

use crate::cases;
use crate::harness::Fault;
use crate::stand::Stand;

/// Every case of the suite, rule by rule.
pub static CASES: &[Case] = &cases::ALL;

/// One thing that a backend has to do, and the code that finds out whether it does.
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
    pub(crate) run: fn(Stand) -> BoxFuture<'static, Verdict>,
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

/// When a case runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tier {
    /// Always.
    Fast,
    /// With `LOCK_TEST_TIER=full`.
    Full,
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
pub struct Failure(String);

impl Failure {
    /// A failure that says `what`.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        let at = std::panic::Location::caller();
        Self(format!("{error} [{error:?}] at {at}"))
    }
}

impl From<std::io::Error> for Failure {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        let at = std::panic::Location::caller();
        Self(format!("{error} at {at}"))
    }
}

/// What a case answers.
pub(crate) type Verdict = Result<Outcome, Failure>;

/// The case that a function of this module is: its identifier, the function, and what it takes.
macro_rules! case {
    ($id:literal, $run:ident $(, $change:ident ( $($arg:expr),* ))* $(,)?) => {
        $crate::case::Case::base($id, stringify!($run), |stand| {
            Box::pin(async move { $run(stand).await.map(Into::into) })
        })
        $(.$change($($arg),*))*
    };
}
pub(crate) use case;

impl Case {
    pub(crate) const fn base(
        id: &'static str,
        name: &'static str,
        run: fn(Stand) -> BoxFuture<'static, Verdict>,
    ) -> Self {
        Self {
            id,
            name,
            needs: &[],
            tier: Tier::Fast,
            alone: false,
            deadline: Duration::from_secs(60),
            run,
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
