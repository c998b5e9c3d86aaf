//! What the server does, and what it must not do.

use std::time::Duration;

use super::{Belief, Granted, Witness};
use crate::owner::Nonce;
use crate::simulation::protocol::{Deed, Ended, Entry};

impl Witness {
    pub(in crate::simulation) fn saw(&mut self, now: Duration, deed: Deed) {
        match deed {
            Deed::Queued(entry) => self.queue(entry.name).push(entry.nonce),
            Deed::Unqueued(entry) => self.queue(entry.name).retain(|nonce| *nonce != entry.nonce),
            Deed::Replaced { waiting, next } => {
                for nonce in self.queue(waiting.name) {
                    if *nonce == waiting.nonce {
                        *nonce = next.nonce;
                    }
                }
            }
            Deed::Granted { to, token, .. } => self.saw_grant(now, to, token),
            Deed::Ended { token, why, at, .. } => self.saw_end(at, token, why),
        }
    }

    fn queue(&mut self, name: &'static str) -> &mut Vec<Nonce> {
        self.queues.entry(name).or_default()
    }

    fn saw_grant(&mut self, now: Duration, to: Entry, token: u64) {
        let queue = self.queue(to.name);
        match queue.iter().position(|nonce| *nonce == to.nonce) {
            Some(0) => drop(queue.remove(0)),
            Some(_) => self.accuse("P8", || format!("{token} was granted out of order")),
            None => {}
        }
        let earlier: Vec<_> = self
            .grants
            .iter()
            .filter(|(_, grant)| grant.to.name == to.name)
            .map(|(token, grant)| (*token, grant.ended.is_some()))
            .collect();
        if let Some((newest, _)) = earlier.last().filter(|(newest, _)| *newest >= token) {
            self.accuse("P1", || format!("{token} was granted after {newest}"));
        }
        if let Some((held, _)) = earlier.iter().find(|(_, ended)| !ended) {
            self.accuse("R1", || {
                format!("{token} was granted while {held} was held")
            });
        }
        let believed = self.beliefs.values().find(|belief| {
            belief.name == to.name
                && !belief.forgotten
                && self.processes[belief.process].suspended == 0
                && !self.is_excepted(now, belief.token)
        });
        if let Some(Belief {
            process,
            token: theirs,
            ..
        }) = believed.copied()
        {
            self.accuse("P9", || {
                format!("{token} was granted while process {process} had not been told that {theirs} is lost")
            });
        }
        let granted = Granted {
            to,
            ended: None,
            handed_out: false,
        };
        self.grants.insert(token, granted);
    }

    fn saw_end(&mut self, at: Duration, token: u64, why: Ended) {
        if let Some(grant) = self.grants.get_mut(&token) {
            grant.ended = Some((at, why));
        }
        let believer = self.beliefs.values().find(|belief| {
            belief.token == token
                && !belief.forgotten
                && self.processes[belief.process].suspended == 0
        });
        if why == Ended::Released && believer.is_some() {
            self.accuse("P5", || format!("{token} was released under its holder"));
        }
    }
}
