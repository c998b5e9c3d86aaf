//! What happens when faults stop: from any state on, one schedule in which everybody does what is
//! to be done, at once and in a fixed order.
//!
//! Late copies arrive first; then connections are there, and nothing is lost or slow any more.

use crate::action::{Action, Setup};
use crate::properties::{self, Property};
use crate::state::{CLAIM, Id, Line, SERIALS, Stage, State, TTL, Time};

/// What is broken on the way, and the way.
#[derive(Debug)]
pub(crate) struct Sick {
    pub(crate) property: Property,
    pub(crate) way: Vec<Action>,
}

/// What holders do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Holders {
    GiveBack,
    Keep,
}

/// Faults stop, and holders give back at once: whoever waits gets its turn, and nothing is left.
pub(crate) fn heal(state: &State, setup: &Setup) -> Result<(), Sick> {
    let mut healing = Healing::new(state, setup, Holders::GiveBack);
    let result = healing.come_to_rest();
    healing.report(result)
}

/// Faults stop, and the holder keeps the lock: the queue behind it is made up of who lives.
pub(crate) fn settle(state: &State, setup: &Setup) -> Result<(), Sick> {
    let mut healing = Healing::new(state, setup, Holders::Keep);
    let result = healing.clear_the_queue();
    healing.report(result)
}

struct Healing<'a> {
    state: State,
    setup: &'a Setup,
    holders: Holders,
    way: Vec<Action>,
}

impl Healing<'_> {
    fn new<'a>(state: &State, setup: &'a Setup, holders: Holders) -> Healing<'a> {
        Healing {
            state: state.clone(),
            setup,
            holders,
            way: Vec::new(),
        }
    }

    fn report(self, result: Result<(), Property>) -> Result<(), Sick> {
        let way = self.way;
        result.map_err(|property| Sick { property, way })
    }

    fn come_to_rest(&mut self) -> Result<(), Property> {
        self.clear_the_air()?;
        let mut waiting: Vec<Id> = self.state.ids().filter(|id| self.waits(*id)).collect();
        self.hear_everything()?;
        let bound = bound(&self.state, self.setup);
        self.reconnect()?;
        let mut waited = 0;
        loop {
            while let Some(action) = self.next_duty() {
                if let Action::Release(id) = action {
                    waiting.retain(|other| *other != id);
                }
                self.go(action)?;
            }
            waiting.retain(|id| !self.ran_out_of_nonces(*id));
            if waiting.is_empty() {
                break;
            }
            if waited >= bound {
                return Err(Property::Progress);
            }
            self.go(Action::Tick)?;
            waited += 1;
        }
        if left_over(&self.state) {
            return Err(Property::NothingLeft);
        }
        Ok(())
    }

    fn clear_the_queue(&mut self) -> Result<(), Property> {
        self.clear_the_air()?;
        self.reconnect()?;
        let periods = self.setup.periods;
        for _ in 0..periods.longest_lease() + 2 * periods.behind {
            while let Some(action) = self.next_duty() {
                self.go(action)?;
            }
            self.go(Action::Tick)?;
        }
        let server = &self.state.server;
        let lives = |at: usize| self.state.client(server.queue[at].nonce.client).alive;
        let last = (0..server.queue.len()).rfind(|at| lives(*at));
        if last.is_some_and(|last| (0..last).any(|at| !lives(at))) {
            return Err(Property::NoDeadInFront);
        }
        Ok(())
    }

    fn clear_the_air(&mut self) -> Result<(), Property> {
        while self.state.may(Action::ExecuteLate(0)) {
            self.go(Action::ExecuteLate(0))?;
        }
        Ok(())
    }

    /// Whatever is on its way arrives, and nobody does anything of its own yet.
    fn hear_everything(&mut self) -> Result<(), Property> {
        let arriving = |state: &State| {
            let arrivals = |id| [Action::Execute(id), Action::Deliver(id, 0)];
            let mut arrivals = state.ids().flat_map(arrivals);
            arrivals.find(|action| state.may(*action))
        };
        while let Some(action) = arriving(&self.state) {
            self.go(action)?;
        }
        Ok(())
    }

    fn reconnect(&mut self) -> Result<(), Property> {
        for id in self.state.ids() {
            if self.state.may(Action::Connect(id)) {
                self.go(Action::Connect(id))?;
            }
        }
        Ok(())
    }

    fn waits(&self, id: Id) -> bool {
        self.state.client(id).wanted().is_some()
    }

    /// A limit of the model, and of nothing else.
    fn ran_out_of_nonces(&self, id: Id) -> bool {
        let client = self.state.client(id);
        client.line == Line::Idle && client.serials == SERIALS
    }

    /// What is to be done before time passes.
    fn next_duty(&self) -> Option<Action> {
        let of_holder = |id| match self.holders {
            Holders::GiveBack => Action::Release(id),
            Holders::Keep => Action::Renew(id),
        };
        self.state.ids().find_map(|id| {
            [
                Action::Execute(id),
                Action::Deliver(id, 0),
                Action::Take(id),
                Action::Lapse(id),
                of_holder(id),
                Action::Clean(id),
                Action::Place(id),
            ]
            .into_iter()
            .find(|action| self.state.may(*action))
        })
    }

    fn go(&mut self, action: Action) -> Result<(), Property> {
        self.way.push(action);
        self.state.apply(action, self.setup);
        properties::check(&self.state)
    }
}

/// Within how many ticks everybody who waits has had its turn: who lives asks when its place is due,
/// and each of the dead costs its lease, which others then notice within a period.
fn bound(state: &State, setup: &Setup) -> Time {
    let dead = |id: Id| !state.client(id).alive;
    let asked = state
        .clients
        .iter()
        .map(|client| first_look(client, state.now));
    let holder = state.server.holder.filter(|it| dead(it.nonce.client));
    let holder = holder.map(|it| if it.provisional { CLAIM } else { TTL });
    let waiters = state.server.queue.iter().filter(|it| dead(it.nonce.client));
    let leases = holder.into_iter().chain(waiters.map(|_| CLAIM));
    asked.max().unwrap_or(0)
        + leases
            .map(|lease| lease + setup.periods.behind)
            .sum::<Time>()
}

/// In how many ticks this client asks about its place; it does so at once on a new connection.
fn first_look(client: &crate::state::Client, now: Time) -> Time {
    let dues = client
        .records
        .iter()
        .filter_map(|record| match record.stage {
            Stage::Waiting { due } if client.wire.up => due,
            _ => None,
        });
    dues.max().map_or(0, |due| (due - now).max(0))
}

/// Whether a live client, or the server for one, still has something.
fn left_over(state: &State) -> bool {
    let alive = |id: Id| state.client(id).alive;
    let busy = state
        .clients
        .iter()
        .filter(|client| client.alive)
        .any(|client| {
            client.line != Line::Idle || !client.records.is_empty() || !client.cleaning.is_empty()
        });
    let clock = state.server.clock(state.now);
    let holder = state.server.live(clock).map(|holder| holder.nonce);
    let queue = state.server.queue.iter().map(|waiter| waiter.nonce);
    busy || queue.chain(holder).any(|nonce| alive(nonce.client))
}
