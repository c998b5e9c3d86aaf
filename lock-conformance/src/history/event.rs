//! What is written down.

use std::fmt;
use std::time::Duration;

use lock_core::{Error, ErrorKind, LossReason, Released};
use serde::{Deserialize, Serialize};

/// Something that one client saw, or did, or that was done to it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    /// When it ended, on the machine's clock.
    pub at: Duration,
    /// Who saw it: a client or a worker process, and behind a dot which of its tasks.
    pub who: String,
    /// The lock.
    pub name: String,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum What {
    /// A request began. It is told from others of the same `who` by this event's time.
    Asked {
        /// Whether it waits for a lock that is held.
        waits: bool,
    },
    /// A lock was asked for at `asked` and granted at the event's time.
    Granted {
        /// When the request began.
        asked: Duration,
        /// The fencing token.
        token: u64,
    },
    /// A lock was asked for and not granted.
    Refused {
        /// When the request began.
        asked: Duration,
        /// Why not.
        why: Refusal,
    },
    /// The client was seen in the backend's queue, by a look that began at `looked` and whose answer
    /// was there at the event's time.
    Queued {
        /// When the look began.
        looked: Duration,
    },
    /// The hold with `token` has a lease of `ttl`.
    Leased {
        /// The fencing token.
        token: u64,
        /// The length of the lease, as asked for.
        ttl: Duration,
        /// Whether the client renews it for as long as it holds.
        kept: bool,
    },
    /// The holder of `token` was shown that it may act until then, if nothing renews its lease.
    Shown {
        /// The fencing token.
        token: u64,
        /// The end of the validity.
        until: Duration,
    },
    /// The holder of `token` asked at `began` whether it may still act.
    Checked {
        /// When the question was asked.
        began: Duration,
        /// The fencing token.
        token: u64,
        /// The answer.
        valid: bool,
    },
    /// The holder of `token` began to give it up. Stamped *before* the request.
    Releasing {
        /// The fencing token.
        token: u64,
    },
    /// Giving it up ended like this.
    Released {
        /// The fencing token.
        token: u64,
        /// How it ended.
        how: Left,
    },
    /// The holder of `token` was told that it holds no longer.
    Lost {
        /// The fencing token.
        token: u64,
        /// Why.
        why: Loss,
    },
    /// The resource answered a write that carried `token`.
    Wrote {
        /// The fencing token.
        token: u64,
        /// What the writer wrote.
        value: u64,
        /// Whether it was taken.
        accepted: bool,
    },
    /// When everybody had gone, the lock was looked at until it was at rest, or no longer.
    Rest {
        /// How many still held it.
        holders: usize,
        /// How many still waited for it.
        waiters: usize,
        /// Whether it could be had at once.
        free: bool,
    },
    /// Something was done to processes, the server, or the way between them.
    Trouble(Trouble),
    /// Anything else worth reading in a report.
    Note(String),
}

/// Why a request was not granted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Refusal {
    /// The backend said that somebody has the lock. A definite answer: the request did not win.
    Busy,
    /// The time for waiting was over.
    TimedOut,
    /// Whoever asked dropped the request.
    Cancelled,
    /// The backend could not be reached.
    Unavailable,
    /// Sent, but never answered. It may have won.
    Indeterminate,
    /// Any other error.
    Failed(String),
}

impl Refusal {
    /// Whether it is neither an answer about the lock nor the will of whoever asked.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self {
            Self::Busy | Self::TimedOut | Self::Cancelled => false,
            Self::Unavailable | Self::Indeterminate | Self::Failed(_) => true,
        }
    }
}

/// How giving up a lock ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Left {
    /// The backend took it back from its holder.
    Clean,
    /// It had been lost before.
    WasLost,
    /// No answer.
    Unknown,
    /// The guard was dropped, and nobody waited for what became of it.
    Dropped,
    /// Anything else.
    Other(String),
}

/// Why a hold ended without its holder's doing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Loss {
    /// Its validity ended.
    Expired,
    /// The backend said that it is not held, or its session ended.
    NotHeld,
    /// An operator broke it.
    Broken,
    /// The client ended it by itself: closed, or held for the longest time allowed.
    Local,
}

/// What was done to processes, to the server, or to the way between them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Trouble {
    /// Something was broken on purpose.
    Began {
        /// What.
        what: String,
        /// Whose requests may go without an answer because of it.
        hits: Hits,
    },
    /// It was made whole again.
    Healed(String),
    /// The process was stopped in its tracks.
    Paused,
    /// The process was let go on.
    Resumed,
    /// The process was killed.
    Killed,
    /// The process found that it had not been running since then, as one that is paused: the
    /// machine was busy with something else.
    Stalled {
        /// When it last ran.
        since: Duration,
    },
    /// The server was made to forget every lock, at some time since then.
    DataLost {
        /// When that began.
        since: Duration,
    },
    /// An operator broke the hold with this token, at some time since then.
    Broke {
        /// The token that was broken.
        token: u64,
        /// When that began.
        since: Duration,
    },
}

/// Whose requests may go without an answer because of something that was broken.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Hits {
    /// Anybody's.
    Everybody,
    /// Those of these processes and clients, if any.
    These(Vec<String>),
}

impl Event {
    /// The process, or the client inside of the suite's own process, that `who` is a task of.
    #[must_use]
    pub fn process(&self) -> &str {
        process_of(&self.who)
    }
}

pub(super) fn process_of(who: &str) -> &str {
    who.split_once('.').map_or(who, |(process, _)| process)
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Indeterminate => Self::Indeterminate,
            _ => Self::Failed(format!("{error:?}")),
        }
    }
}

impl From<&lock_core::Result<Released>> for Left {
    fn from(released: &lock_core::Result<Released>) -> Self {
        match released {
            Ok(Released::Clean) => Self::Clean,
            Ok(Released::WasLost(_)) => Self::WasLost,
            Ok(Released::Unknown { .. }) => Self::Unknown,
            other => Self::Other(format!("{other:?}")),
        }
    }
}

impl Loss {
    /// The loss that `reason` is; `None` for a release.
    #[must_use]
    pub fn of(reason: LossReason) -> Option<Self> {
        match reason {
            LossReason::Released => None,
            LossReason::Expired => Some(Self::Expired),
            LossReason::NotHeld | LossReason::SessionEnded => Some(Self::NotHeld),
            LossReason::Broken => Some(Self::Broken),
            _ => Some(Self::Local),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            who,
            name,
            what,
        } = self;
        write!(f, "{:>12.6} {who:<12} ", at.as_secs_f64())?;
        if !name.is_empty() {
            write!(f, "{name:?} ")?;
        }
        match what {
            What::Asked { waits: true } => f.write_str("asks and waits"),
            What::Asked { waits: false } => f.write_str("tries"),
            What::Granted { asked, token } => {
                let waited = at.saturating_sub(*asked);
                write!(f, "granted {token} after {waited:.1?}")
            }
            What::Refused { asked, why } => {
                let waited = at.saturating_sub(*asked);
                write!(f, "refused after {waited:.1?}: {why:?}")
            }
            What::Queued { .. } => f.write_str("seen in the queue"),
            What::Leased { token, ttl, kept } => {
                let kept = if *kept { "renewed" } else { "not renewed" };
                write!(f, "has a lease of {ttl:?} for {token}, {kept}")
            }
            What::Shown { token, until } => {
                let left = until.saturating_sub(*at);
                write!(f, "shown that {token} is valid for {left:.1?}")
            }
            What::Releasing { token } => write!(f, "releasing {token}"),
            What::Released { token, how } => write!(f, "released {token}: {how:?}"),
            What::Lost { token, why } => write!(f, "lost {token}: {why:?}"),
            What::Checked { token, valid, .. } => write!(f, "checked {token}: valid = {valid}"),
            What::Wrote {
                token,
                value,
                accepted,
            } => write!(f, "wrote {value} with {token}: accepted = {accepted}"),
            What::Rest {
                holders,
                waiters,
                free,
            } => write!(
                f,
                "at the end: {holders} holders, {waiters} waiters, free = {free}"
            ),
            What::Trouble(trouble) => write!(f, "{trouble}"),
            What::Note(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { what, .. } => write!(f, "! {what}"),
            Self::Healed(what) => write!(f, "! healed: {what}"),
            Self::Paused => f.write_str("! paused"),
            Self::Resumed => f.write_str("! goes on"),
            Self::Killed => f.write_str("! killed"),
            Self::Stalled { since } => {
                write!(f, "! did not run since {:.6}", since.as_secs_f64())
            }
            Self::DataLost { .. } => f.write_str("! the server has lost its data"),
            Self::Broke { token, .. } => write!(f, "! an operator broke {token}"),
        }
    }
}
