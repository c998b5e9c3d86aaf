//! What can happen next, and how much of it: every step of the model is one action.

mod fault;
mod scope;

use std::fmt;

pub(crate) use scope::Scope;

use crate::network::{Message, Reply, Request, Script, Why};
use crate::properties;
use crate::rules::Rules;
use crate::server::{Effect, Periods};
use crate::state::{Hold, Id, Line, SERIALS, State, Time, name};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Time passes, everywhere.
    Tick,
    /// A user asks for the lock, and waits.
    Ask(Id),
    /// A user tries to get the lock.
    Try(Id),
    /// A waiting user goes away.
    Cancel(Id),
    /// A waiting user goes away, and another one of the same client takes its place.
    Replace(Id),
    /// A waiting user comes for the grant that its client has.
    Take(Id),
    /// A user gives the lock back.
    Release(Id),
    /// A user gives the lock back while another one of the same client waits for it.
    Pass(Id),
    /// The client's clock ends a hold.
    Lapse(Id),
    /// The keeper renews.
    Renew(Id),
    /// A place in the queue is renewed.
    Place(Id),
    /// The reaper releases a nonce.
    Clean(Id),
    /// The server runs a client's oldest request.
    Execute(Id),
    /// A client takes in a message.
    Deliver(Id, usize),
    /// The oldest message to a client, a push, gets lost.
    LosePush(Id),
    /// A client gives its connection up.
    Discard(Id),
    /// A client has a new connection, and is subscribed.
    Connect(Id),
    /// A client's process dies.
    Crash(Id),
    /// The server runs a request that was under way when its connection was given up.
    ExecuteLate(usize),
    /// The server's clock is set.
    Step(Time),
    /// Another server takes over, with all data and its own clock.
    FailOver(Time),
    /// The server comes back without its data, and with its clock set.
    LoseData(Time),
}

/// The rules of a model, and how often its places are renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Setup {
    pub(crate) rules: Rules,
    pub(crate) periods: Periods,
}

impl Setup {
    pub(crate) const fn with(rules: Rules) -> Self {
        let periods = Periods { head: 1, behind: 2 };
        Self { rules, periods }
    }
}

impl State {
    /// Whether this can happen next.
    pub(crate) fn may(&self, action: Action) -> bool {
        let alive = |id: Id| self.client(id).alive;
        let up = |id: Id| self.client(id).wire.up;
        let line = |id: Id| &self.client(id).line;
        let spare = |id: Id| self.client(id).serials < SERIALS;
        match action {
            Action::Tick | Action::FailOver(_) | Action::LoseData(_) => true,
            Action::Step(by) => by != 0,
            Action::Ask(id) | Action::Try(id) => up(id) && spare(id) && *line(id) == Line::Idle,
            Action::Cancel(id) => matches!(line(id), Line::Asking(_)),
            Action::Replace(id) => up(id) && spare(id) && matches!(line(id), Line::Asking(_)),
            Action::Take(id) => self.client(id).ready().is_some(),
            Action::Release(id) => matches!(line(id), Line::Holding(it) if self.now < it.until),
            Action::Pass(id) => {
                up(id) && spare(id) && matches!(line(id), Line::Holding(it) if self.now < it.until)
            }
            Action::Lapse(id) => matches!(line(id), Line::Holding(it) if it.until <= self.now),
            Action::Renew(id) => {
                let wanted = |hold: &Hold| {
                    !hold.renewing && hold.renewed != Some(self.now) && self.now < hold.until
                };
                up(id) && self.client(id).hold().is_some_and(wanted)
            }
            Action::Place(id) => {
                let client = self.client(id);
                let asking = client.wire.awaits(Script::renews_place);
                up(id) && !asking && client.due(self.now).is_some()
            }
            Action::Clean(id) => up(id) && self.client(id).cleaning.iter().any(|it| !it.under_way),
            Action::Execute(id) => !self.client(id).wire.requests.is_empty(),
            Action::Deliver(id, at) => self.client(id).wire.deliverable().any(|it| it == at),
            Action::LosePush(id) => {
                let first = self.client(id).wire.back.first();
                matches!(first, Some(Message::Push { .. }))
            }
            Action::Discard(id) => alive(id) && up(id),
            Action::Connect(id) => alive(id) && !up(id),
            Action::Crash(id) => alive(id),
            Action::ExecuteLate(at) => at < self.late.len(),
        }
    }

    /// Does `action`, which [`may`](Self::may) happen.
    pub(crate) fn apply(&mut self, action: Action, setup: &Setup) {
        let rules = setup.rules;
        match action {
            Action::Tick => {
                self.now += 1;
                self.spent.ticks = self.spent.ticks.saturating_add(1);
            }
            Action::Ask(id) => self.ask(id, Why::Wait, rules),
            Action::Try(id) => self.ask(id, Why::Try, rules),
            Action::Cancel(id) => {
                self.spent.cancels = self.spent.cancels.saturating_add(1);
                self.cancel(id, rules);
            }
            Action::Replace(id) => {
                self.spent.cancels = self.spent.cancels.saturating_add(1);
                self.replace(id, rules);
            }
            Action::Take(id) => self.take(id, rules),
            Action::Release(id) | Action::Lapse(id) => self.let_go(id),
            Action::Pass(id) => self.pass(id, rules),
            Action::Renew(id) => self.renew(id, rules),
            Action::Place(id) => self.renew_place(id, rules),
            Action::Clean(id) => self.clean(id, rules),
            Action::Execute(id) => self.execute(id, setup),
            Action::Deliver(id, at) => self.deliver(id, at, rules),
            Action::LosePush(id) => {
                self.spent.losses = self.spent.losses.saturating_add(1);
                self.client_mut(id).wire.back.remove(0);
            }
            Action::Discard(id) => {
                self.spent.discards = self.spent.discards.saturating_add(1);
                self.discard(id, rules);
            }
            Action::Connect(id) => self.connect(id, rules),
            Action::Crash(id) => {
                self.spent.crashes = self.spent.crashes.saturating_add(1);
                self.crash(id);
            }
            Action::ExecuteLate(at) => self.execute_late(at, setup),
            Action::Step(by) => {
                self.spent.steps = self.spent.steps.saturating_add(1);
                self.step_clock(by);
            }
            Action::FailOver(by) => {
                self.spent.restarts = self.spent.restarts.saturating_add(1);
                self.fail_over(by, rules);
            }
            Action::LoseData(by) => {
                self.spent.restarts = self.spent.restarts.saturating_add(1);
                self.lose_data(by, rules);
            }
        }
    }

    fn execute(&mut self, id: Id, setup: &Setup) {
        let request = self.client_mut(id).wire.requests.remove(0);
        let reply = self.run(&request, setup);
        self.client_mut(id).wire.back.push(Message::Answer {
            request,
            reply,
            tainted: false,
        });
    }

    fn execute_late(&mut self, at: usize, setup: &Setup) {
        let request = self.late[at].remove(0);
        if self.late[at].is_empty() {
            self.late.remove(at);
        }
        self.run(&request, setup);
    }

    /// Runs a script; what it publishes reaches clients that are connected.
    fn run(&mut self, request: &Request, setup: &Setup) -> Reply {
        let clock = self.server.clock(self.now);
        let arrivals = &mut self.memory.arrivals;
        let (reply, effects) =
            self.server
                .run(request, clock, setup.rules, setup.periods, arrivals);
        for effect in effects {
            properties::observe(self, effect);
            if let Effect::Pushed {
                nonce,
                token,
                lease,
                server,
            } = effect
            {
                let wire = &mut self.client_mut(nonce.client).wire;
                if wire.up {
                    wire.back.push(Message::Push {
                        nonce,
                        token,
                        lease,
                        server,
                        tainted: false,
                    });
                }
            }
        }
        reply
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tick => write!(f, "a tick passes"),
            Self::Ask(id) => write!(f, "{} asks for the lock and waits", name(id)),
            Self::Try(id) => write!(f, "{} tries to get the lock", name(id)),
            Self::Cancel(id) => write!(f, "{}'s caller goes away", name(id)),
            Self::Replace(id) => write!(f, "{}'s next caller replaces the first", name(id)),
            Self::Take(id) => write!(f, "{}'s caller comes for the grant", name(id)),
            Self::Release(id) => write!(f, "{} gives the lock back", name(id)),
            Self::Pass(id) => write!(f, "{} passes the lock on to its next caller", name(id)),
            Self::Lapse(id) => write!(f, "{}'s hold ends on its own clock", name(id)),
            Self::Renew(id) => write!(f, "{} renews its hold", name(id)),
            Self::Place(id) => write!(f, "{} renews its place", name(id)),
            Self::Clean(id) => write!(f, "{} sends a release", name(id)),
            Self::Execute(id) => write!(f, "the server runs a request of {}", name(id)),
            Self::Deliver(id, at) => write!(f, "{} takes in message {at}", name(id)),
            Self::LosePush(id) => write!(f, "a push to {} is lost", name(id)),
            Self::Discard(id) => write!(f, "{} gives its connection up", name(id)),
            Self::Connect(id) => write!(f, "{} connects again", name(id)),
            Self::Crash(id) => write!(f, "{} crashes", name(id)),
            Self::ExecuteLate(at) => write!(f, "the server runs late copy {at}"),
            Self::Step(by) => write!(f, "the server's clock is set by {by}"),
            Self::FailOver(by) => write!(f, "another server takes over, its clock {by} off"),
            Self::LoseData(by) => write!(f, "the server loses its data, its clock set by {by}"),
        }
    }
}

/// `action` in `state`, in a sentence that says what it is about.
pub(crate) fn describe(state: &State, action: Action) -> String {
    let about = match action {
        Action::Execute(id) => state
            .client(id)
            .wire
            .requests
            .first()
            .map(|it| show(it.script)),
        Action::ExecuteLate(at) => state.late[at].first().map(|it| show(it.script)),
        Action::Deliver(id, at) => Some(match state.client(id).wire.back[at] {
            Message::Answer { request, reply, .. } => {
                let heard = if request.awaited {
                    ""
                } else {
                    ", which nobody awaits"
                };
                format!("{} answered {reply:?}{heard}", show(request.script))
            }
            Message::Push {
                nonce,
                token,
                lease,
                server,
                ..
            } => format!("push: {nonce} granted, token {token}, {lease} ticks from {server}"),
        }),
        _ => None,
    };
    about.map_or_else(|| action.to_string(), |about| format!("{action}: {about}"))
}

fn show(script: Script) -> String {
    match script {
        Script::Acquire { nonce, why } => format!("acquire {nonce} ({why:?})"),
        Script::Place { nonce } => format!("place {nonce}"),
        Script::Renew { nonce } => format!("renew {nonce}"),
        Script::Release { nonce, bury } => {
            format!("release {nonce}{}", if bury { " and bury it" } else { "" })
        }
        Script::Pass { held, next, .. } => format!("pass {held} to {next}"),
        Script::Replace { old, next } => format!("replace {old} by {next}"),
    }
}
