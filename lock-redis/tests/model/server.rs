//! The server: one lock, and the scripts that change it.
//!
//! Times in here are the server's. A holder's record is a hash, the queue a sorted set with a hash
//! beside it; here both are one list in the order of the scores.

mod lua;

use crate::network::{Reply, Request, Script, Standing};
use crate::rules::Rules;
use crate::state::{CLAIM, Nonce, Nonces, Time, Token};

/// Between two place renewals: at the head of the queue, and behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Periods {
    pub(crate) head: Time,
    pub(crate) behind: Time,
}

impl Periods {
    fn at(self, place: usize) -> Time {
        if place <= 1 { self.head } else { self.behind }
    }

    /// How long a waiter's lease is: several of its periods, and at least the claim window.
    fn lease(again: Time) -> Time {
        CLAIM.max(2 * again)
    }

    pub(crate) fn longest_lease(self) -> Time {
        Self::lease(self.behind)
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Server {
    /// The server's clock less true time.
    pub(crate) offset: Time,
    pub(crate) holder: Option<Holder>,
    pub(crate) last: Token,
    pub(crate) queue: Vec<Waiter>,
    pub(crate) tombstones: Nonces,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Holder {
    pub(crate) nonce: Nonce,
    pub(crate) expires: Time,
    pub(crate) lease: Time,
    pub(crate) provisional: bool,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Waiter {
    pub(crate) nonce: Nonce,
    pub(crate) ends: Time,
    pub(crate) lease: Time,
    pub(crate) floor: Token,
    /// For the properties: when its client's turn came into the queue.
    pub(crate) arrival: u8,
}

/// What a script did besides answering.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// The lock was given to `nonce`, which had come into the queue at `arrival`, if it stood there.
    Granted {
        nonce: Nonce,
        token: Token,
        arrival: Option<u8>,
        /// It took over from a nonce of the same client.
        inherited: bool,
    },
    /// A message was published to the client of this nonce.
    Pushed {
        nonce: Nonce,
        token: Token,
        lease: Time,
        server: Time,
    },
    Queued {
        nonce: Nonce,
        arrival: u8,
    },
    /// A waiter whose lease had ended was removed.
    Swept(Nonce),
    /// A lease that a script had seen ended runs again.
    Revived,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            offset: 100,
            holder: None,
            last: 0,
            queue: Vec::new(),
            tombstones: Nonces::default(),
        }
    }

    pub(crate) fn clock(&self, now: Time) -> Time {
        now + self.offset
    }

    /// The first token that the clock alone would give: more grants than this in a tick do not happen.
    pub(crate) fn token_of(clock: Time) -> Token {
        64 * Token::try_from(clock).expect("clocks are positive")
    }

    pub(crate) fn live(&self, clock: Time) -> Option<Holder> {
        self.holder.filter(|holder| holder.expires > clock)
    }

    pub(crate) fn place(&self, nonce: Nonce) -> Option<usize> {
        self.queue.iter().position(|waiter| waiter.nonce == nonce)
    }

    /// Runs the script of `request` at `clock`. `arrivals` counts entries of the queue.
    pub(crate) fn run(
        &mut self,
        request: &Request,
        clock: Time,
        rules: Rules,
        periods: Periods,
        arrivals: &mut u8,
    ) -> (Reply, Vec<Effect>) {
        let mut run = Run {
            lock: self,
            now: clock,
            floor: request.floor,
            rules,
            periods,
            arrivals,
            effects: Vec::new(),
        };
        // Such a script does not even look at the lock.
        if let Script::Acquire { nonce, .. } = request.script
            && run.is_buried(nonce)
        {
            return (Reply::Claim(Standing::Dead), run.effects);
        }
        let ended = run.open();
        let reply = match request.script {
            Script::Acquire { nonce, why } => Reply::Claim(run.acquire(nonce, why)),
            Script::Place { nonce } => Reply::Claim(run.place(nonce)),
            Script::Renew { nonce } => Reply::Renewed(run.renew(nonce)),
            Script::Release { nonce, bury } => Reply::Released(run.release(nonce, bury)),
            Script::Pass { held, bury, next } => {
                let (released, next) = run.pass(held, bury, next);
                Reply::Passed(released, next)
            }
            Script::Replace { old, next } => Reply::Claim(run.replace(old, next)),
        };
        if ended.is_some() && run.live() && ended == Some(run.lock.last) {
            run.effects.push(Effect::Revived);
        }
        let effects = run.effects;
        (reply, effects)
    }
}

/// One script while it runs.
struct Run<'a> {
    lock: &'a mut Server,
    now: Time,
    floor: Token,
    rules: Rules,
    periods: Periods,
    arrivals: &'a mut u8,
    effects: Vec<Effect>,
}
