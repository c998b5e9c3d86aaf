//! What is broken during a run, and when: decided beforehand, out of what the harness can break.

use std::fmt;
use std::time::Duration;

use super::draft::Draft;
use super::kind::Kind;
use super::script::{ClientPlan, Place};
use super::theme::Theme;
use crate::case::Fault;

/// What belongs to a theme, besides the processes.
const fn breakages(theme: Theme) -> &'static [(Fault, Breakage)] {
    match theme {
        Theme::Calm => &[],
        Theme::Clients => CLIENTS,
        Theme::Server => SERVER,
        Theme::DataLoss => &[(Fault::Wipe, Breakage::LoseData)],
        Theme::Failover => FAILOVER,
        Theme::Clock => CLOCK,
    }
}

const CLIENTS: &[(Fault, Breakage)] = &[
    (Fault::Cut, Breakage::Cut),
    (Fault::Reset, Breakage::Reset),
    (Fault::Delay, Breakage::Slow),
    (Fault::BlackHole, Breakage::BlackHole),
    (Fault::HoldReplies, Breakage::HoldReplies),
    (Fault::DropReplies, Breakage::DropReplies),
    (Fault::DropPushes, Breakage::DropPushes),
    (Fault::FlushScripts, Breakage::FlushScripts),
    (Fault::HalfOpen, Breakage::HalfOpen),
    (Fault::DropRequest, Breakage::LoseRequest),
];

const SERVER: &[(Fault, Breakage)] = &[
    (Fault::Kill, Breakage::KillServer),
    (Fault::Pause, Breakage::PauseServer),
    (Fault::Cut, Breakage::Cut),
    (Fault::DropReplies, Breakage::DropReplies),
    (Fault::Compact, Breakage::Compact),
    (Fault::MoveLeader, Breakage::MoveLeader),
    (Fault::Reconfigure, Breakage::Reconfigure),
];

const FAILOVER: &[(Fault, Breakage)] = &[
    (Fault::Failover, Breakage::FailOver),
    (Fault::StopReplication, Breakage::FailOverLate),
    (Fault::MoveLeader, Breakage::MoveLeader),
    (Fault::Cut, Breakage::Cut),
    (Fault::DropReplies, Breakage::DropReplies),
];

/// Shorter than what a server remembers of an unused lock: what it forgets is a matter of [`Theme::DataLoss`].
const CLOCK: &[(Fault, Breakage)] = &[
    (Fault::StepClock, Breakage::StepClock(-4)),
    (Fault::StepClock, Breakage::StepClock(-1)),
    (Fault::StepClock, Breakage::StepClock(0)),
    (Fault::StepClock, Breakage::StepClock(1)),
    (Fault::StepClock, Breakage::StepClock(4)),
    (Fault::Cut, Breakage::Cut),
];

/// Something that is broken, and made whole again where that takes anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Breakage {
    /// The server is killed, and started again with its data.
    KillServer,
    /// The server is stopped in its tracks.
    PauseServer,
    /// The server forgets every lock.
    LoseData,
    /// The server forgets what clients have uploaded for speed.
    FlushScripts,
    /// Every proxied connection is cut.
    Cut,
    /// Every proxied connection is reset.
    Reset,
    /// Everything takes a while to arrive.
    Slow,
    /// Nothing passes.
    BlackHole,
    /// Replies are kept, and delivered later.
    HoldReplies,
    /// Replies are thrown away.
    DropReplies,
    /// Notifications are thrown away.
    DropPushes,
    /// The server closes every proxied connection, and clients are not told.
    HalfOpen,
    /// The next request, and what is behind it on its connection, never arrives.
    LoseRequest,
    /// The server forgets all changes of the past.
    Compact,
    /// Another member leads.
    MoveLeader,
    /// The server's settings are changed while it runs.
    Reconfigure,
    /// A request about this lock is held, with what is behind it on its connection, and arrives when the
    /// client has gone on without an answer.
    HoldRequest(usize),
    /// The server that leads dies, and another with all its data takes its place.
    FailOver,
    /// The same, and what was written last has not reached the other.
    FailOverLate,
    /// The server's wall clock is set to the true time plus so many seconds.
    StepClock(i64),
    /// The session or lease that holds this lock is ended.
    EndSession(usize),
    /// This worker process is stopped past its lease.
    PauseWorker(usize),
    /// This worker process is killed.
    KillWorker(usize),
    /// An operator breaks whoever holds this lock.
    Break(usize),
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultStep {
    /// When it begins, from the start of the run.
    pub at: Duration,
    /// How long it lasts, where that means anything.
    pub lasts: Duration,
    /// What is broken.
    pub what: Breakage,
}

impl fmt::Display for FaultStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?} for {:?}: {}", self.at, self.lasts, self.what)
    }
}

impl fmt::Display for Breakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillServer => f.write_str("server killed"),
            Self::PauseServer => f.write_str("server stopped"),
            Self::LoseData => f.write_str("data lost"),
            Self::FlushScripts => f.write_str("scripts forgotten"),
            Self::Cut => f.write_str("connections cut"),
            Self::Reset => f.write_str("connections reset"),
            Self::Slow => f.write_str("network slow"),
            Self::BlackHole => f.write_str("black hole"),
            Self::HoldReplies => f.write_str("replies held"),
            Self::DropReplies => f.write_str("replies dropped"),
            Self::DropPushes => f.write_str("notifications dropped"),
            Self::HalfOpen => f.write_str("connections half-open"),
            Self::LoseRequest => f.write_str("request lost"),
            Self::Compact => f.write_str("history compacted"),
            Self::MoveLeader => f.write_str("leader moved"),
            Self::Reconfigure => f.write_str("server reconfigured"),
            Self::HoldRequest(lock) => write!(f, "request about lock {lock} held"),
            Self::FailOver => f.write_str("failover"),
            Self::FailOverLate => f.write_str("failover that loses what was written last"),
            Self::StepClock(seconds) => write!(f, "clock set {seconds} s off"),
            Self::EndSession(lock) => write!(f, "session of lock {lock} ended"),
            Self::PauseWorker(worker) => write!(f, "worker {worker} stopped"),
            Self::KillWorker(worker) => write!(f, "worker {worker} killed"),
            Self::Break(lock) => write!(f, "lock {lock} broken"),
        }
    }
}

/// Draws the faults of a run, one after the other.
pub(super) fn schedule(
    draft: &mut Draft<'_>,
    kind: Kind,
    names: usize,
    clients: &[ClientPlan],
) -> Vec<FaultStep> {
    let possible = possible(draft, kind, names, clients);
    if possible.is_empty() {
        return Vec::new();
    }
    let mut killed = Vec::new();
    let mut steps = Vec::new();
    let mut at = draft.ms(200..900);
    while at < draft.setting.length {
        let what = possible[draft.rng.usize(0..possible.len())];
        let lasts = lasting(draft, what);
        match what {
            Breakage::PauseWorker(worker) if killed.contains(&worker) => {}
            Breakage::KillWorker(worker) if killed.contains(&worker) => {}
            _ => steps.push(FaultStep { at, lasts, what }),
        }
        if let Breakage::KillWorker(worker) = what {
            killed.push(worker);
        }
        at += lasts + draft.ms(150..1200);
    }
    steps
}

fn possible(draft: &Draft<'_>, kind: Kind, names: usize, clients: &[ClientPlan]) -> Vec<Breakage> {
    let setting = draft.setting;
    let workers = clients
        .iter()
        .filter(|client| client.place == Place::Worker)
        .count();
    let pauses = (0..workers).map(Breakage::PauseWorker);
    if kind == Kind::Paused && setting.theme == Theme::Calm {
        return pauses.collect();
    }
    let of_the_theme = breakages(setting.theme).iter();
    let mut possible: Vec<Breakage> = of_the_theme
        .filter(|(fault, _)| setting.faults.contains(fault))
        .map(|(_, breakage)| *breakage)
        .collect();
    if setting.theme == Theme::Calm {
        return possible;
    }
    if setting.theme == Theme::DataLoss && setting.faults.contains(&Fault::KillSession) {
        possible.extend((0..names.min(2)).map(Breakage::EndSession));
    }
    // One worker process is left to go on.
    possible.extend((1..workers).map(Breakage::KillWorker));
    possible.extend(pauses);
    if setting.theme == Theme::Clients {
        let few = 0..names.min(2);
        if setting.faults.contains(&Fault::HoldRequest) {
            possible.extend(few.clone().map(Breakage::HoldRequest));
        }
        if setting.breaks {
            possible.extend(few.map(Breakage::Break));
        }
    }
    possible
}

fn lasting(draft: &mut Draft<'_>, what: Breakage) -> Duration {
    match what {
        Breakage::PauseWorker(_) | Breakage::PauseServer => {
            let ttl = draft.ttl.min(Duration::from_secs(4));
            draft.part(ttl, 20..180)
        }
        Breakage::KillServer | Breakage::FailOverLate => draft.ms(50..1000),
        // Also for longer than an operation may take: then the client has gone on.
        Breakage::HoldRequest(_) => draft.ms(100..6000),
        Breakage::BlackHole
        | Breakage::Slow
        | Breakage::HoldReplies
        | Breakage::DropReplies
        | Breakage::DropPushes
        | Breakage::HalfOpen
        | Breakage::LoseRequest => draft.ms(100..3000),
        Breakage::LoseData
        | Breakage::FailOver
        | Breakage::StepClock(_)
        | Breakage::EndSession(_)
        | Breakage::Compact
        | Breakage::MoveLeader
        | Breakage::Reconfigure
        | Breakage::FlushScripts
        | Breakage::Cut
        | Breakage::Reset
        | Breakage::KillWorker(_)
        | Breakage::Break(_) => Duration::ZERO,
    }
}
