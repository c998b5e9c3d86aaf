//! What must hold in every state, and after every step.

use std::fmt;

use crate::server::{Effect, Server};
use crate::state::{Client, Id, Line, State};

/// A promise of the protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Property {
    /// R1: at most one client believes to hold the lock.
    Exclusion,
    /// R3: a client believes to hold only while the server says so, and no longer.
    Validity,
    /// R2: tokens grow in the order of grants, and none comes twice.
    TokensGrow,
    /// R2: a client never gets a token that is not larger than all it has seen, whatever a server lost.
    TokensGrowForEach,
    /// R5, R8: a nonce whose release was confirmed never holds and never waits again.
    NoGhosts,
    /// R5: a lease that has ended never runs again.
    NoRevival,
    /// R7: a client that waits without a break is not overtaken.
    InTurn,
    /// R3: nobody is handed a grant that is over.
    HandedOutInTime,
    /// R6, R7: when faults stop, whoever waits is granted the lock within a bound.
    Progress,
    /// R8, R12: when everybody has what it wanted, nothing is left.
    NothingLeft,
    /// R7: when faults stop, dead waiters do not stay in front of live ones.
    NoDeadInFront,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exclusion => "two clients believe to hold the lock",
            Self::Validity => "a client believes to hold for longer than the server lets it",
            Self::TokensGrow => "a token is not larger than the one before",
            Self::TokensGrowForEach => "a token is not larger than what its client has seen",
            Self::NoGhosts => "a nonce whose release was confirmed holds or waits",
            Self::NoRevival => "a lease that had ended runs again",
            Self::InTurn => "a waiting client was overtaken",
            Self::HandedOutInTime => "a grant was handed out that was over",
            Self::Progress => "a live waiter does not get the lock within the bound",
            Self::NothingLeft => "something is left when everybody is done",
            Self::NoDeadInFront => "a dead waiter stays in front of a live one",
        })
    }
}

/// What is broken in `state`, or was by the step to it.
pub(crate) fn check(state: &State) -> Result<(), Property> {
    if let Some(broken) = state.memory.broken {
        return Err(broken);
    }
    let believing = state
        .clients
        .iter()
        .filter(|client| believes(client, state));
    if believing.count() > 1 {
        return Err(Property::Exclusion);
    }
    let outlives = |client: &&Client| believes(client, state) && !justified(client, state);
    if state.clients.iter().any(|client| outlives(&client)) {
        return Err(Property::Validity);
    }
    let server = &state.server;
    let known = server.queue.iter().map(|waiter| waiter.nonce);
    let mut known = known.chain(server.holder.map(|holder| holder.nonce));
    if known.any(|nonce| state.memory.released.contains(nonce)) {
        return Err(Property::NoGhosts);
    }
    Ok(())
}

/// Whether this client believes to hold, and no declared exception excuses it.
fn believes(client: &Client, state: &State) -> bool {
    client
        .hold()
        .is_some_and(|hold| state.now < hold.until && !hold.tainted)
}

fn justified(client: &Client, state: &State) -> bool {
    let (Some(hold), Some(holder)) = (client.hold(), state.server.holder) else {
        return false;
    };
    holder.nonce == hold.nonce && hold.until <= holder.expires - state.server.offset
}

/// Takes note of what a script did.
pub(crate) fn observe(state: &mut State, effect: Effect) {
    match effect {
        Effect::Granted {
            nonce,
            token,
            arrival,
            inherited,
        } => {
            let overtaken = !inherited && overtaken(state, nonce.client, arrival);
            let behind = Server::token_of(state.server.clock(state.now)) <= state.memory.highest;
            let memory = &mut state.memory;
            let grew = token > memory.highest || memory.counter_lost && behind;
            memory.highest = memory.highest.max(token);
            let client = state.client_mut(nonce.client);
            let grew_for_it = token > client.seen || !client.alive;
            if stands_by(client, nonce) {
                client.turn = None;
            }
            let memory = &mut state.memory;
            if overtaken {
                memory.broken.get_or_insert(Property::InTurn);
            }
            if !grew_for_it {
                memory.broken.get_or_insert(Property::TokensGrowForEach);
            }
            if !grew {
                memory.broken.get_or_insert(Property::TokensGrow);
            }
        }
        Effect::Queued { nonce, arrival } => {
            let client = state.client_mut(nonce.client);
            if client.wanted() == Some(nonce) {
                client.turn.get_or_insert(arrival);
            }
        }
        Effect::Swept(nonce) => {
            let client = state.client_mut(nonce.client);
            if stands_by(client, nonce) {
                client.turn = None;
            }
        }
        Effect::Revived => {
            state.memory.broken.get_or_insert(Property::NoRevival);
        }
        Effect::Pushed { .. } => {}
    }
}

/// Whether it is by `nonce` that this client stands in the queue.
fn stands_by(client: &Client, nonce: crate::state::Nonce) -> bool {
    let replaced = matches!(client.line, Line::Replacing { old, .. } if old == nonce);
    client.wanted() == Some(nonce) || replaced
}

/// Whether a grant to `favoured`, whose turn came at `arrival`, leaves out somebody who was earlier.
fn overtaken(state: &State, favoured: Id, arrival: Option<u8>) -> bool {
    let clock = state.server.clock(state.now);
    let arrival = arrival.unwrap_or(u8::MAX);
    state.ids().filter(|id| *id != favoured).any(|id| {
        let client = state.client(id);
        let earlier = client.turn.is_some_and(|turn| turn < arrival);
        let mut entries = state
            .server
            .queue
            .iter()
            .filter(|waiter| stands_by(client, waiter.nonce))
            .peekable();
        // An entry whose lease has ended has lost its turn; a missing one was taken away by others.
        let stands = entries.peek().is_none() || entries.any(|waiter| waiter.ends > clock);
        client.alive && earlier && stands
    })
}
