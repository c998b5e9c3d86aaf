//! What a process of the load test is told to do.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which locks the tasks fight over.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Keys {
    /// All of them over one
    One,
    /// Each has a lock of its own
    Distinct,
}

impl Keys {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Distinct => "distinct",
        }
    }
}

/// One level of the load, as one process sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Plan {
    /// What the names of the locks begin with: nobody else's do.
    pub(crate) prefix: String,
    pub(crate) keys: Keys,
    /// The tasks of this process have the numbers from here on.
    pub(crate) first_task: u32,
    pub(crate) tasks: u32,
    pub(crate) length: Duration,
    /// How long a section takes.
    pub(crate) hold: Duration,
    /// The file with the counters.
    pub(crate) counters: PathBuf,
}

impl Plan {
    /// The lock and the counter of a task.
    pub(crate) fn key(&self, task: u32) -> u32 {
        match self.keys {
            Keys::One => 0,
            Keys::Distinct => task,
        }
    }

    pub(crate) fn name(&self, key: u32) -> String {
        format!("{}/{key}", self.prefix)
    }
}

/// How many of `tasks` each of the processes has, as even as can be: first number and count.
pub(crate) fn shares(tasks: u32, processes: u32) -> impl Iterator<Item = (u32, u32)> {
    let (each, more) = (tasks / processes, tasks % processes);
    (0..processes).map(move |process| {
        let first = process * each + process.min(more);
        (first, each + u32::from(process < more))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_shared_out_without_a_gap() {
        let all: Vec<_> = shares(10, 4).collect();
        assert_eq!(all, [(0, 3), (3, 3), (6, 2), (8, 2)]);
        assert_eq!(shares(1, 3).map(|(_, count)| count).sum::<u32>(), 1);
    }
}
