//! What is left when nothing happens any more.

use std::time::Duration;

use super::{Asked, Witness};
use crate::simulation::plan::LATEST;
use crate::simulation::protocol::Entry;

impl Witness {
    /// Nothing more happens at this instant.
    pub(in crate::simulation) fn settled(&mut self) {
        for (question, token) in std::mem::take(&mut self.overtaken) {
            if let Some(Asked { process, .. }) = self.asks.get(&question).copied() {
                self.accuse("P8", || {
                    format!(
                        "{token} went to a user of process {process} who had asked after another"
                    )
                });
            }
        }
    }

    /// A process has nothing to do, and the server still has something of it, which the process has
    /// tried to have released since then.
    pub(in crate::simulation) fn rests(
        &mut self,
        now: Duration,
        trace: Entry,
        releasing_since: Option<Duration>,
    ) {
        let plan = &self.processes[trace.process].plan;
        // For so long core tries. A request that is under way for even longer leaves a record for
        // its TTL.
        let insists = (plan.ttl * 2 + plan.outage_limit).mul_f64(0.98);
        let gave_up = releasing_since.is_some_and(|since| since + insists < now);
        // A server without memory has no tombstones either: late copies win there.
        if !gave_up && self.losses == 0 {
            self.accuse("P6", || {
                format!("its client rests, and the server has {trace:?}")
            });
        }
    }

    /// The end of the world.
    pub(in crate::simulation) fn concludes(&mut self) {
        for (token, by) in std::mem::take(&mut self.free_by) {
            let ended = self.grants.get(&token).and_then(|grant| grant.ended);
            // A renewal that is under way for long extends the lease when it arrives.
            let in_time = ended.is_some_and(|(at, _)| at <= by + LATEST);
            if !in_time && self.excepted_since(token).is_none() {
                self.accuse("R9", || {
                    format!("{token} was to be free by {by:?}, and ended {ended:?}")
                });
            }
        }
    }
}
