//! The world between the processes: one time, the network, the server, and a witness.
//!
//! Nothing here waits. What is to happen stands on the agenda; the driver moves the time from one
//! entry to the next and runs the processes in between.

mod faults;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::oneshot;

use super::history::History;
use super::network::{Broken, Fate, Link, Network};
use super::plan::{FaultKind, Plan};
use super::protocol::{Deed, Ended, Reply, Request};
use super::server::Server;
use super::witness::Witness;
use crate::backend::Event;
use crate::guard::Guard;
use crate::owner::Nonce;

/// Everybody's way to the world.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<State>>);

pub(super) struct State {
    now: Duration,
    agenda: BTreeMap<(Duration, u64), Entry>,
    next_entry: u64,
    network: Network,
    server: Server,
    pub(super) witness: Witness,
    /// Guards that were forgotten: they are dropped when the world ends.
    pub(super) attic: Vec<Guard>,
    pub(super) history: History,
}

enum Entry {
    Arrive {
        process: usize,
        id: Option<u64>,
        request: Request,
    },
    Answer {
        process: usize,
        id: u64,
        reply: Reply,
    },
    Push {
        process: usize,
        push: Push,
    },
    Reconnect {
        process: usize,
    },
    Begin(FaultKind, Duration),
}

/// What the server tells a client without being asked.
#[derive(Clone, Debug)]
pub(super) enum Push {
    /// This claim stands differently now.
    Look(Nonce),
    Gone(Nonce, u64),
    Broken(Nonce, u64),
    Forgotten(Vec<Nonce>),
}

impl World {
    pub(super) fn new(plan: &Plan, keeps_history: bool) -> Self {
        let rng = Rng::with_seed(plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut state = State {
            now: Duration::ZERO,
            agenda: BTreeMap::new(),
            next_entry: 0,
            network: Network::new(rng, plan.weather, plan.processes.len()),
            server: Server::new(plan.claim_window),
            witness: Witness::new(plan),
            attic: Vec::new(),
            history: History::new(keeps_history),
        };
        for fault in &plan.faults {
            state.plan(fault.at, Entry::Begin(fault.kind, fault.lasts));
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// No process is run while this is held.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// When something happens next without any process doing anything.
    pub(super) fn next(&self) -> Option<Duration> {
        let entry = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let end = self
            .server
            .next_end()
            .map(|end| end.max(self.network.server_runs_from()));
        [entry, end].into_iter().flatten().min()
    }

    /// Lets everything happen that is due at `now`; answers the faults of processes that begin.
    pub(super) fn advance(&mut self, now: Duration) -> Vec<(FaultKind, Duration)> {
        self.now = now;
        let mut faults = Vec::new();
        while let Some(first) = self.agenda.first_entry() {
            if first.key().0 > now {
                break;
            }
            match first.remove() {
                Entry::Arrive {
                    process,
                    id,
                    request,
                } => self.arrive(process, id, request),
                Entry::Answer { process, id, reply } => self.answer(process, id, reply),
                Entry::Push { process, push } => self.pushed(process, push),
                Entry::Reconnect { process } => self.reconnect(process),
                Entry::Begin(kind, lasts) => {
                    self.note("fault", format_args!("{kind:?} for {lasts:?}"));
                    self.begin(kind, lasts);
                    faults.push((kind, lasts));
                }
            }
        }
        if self.network.server_runs_from() <= now {
            self.server.settle(now);
            self.tell_deeds();
        }
        faults
    }

    /// Sends a request; what comes back comes through the channel.
    pub(super) fn send(
        &mut self,
        process: usize,
        request: Request,
    ) -> Result<oneshot::Receiver<Result<Reply, Broken>>, Broken> {
        let (id, answer) = self.network.link(process).open(self.now)?;
        if self.history.is_kept() {
            self.note_of(process, format_args!("sends {id}: {request:?}"));
        }
        if let Some(delay) = self.network.copy() {
            let copy = Entry::Arrive {
                process,
                id: None,
                request: request.clone(),
            };
            self.plan(self.now + delay, copy);
        }
        match self.fate(process) {
            Some(at) => self.plan(
                at,
                Entry::Arrive {
                    process,
                    id: Some(id),
                    request,
                },
            ),
            None => self.note_of(process, format_args!("request {id} is lost")),
        }
        Ok(answer)
    }

    pub(super) fn link(&mut self, process: usize) -> &mut Link {
        self.network.link(process)
    }

    /// Cuts a process off for ever: it is dead.
    pub(super) fn bury(&mut self, process: usize) {
        self.network.link(process).die();
        self.witness.died(process);
    }

    /// From now on everything works.
    pub(super) fn heal(&mut self) {
        self.network.heal();
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn note(&mut self, who: &str, what: fmt::Arguments<'_>) {
        self.history.note(self.now, who, what);
    }

    pub(super) fn note_of(&mut self, process: usize, what: fmt::Arguments<'_>) {
        if self.history.is_kept() && !self.network.link(process).is_dead() {
            self.note(&format!("p{process}"), what);
        }
    }

    fn plan(&mut self, at: Duration, entry: Entry) {
        self.next_entry += 1;
        self.agenda.insert((at, self.next_entry), entry);
    }

    /// When a message between `process` and the server arrives.
    fn fate(&mut self, process: usize) -> Option<Duration> {
        let (arrives, disturbed_until) = match self.network.fate(process, self.now) {
            Fate::Arrives(at) => return Some(at),
            Fate::Late(at) => (Some(at), at),
            Fate::Lost => (None, self.now),
        };
        self.witness.disturbed(process, disturbed_until);
        arrives
    }

    fn arrive(&mut self, process: usize, id: Option<u64>, request: Request) {
        if self.network.server_is_down(self.now) {
            return;
        }
        let runs_from = self.network.server_runs_from();
        if runs_from > self.now {
            self.plan(
                runs_from,
                Entry::Arrive {
                    process,
                    id,
                    request,
                },
            );
            return;
        }
        let reply = self.server.handle(self.now, &request);
        if self.history.is_kept() {
            match id {
                Some(id) => self.note(
                    "server",
                    format_args!("answers p{process}'s {id}: {reply:?}"),
                ),
                None => self.note(
                    "server",
                    format_args!("sees a copy of p{process}'s {request:?}: {reply:?}"),
                ),
            }
        }
        self.tell_deeds();
        // The answer to a copy goes to a connection that is not there any more.
        if let Some(id) = id {
            match self.fate(process) {
                Some(at) => self.plan(at, Entry::Answer { process, id, reply }),
                None => self.note_of(process, format_args!("answer {id} is lost")),
            }
        }
    }

    fn answer(&mut self, process: usize, id: u64, reply: Reply) {
        self.network.link(process).answered(id, reply);
    }

    fn pushed(&mut self, process: usize, push: Push) {
        if self.history.is_kept() {
            self.note_of(process, format_args!("is told {push:?}"));
        }
        self.network.link(process).pushed(push);
    }

    fn reconnect(&mut self, process: usize) {
        self.network.link(process).reconnected();
    }

    fn push(&mut self, process: usize, push: Push) {
        if let Some(delay) = self.network.copy() {
            let push = push.clone();
            self.plan(self.now + delay, Entry::Push { process, push });
        }
        match self.fate(process) {
            Some(at) => self.plan(at, Entry::Push { process, push }),
            None => self.note_of(process, format_args!("{push:?} is lost")),
        }
    }

    /// Has everybody told what happened at the server.
    fn tell_deeds(&mut self) {
        for deed in self.server.take_deeds() {
            if self.history.is_kept() {
                self.note("server", format_args!("{deed:?}"));
            }
            self.witness.saw(self.now, deed);
            match deed {
                Deed::Granted {
                    to, pushed: true, ..
                } => self.push(to.process, Push::Look(to.nonce)),
                Deed::Ended {
                    of,
                    token,
                    why: Ended::Expired,
                    ..
                } => self.push(of.process, Push::Gone(of.nonce, token)),
                Deed::Ended {
                    of,
                    token,
                    why: Ended::Broken,
                    ..
                } => {
                    self.push(of.process, Push::Broken(of.nonce, token));
                }
                _ => {}
            }
        }
    }
}

impl From<Push> for Option<Event> {
    fn from(push: Push) -> Self {
        Some(match push {
            Push::Look(_) => return None,
            Push::Gone(nonce, _) => Event::Gone { nonce },
            Push::Broken(nonce, _) => Event::Broken { nonce },
            Push::Forgotten(nonces) => Event::SessionEnded { nonces },
        })
    }
}
