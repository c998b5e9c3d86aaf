//! Faults of the server: clocks that are set, and servers that take over or lose their data.

use crate::network::Message;
use crate::rules::Rules;
use crate::server::Server;
use crate::state::{Line, Stage, State, Time};

impl State {
    pub(super) fn step_clock(&mut self, by: Time) {
        self.server.offset += by;
        if by > 0 {
            self.taint(true);
        }
    }

    pub(super) fn fail_over(&mut self, by: Time, rules: Rules) {
        self.server.offset += by;
        self.hang_up(rules);
        if by > 0 {
            // What counts from a connection to the old server is the business of the rules.
            self.taint(false);
        }
    }

    pub(super) fn lose_data(&mut self, by: Time, rules: Rules) {
        let offset = self.server.offset + by;
        self.hang_up(rules);
        self.server = Server {
            offset,
            ..Server::new()
        };
        self.taint(false);
        for client in &mut self.clients {
            client.turn = None;
        }
        self.memory.counter_lost = true;
    }

    /// Every connection ends, with all that was on it.
    fn hang_up(&mut self, rules: Rules) {
        for id in self.ids() {
            if self.client(id).wire.up {
                self.discard(id, rules);
            }
        }
        self.late.clear();
    }

    /// Whatever counts from before now is an exception from now on.
    fn taint(&mut self, references: bool) {
        for client in &mut self.clients {
            if let Line::Holding(hold) = &mut client.line {
                hold.tainted = true;
            }
            for record in &mut client.records {
                if let Stage::Granted(grant) | Stage::Stale(grant) = &mut record.stage {
                    grant.tainted = true;
                }
                if let Some(reference) = &mut record.reference {
                    reference.tainted |= references;
                }
            }
            for message in &mut client.wire.back {
                let (Message::Answer { tainted, .. } | Message::Push { tainted, .. }) = message;
                *tainted = true;
            }
        }
    }
}
