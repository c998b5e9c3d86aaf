//! What clients do, step by step.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One client, with a connection of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientPlan {
    /// What it is called in the history, and to operators.
    pub who: String,
    /// Where it runs.
    pub place: Place,
    /// What its tasks do, side by side.
    pub scripts: Vec<Script>,
}

/// Where a client runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// In the suite's process, on a connection of its own.
    Here,
    /// In the suite's process, through what stands in the middle of connections.
    Proxied,
    /// In a worker process.
    Worker,
}

/// What one task does, again and again until the time is up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Script {
    /// What it is called in the history.
    pub who: String,
    /// One acquisition after the other.
    pub steps: Vec<Step>,
}

/// One acquisition.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// The pause before it.
    pub think: Duration,
    /// The lock.
    pub name: String,
    /// The lease.
    pub ttl: Duration,
    /// Whether the lease is renewed.
    pub kept: bool,
    /// How the lock is asked for.
    pub ask: Ask,
    /// What is done while it is held.
    pub work: Work,
    /// How it is given up.
    pub leave: Leave,
}

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Ask {
    /// Once.
    Try,
    /// Waiting for so long at most.
    Within(Duration),
    /// Waiting for as long as it takes.
    Wait,
    /// Waiting, and dropping the future after so long.
    Cancel(Duration),
}

/// What is done while a lock is held.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Work {
    /// Holding it for so long, and asking again and again whether it is still held.
    Hold(Duration),
    /// Adding one to the counter behind the lock: read, think, write. Like a program that does not
    /// know that it was paused, it does not ask before it writes.
    Increment(Duration),
}

/// How a lock is given up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Leave {
    /// Released, and what became of it is awaited.
    Release,
    /// The guard is dropped.
    Drop,
}
