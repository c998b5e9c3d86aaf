//! What users do, and what they are told.

use std::time::Duration;

use super::{Asked, Begun, Belief, Witness};
use crate::lease::LossReason;
use crate::simulation::plan::ProcessPlan;
use crate::simulation::protocol::Ended;
use crate::token::FencingToken;

/// Above an operation's own limit: one clock runs faster than the other.
const SLACK: Duration = Duration::from_millis(60);

impl Witness {
    pub(in crate::simulation) fn began(&self, process: usize, now: Duration) -> Begun {
        Begun {
            at: now,
            suspended_for: self.processes[process].suspended_for,
        }
    }

    /// An operation has ended that must not take longer than `limit`, plus what its process was
    /// stopped for.
    pub(in crate::simulation) fn ended(
        &mut self,
        op: &str,
        process: usize,
        begun: Begun,
        now: Duration,
        limit: Duration,
    ) {
        let stopped = self.processes[process].suspended_for - begun.suspended_for;
        let took = (now - begun.at).saturating_sub(stopped);
        if took > limit.mul_f64(1.02) + SLACK {
            self.accuse("R9", || {
                format!("{op} of process {process} took {took:?}, and had {limit:?}")
            });
        }
    }

    /// Somebody asks for the lock; the answer names the question from now on.
    pub(in crate::simulation) fn asked(
        &mut self,
        process: usize,
        name: &'static str,
        in_line: bool,
    ) -> u64 {
        let newest = self
            .grants
            .iter()
            .rev()
            .find(|(_, grant)| grant.to.name == name && grant.handed_out)
            .map_or(0, |(token, _)| *token);
        self.next_id += 1;
        self.asks.insert(
            self.next_id,
            Asked {
                process,
                name,
                in_line,
                newest,
            },
        );
        self.next_id
    }

    /// The question was answered with no lock, or is not interesting any more.
    pub(in crate::simulation) fn went_without(&mut self, ask: u64) {
        self.asks.remove(&ask);
    }

    /// The question was answered with a lock; the answer names the belief in it from now on.
    pub(in crate::simulation) fn obtained(&mut self, ask: u64, token: u64) -> u64 {
        let Some(asked) = self.asks.remove(&ask) else {
            return 0;
        };
        let Asked {
            process,
            name,
            in_line,
            newest,
        } = asked;
        match self.grants.get_mut(&token) {
            Some(grant) if grant.to.process == process && grant.to.name == name => {
                // Only an owner gets the same hold twice.
                if std::mem::replace(&mut grant.handed_out, true) && in_line {
                    self.accuse("R2", || format!("{token} was handed out twice"));
                }
            }
            _ => self.accuse("P4", || {
                format!("the server never granted {token} to process {process}")
            }),
        }
        // Its owner takes a broken hold once more until it is told.
        let excepted = !in_line && self.excepted_since(token).is_some();
        if (token < newest && !excepted) || (token == newest && in_line) {
            self.accuse("P1", || {
                format!("{token} was asked for after {newest} had been granted")
            });
        }
        let overtaken = self.asks.iter().find(|(other, theirs)| {
            **other < ask && theirs.in_line && theirs.process == process && theirs.name == name
        });
        // Users that were blocked do not take their answers in order.
        if in_line
            && !self.blocks
            && let Some((other, _)) = overtaken
        {
            self.overtaken.push((*other, token));
        }
        self.next_id += 1;
        self.beliefs.insert(
            self.next_id,
            Belief {
                process,
                name,
                token,
                forgotten: false,
            },
        );
        self.next_id
    }

    /// `check()` has just said that the lock may be acted on.
    pub(in crate::simulation) fn checked(&mut self, now: Duration, belief: u64) {
        let Some(Belief {
            process,
            name,
            token,
            ..
        }) = self.beliefs.get(&belief).copied()
        else {
            return self.accuse("R4", || "a lock that was lost is valid again".to_owned());
        };
        if self.is_excepted(now, token) {
            return;
        }
        let newer = self
            .grants
            .range(token + 1..)
            .find(|(_, grant)| grant.to.name == name)
            .map(|(newer, _)| *newer);
        if let Some(newer) = newer {
            self.accuse("P3", || {
                format!("{token} was valid in process {process} after {newer} had been granted")
            });
        }
        if let Some((at, why)) = self.grants.get(&token).and_then(|grant| grant.ended) {
            self.accuse("R3", || {
                format!("{token} was valid at {now:?}, and had ended at {at:?}: {why:?}")
            });
        }
    }

    /// The holder was told that the lock is lost.
    pub(in crate::simulation) fn lost(&mut self, now: Duration, belief: u64, reason: LossReason) {
        let Some(Belief { process, token, .. }) = self.beliefs.remove(&belief) else {
            return;
        };
        let view = &self.processes[process];
        let ProcessPlan {
            ttl, op_timeout, ..
        } = view.plan;
        let calm = view.disturbed_until + ttl + op_timeout * 2 < now || self.calm;
        let ended = self
            .grants
            .get(&token)
            .is_some_and(|grant| grant.ended.is_some());
        let justified = match reason {
            LossReason::Expired => {
                !(calm && self.grants.get(&token).is_some_and(|grant| grant.to.kept))
            }
            // Both are said of the server: no answer is no loss.
            LossReason::NotHeld | LossReason::Broken => ended,
            LossReason::MaxHold => view.plan.max_hold.is_some(),
            LossReason::Closed => view.closing,
            LossReason::SessionEnded => self.losses > 0,
            LossReason::Released | LossReason::Forked => false,
        };
        if !justified && self.excepted_since(token).is_none() {
            self.accuse("R6", || {
                format!("process {process} lost {token} without a cause: {reason}")
            });
        }
    }

    /// The holder does not believe in the lock any more: it begins to give it back.
    pub(in crate::simulation) fn gives_up(&mut self, belief: u64) {
        self.beliefs.remove(&belief);
    }

    /// The holder does not look at its lock any more, and keeps it.
    pub(in crate::simulation) fn forgets(&mut self, belief: u64) {
        if let Some(belief) = self.beliefs.get_mut(&belief) {
            belief.forgotten = true;
        }
    }

    /// A release that began then said that the lock was still held.
    pub(in crate::simulation) fn released(&mut self, token: u64, begun: Begun) {
        let ended = self.grants.get(&token).and_then(|grant| grant.ended);
        let clean = match ended {
            Some((_, Ended::Released)) => true,
            // By a copy of its request the nonce may hold once more when the release arrives.
            Some((at, Ended::Expired)) => at >= begun.at,
            Some((_, Ended::Broken | Ended::Forgotten)) => true,
            None => false,
        };
        if !clean {
            self.accuse("R5", || {
                format!("the release of {token} was clean, and the server saw {ended:?}")
            });
        }
    }

    /// A release said that the lock will be free by then.
    pub(in crate::simulation) fn free_by(&mut self, token: u64, by: Duration) {
        self.free_by.push((token, by));
    }

    /// Reads what the lock protects, at the fence; `None` when the fence refuses.
    pub(in crate::simulation) fn read(
        &mut self,
        name: &'static str,
        token: FencingToken,
    ) -> Option<u64> {
        self.gate.admit_now(name, token).ok()?;
        self.register.get(name).copied()
    }

    /// Writes the value after the one that was read, unless the fence refuses.
    pub(in crate::simulation) fn write(
        &mut self,
        name: &'static str,
        token: FencingToken,
        read: u64,
    ) {
        if self.gate.admit_now(name, token).is_err() {
            return;
        }
        match self.register.get_mut(name) {
            Some(value) if *value == read => *value += 1,
            _ => self.accuse("P2", || format!("{token} wrote over what it had not read")),
        }
    }
}
