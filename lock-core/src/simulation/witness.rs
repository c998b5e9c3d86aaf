//! Who sees everything and says what must not be: the rules of the contract, checked as it happens.
//!
//! The witness knows the true time, what the server did, and what each user believes. It says
//! nothing about a hold that an operator broke or that a server without memory forgot: those are the
//! declared exceptions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{LATEST, NAMES, Plan, ProcessPlan};
use super::server::{Deed, Ended, Entry};
use crate::gate::MemoryGate;
use crate::lease::LossReason;
use crate::owner::Nonce;
use crate::token::FencingToken;

/// Above an operation's own limit: one clock runs faster than the other.
const SLACK: Duration = Duration::from_millis(60);

/// What must not be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Violation {
    /// The rule or property by its number in the design.
    pub(super) rule: &'static str,
    pub(super) what: String,
}

pub(super) struct Witness {
    violation: Option<Violation>,
    calm: bool,
    blocks: bool,
    processes: Vec<ProcessView>,
    grants: BTreeMap<u64, Granted>,
    beliefs: BTreeMap<u64, Belief>,
    asks: BTreeMap<u64, Asked>,
    /// Who was passed over by whom at this instant, unless it has been answered too.
    overtaken: Vec<(u64, u64)>,
    next_id: u64,
    /// How often the server has lost its data.
    losses: u32,
    /// The nonces in the server's queues, in their order.
    queues: BTreeMap<&'static str, Vec<Nonce>>,
    gate: MemoryGate,
    register: BTreeMap<&'static str, u64>,
    /// Tokens, and when their locks have to be free.
    free_by: Vec<(u64, Duration)>,
}

struct ProcessView {
    plan: ProcessPlan,
    /// Until when something was in its way.
    disturbed_until: Duration,
    /// Why it does not run, or its users do not.
    suspended: u32,
    suspended_for: Duration,
    suspended_since: Duration,
    closing: bool,
    dead: bool,
}

struct Granted {
    to: Entry,
    ended: Option<(Duration, Ended)>,
    handed_out: bool,
}

#[derive(Clone, Copy)]
struct Belief {
    process: usize,
    name: &'static str,
    token: u64,
    forgotten: bool,
}

#[derive(Clone, Copy)]
struct Asked {
    process: usize,
    name: &'static str,
    /// Whether it stands in line like everybody else.
    in_line: bool,
    /// The largest token that anybody had by then.
    newest: u64,
}

/// When an operation began.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    at: Duration,
    suspended_for: Duration,
}

impl Witness {
    pub(super) fn new(plan: &Plan) -> Self {
        let processes = plan.processes.iter().map(|process| ProcessView {
            plan: process.clone(),
            disturbed_until: Duration::ZERO,
            suspended: 0,
            suspended_for: Duration::ZERO,
            suspended_since: Duration::ZERO,
            closing: false,
            dead: false,
        });
        Self {
            violation: None,
            calm: plan.is_calm(),
            blocks: plan.blocks_users(),
            processes: processes.collect(),
            grants: BTreeMap::new(),
            beliefs: BTreeMap::new(),
            asks: BTreeMap::new(),
            overtaken: Vec::new(),
            next_id: 0,
            losses: 0,
            queues: BTreeMap::new(),
            gate: MemoryGate::new(),
            register: NAMES.into_iter().map(|name| (name, 0)).collect(),
            free_by: Vec::new(),
        }
    }

    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes what must not be, unless it is only the consequence of an earlier one.
    pub(super) fn accuse(&mut self, rule: &'static str, what: impl FnOnce() -> String) {
        self.violation
            .get_or_insert_with(|| Violation { rule, what: what() });
    }

    // What goes wrong.

    pub(super) fn disturbed(&mut self, process: usize, until: Duration) {
        let view = &mut self.processes[process];
        view.disturbed_until = view.disturbed_until.max(until);
    }

    pub(super) fn all_disturbed(&mut self, until: Duration) {
        for process in 0..self.processes.len() {
            self.disturbed(process, until);
        }
    }

    pub(super) fn suspended(&mut self, process: usize, now: Duration) {
        let view = &mut self.processes[process];
        if view.suspended == 0 {
            view.suspended_since = now;
        }
        view.suspended += 1;
    }

    pub(super) fn resumed(&mut self, process: usize, now: Duration) {
        let view = &mut self.processes[process];
        view.suspended -= 1;
        if view.suspended == 0 {
            view.suspended_for += now - view.suspended_since;
        }
    }

    pub(super) fn closing(&mut self, process: usize) {
        self.processes[process].closing = true;
    }

    pub(super) fn died(&mut self, process: usize) {
        self.processes[process].dead = true;
        self.beliefs.retain(|_, belief| belief.process != process);
        self.asks.retain(|_, asked| asked.process != process);
    }

    pub(super) fn data_lost(&mut self) {
        self.losses += 1;
    }

    // What the server does.

    pub(super) fn saw(&mut self, now: Duration, deed: Deed) {
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

    /// Whether this hold was broken or forgotten, and when.
    fn excepted_since(&self, token: u64) -> Option<Duration> {
        match self.grants.get(&token)?.ended? {
            (at, Ended::Broken | Ended::Forgotten) => Some(at),
            (_, Ended::Released | Ended::Expired) => None,
        }
    }

    /// Whether its holder may still believe in this hold though the server has ended it: not for
    /// longer than the lease that it knows of.
    fn is_excepted(&self, now: Duration, token: u64) -> bool {
        let ttl = self
            .grants
            .get(&token)
            .map_or(Duration::ZERO, |grant| grant.to.ttl);
        self.excepted_since(token)
            .is_some_and(|since| now < since + ttl)
    }

    // What users do.

    pub(super) fn began(&self, process: usize, now: Duration) -> Begun {
        Begun {
            at: now,
            suspended_for: self.processes[process].suspended_for,
        }
    }

    /// An operation has ended that must not take longer than `limit`, plus what its process was
    /// stopped for.
    pub(super) fn ended(
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
    pub(super) fn asked(&mut self, process: usize, name: &'static str, in_line: bool) -> u64 {
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
    pub(super) fn went_without(&mut self, ask: u64) {
        self.asks.remove(&ask);
    }

    /// The question was answered with a lock; the answer names the belief in it from now on.
    pub(super) fn obtained(&mut self, ask: u64, token: u64) -> u64 {
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
        if token < newest || (token == newest && in_line) {
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
    pub(super) fn checked(&mut self, now: Duration, belief: u64) {
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
    pub(super) fn lost(&mut self, now: Duration, belief: u64, reason: LossReason) {
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
    pub(super) fn gives_up(&mut self, belief: u64) {
        self.beliefs.remove(&belief);
    }

    /// The holder does not look at its lock any more, and keeps it.
    pub(super) fn forgets(&mut self, belief: u64) {
        if let Some(belief) = self.beliefs.get_mut(&belief) {
            belief.forgotten = true;
        }
    }

    /// A release said that the lock had been held until then.
    pub(super) fn released(&mut self, token: u64) {
        let ended = self.grants.get(&token).and_then(|grant| grant.ended);
        if !matches!(ended, Some((_, Ended::Released))) && self.excepted_since(token).is_none() {
            self.accuse("R5", || {
                format!("the release of {token} was clean, and the server saw {ended:?}")
            });
        }
    }

    /// A release said that the lock will be free by then.
    pub(super) fn free_by(&mut self, token: u64, by: Duration) {
        self.free_by.push((token, by));
    }

    /// Reads what the lock protects, at the fence; `None` when the fence refuses.
    pub(super) fn read(&mut self, name: &'static str, token: FencingToken) -> Option<u64> {
        self.gate.admit_now(name, token).ok()?;
        self.register.get(name).copied()
    }

    /// Writes the value after the one that was read, unless the fence refuses.
    pub(super) fn write(&mut self, name: &'static str, token: FencingToken, read: u64) {
        if self.gate.admit_now(name, token).is_err() {
            return;
        }
        match self.register.get_mut(name) {
            Some(value) if *value == read => *value += 1,
            _ => self.accuse("P2", || format!("{token} wrote over what it had not read")),
        }
    }

    // What is left.

    /// Nothing more happens at this instant.
    pub(super) fn settled(&mut self) {
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
    pub(super) fn rests(&mut self, now: Duration, trace: Entry, releasing_since: Option<Duration>) {
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
    pub(super) fn concludes(&mut self) {
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

    pub(super) fn is_closing(&self, process: usize) -> bool {
        self.processes[process].closing
    }
}
