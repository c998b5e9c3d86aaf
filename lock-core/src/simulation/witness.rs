//! Who sees everything and says what must not be: the rules of the contract, checked as it happens.
//!
//! The witness knows the true time, what the server did, and what each user believes. It says
//! nothing about a hold that an operator broke or that a server without memory forgot: those are the
//! declared exceptions.

mod deeds;
mod rest;
mod users;

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{NAMES, Plan, ProcessPlan};
use super::protocol::{Ended, Entry};
use crate::gate::MemoryGate;
use crate::owner::Nonce;

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

    pub(super) fn is_closing(&self, process: usize) -> bool {
        self.processes[process].closing
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
}
