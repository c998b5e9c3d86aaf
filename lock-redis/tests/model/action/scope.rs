//! How much of what can happen an exploration looks at.

use super::Action;
use crate::state::{SERIALS, State, Time};

/// What an exploration looks at: how often each fault and each wish may come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Scope {
    /// Acquisitions of each client.
    pub(crate) asks: u8,
    pub(crate) tries: bool,
    pub(crate) passes: bool,
    pub(crate) ticks: u8,
    pub(crate) cancels: u8,
    pub(crate) discards: u8,
    pub(crate) losses: u8,
    pub(crate) crashes: u8,
    pub(crate) steps: u8,
    pub(crate) restarts: u8,
}

impl Scope {
    /// Two acquisitions each, time, and no fault.
    pub(crate) const CALM: Self = Self {
        asks: 2,
        tries: false,
        passes: false,
        ticks: 6,
        cancels: 0,
        discards: 0,
        losses: 0,
        crashes: 0,
        steps: 0,
        restarts: 0,
    };
    /// As much of everything as a state can count.
    pub(crate) const WIDE: Self = Self {
        asks: SERIALS,
        tries: true,
        passes: true,
        ticks: u8::MAX,
        cancels: u8::MAX,
        discards: 4,
        losses: 4,
        crashes: 1,
        steps: 2,
        restarts: 1,
    };
}

/// How far the clock is set, in ticks.
const STEPS: [Time; 3] = [-20, -3, 3];

impl State {
    /// Everything that can happen next.
    pub(crate) fn enabled(&self, scope: &Scope) -> Vec<Action> {
        let mut actions = Vec::with_capacity(16);
        for id in self.ids() {
            let own = [
                Action::Execute(id),
                Action::Connect(id),
                Action::Take(id),
                Action::Clean(id),
                Action::Place(id),
                Action::Renew(id),
                Action::Lapse(id),
                Action::Release(id),
                Action::Pass(id),
                Action::Ask(id),
                Action::Try(id),
                Action::Cancel(id),
                Action::Replace(id),
                Action::LosePush(id),
                Action::Discard(id),
                Action::Crash(id),
            ];
            actions.extend(own);
            let deliverable = self.client(id).wire.deliverable();
            actions.extend(deliverable.map(|at| Action::Deliver(id, at)));
        }
        actions.push(Action::Tick);
        actions.extend((0..self.late.len()).map(Action::ExecuteLate));
        for step in STEPS {
            actions.extend([
                Action::Step(step),
                Action::FailOver(step),
                Action::LoseData(step),
            ]);
        }
        actions.retain(|action| self.affords(*action, scope) && self.may(*action));
        actions
    }

    /// Whether `scope` has this action left.
    fn affords(&self, action: Action, scope: &Scope) -> bool {
        let spent = &self.spent;
        let asks = |id| self.client(id).serials < scope.asks;
        match action {
            Action::Tick => spent.ticks < scope.ticks,
            Action::Ask(id) => asks(id),
            Action::Try(id) => scope.tries && asks(id),
            Action::Pass(id) => scope.passes && asks(id),
            Action::Cancel(_) => spent.cancels < scope.cancels,
            Action::Replace(id) => asks(id) && spent.cancels < scope.cancels,
            Action::LosePush(_) => spent.losses < scope.losses,
            Action::Discard(_) => spent.discards < scope.discards,
            Action::Crash(_) => spent.crashes < scope.crashes,
            Action::Step(_) => spent.steps < scope.steps,
            Action::FailOver(_) | Action::LoseData(_) => spent.restarts < scope.restarts,
            _ => true,
        }
    }
}
