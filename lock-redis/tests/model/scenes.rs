//! Where explorations begin: what leads there would only be found again and again.

use crate::action::{Action, Setup};
use crate::rules::Rules;
use crate::state::{Id, State, TTL};
use Action::{Ask, Crash, Deliver, Discard, Execute, Place, Take, Tick};

pub(crate) const A: Id = 0;
pub(crate) const B: Id = 1;
pub(crate) const C: Id = 2;

/// Nobody has asked for anything.
pub(crate) fn empty(clients: Id) -> State {
    State::new(clients)
}

/// A holds the lock.
pub(crate) fn held(clients: Id) -> State {
    after(
        empty(clients),
        &[Ask(A), Execute(A), Deliver(A, 0), Take(A)],
    )
}

/// A holds, B waits, and C behind it if there is one.
pub(crate) fn queued(clients: Id) -> State {
    let mut state = held(clients);
    for id in 1..clients {
        state = after(state, &[Ask(id), Execute(id), Deliver(id, 0)]);
    }
    state
}

/// A holds and B waits; C is there.
pub(crate) fn one_waits() -> State {
    after(held(3), &[Ask(B), Execute(B), Deliver(B, 0)])
}

/// A has died, its lease is over, and nobody has noticed; B waits and has said so lately.
pub(crate) fn orphaned(clients: Id) -> State {
    let mut state = after(
        held(clients),
        &[Ask(B), Execute(B), Deliver(B, 0), Crash(A)],
    );
    state = after(state, &[Tick; TTL as usize - 1]);
    after(state, &[Place(B), Execute(B), Deliver(B, 0), Tick])
}

/// B has lost its place behind A, to C, and what it sent to join the queue again is under way on a
/// connection that it has given up.
pub(crate) fn place_lost() -> State {
    let late = [Tick, Tick, Ask(C), Execute(C), Deliver(C, 0)];
    let joining = [Place(B), Execute(B), Deliver(B, 0), Discard(B)];
    after(after(one_waits(), &late), &joining)
}

fn after(mut state: State, actions: &[Action]) -> State {
    let setup = Setup::with(Rules::ALL);
    for action in actions {
        assert!(state.may(*action), "{action} in {state:?}");
        state.apply(*action, &setup);
    }
    // What leads here is no fault of the exploration.
    state.spent = Default::default();
    state
}
