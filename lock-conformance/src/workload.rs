//! Seeded workloads: what many clients do at random, and what is broken meanwhile.
//!
//! A [`Plan`] is made from a seed and says everything that is left to chance: who asks for what, when,
//! for how long, and which faults come when. The same seed gives the same plan, for the same backend.
//! What then happens is up to the backend and to the machine; it is written down as a history, and
//! [`check_workload`](crate::history::check_workload) says whether it can be. A [`Kind`] is one way to
//! load a lock.

mod draft;
mod drive;
mod faults;
mod kind;
mod look;
mod perform;
mod plan;
mod report;
mod run;
mod script;
mod stall;
mod theme;

pub use self::draft::Setting;
pub use self::faults::{Breakage, FaultStep};
pub use self::kind::Kind;
pub(crate) use self::perform::{Performer, Sink};
pub use self::plan::Plan;
pub(crate) use self::report::Tally;
pub(crate) use self::run::{SEED, run, seed};
pub use self::script::{Ask, ClientPlan, Leave, Place, Script, Step, Work};
pub(crate) use self::stall::watch_for_stalls;
pub use self::theme::Theme;
