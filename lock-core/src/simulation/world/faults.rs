//! What goes wrong between the processes, and at the server.

use std::time::Duration;

use super::{Entry, Push, State};
use crate::simulation::plan::FaultKind;
use crate::simulation::protocol::Deed;

impl State {
    /// Lets a fault begin; those of processes are the driver's.
    pub(super) fn begin(&mut self, kind: FaultKind, lasts: Duration) {
        let ends = self.now + lasts;
        match kind {
            FaultKind::Partition { process, held } => {
                self.network.partition(process, ends, held);
                self.witness.disturbed(process, ends);
            }
            FaultKind::Reset { process } => self.reset(process, ends),
            FaultKind::Stall => {
                self.network.stall_server(ends);
                self.witness.all_disturbed(ends);
            }
            FaultKind::Restart { loses } => self.restart(ends, loses),
            FaultKind::Break { name } => {
                if self.network.server_runs_from() <= self.now {
                    self.server.break_holder(self.now, name);
                    self.tell_deeds();
                }
            }
            FaultKind::Pause { process } | FaultKind::Block { process } => {
                self.witness.disturbed(process, ends);
            }
            FaultKind::Crash { .. } | FaultKind::Shutdown { .. } => {}
        }
    }

    fn reset(&mut self, process: usize, until: Duration) {
        self.network.link(process).reset(until);
        self.witness.disturbed(process, until);
        self.plan(until, Entry::Reconnect { process });
    }

    fn restart(&mut self, until: Duration, loses: bool) {
        self.network.restart_server(until);
        let processes = self.network.processes();
        let mut forgotten = vec![Vec::new(); processes];
        if loses {
            self.server.lose_data(self.now);
            for deed in self.server.take_deeds() {
                if let Deed::Ended { of, .. } = deed {
                    forgotten[of.process].push(of.nonce);
                }
                self.witness.saw(self.now, deed);
            }
            self.witness.data_lost();
        }
        for (process, nonces) in forgotten.into_iter().enumerate() {
            self.reset(process, until);
            if !nonces.is_empty() {
                let push = Push::Forgotten(nonces);
                self.plan(until, Entry::Push { process, push });
            }
        }
    }
}
