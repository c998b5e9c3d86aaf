//! What a state of the model is: a server with one lock, clients, what is under way, and what the
//! properties have to remember.

use std::fmt;

use crate::network::{Request, Wire};
use crate::properties::Property;
use crate::server::Server;

/// Ticks: of true time, of a client's clock (which runs with it), or of the server's.
pub(crate) type Time = i16;
pub(crate) type Token = u32;
/// Which client.
pub(crate) type Id = u8;

/// The lease that a client asks for.
pub(crate) const TTL: Time = 5;
/// The lease of a hand-off.
pub(crate) const CLAIM: Time = 2;

/// One acquisition of one client.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Nonce {
    pub(crate) client: Id,
    pub(crate) serial: u8,
}

/// How many acquisitions a client can begin.
pub(crate) const SERIALS: u8 = 8;

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", name(self.client), self.serial + 1)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn name(id: Id) -> char {
    char::from(b'A' + id)
}

/// A set of nonces.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Nonces(u64);

impl Nonces {
    pub(crate) fn insert(&mut self, nonce: Nonce) {
        self.0 |= Self::bit(nonce);
    }

    pub(crate) fn contains(self, nonce: Nonce) -> bool {
        self.0 & Self::bit(nonce) != 0
    }

    fn bit(nonce: Nonce) -> u64 {
        1 << (u32::from(nonce.client) * u32::from(SERIALS) + u32::from(nonce.serial))
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct State {
    /// True time.
    pub(crate) now: Time,
    pub(crate) server: Server,
    pub(crate) clients: Vec<Client>,
    /// What was in flight on connections that are discarded. The server may still run it, in the
    /// order of its connection, or never.
    pub(crate) late: Vec<Vec<Request>>,
    pub(crate) spent: Spent,
    pub(crate) memory: Memory,
}

/// Faults and wishes that were used up, of those that a scope allows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Spent {
    pub(crate) ticks: u8,
    pub(crate) discards: u8,
    pub(crate) losses: u8,
    pub(crate) crashes: u8,
    pub(crate) cancels: u8,
    pub(crate) steps: u8,
    pub(crate) restarts: u8,
}

/// What only the properties look at.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Memory {
    /// Nonces whose release was confirmed to their client.
    pub(crate) released: Nonces,
    /// The largest token that was ever granted.
    pub(crate) highest: Token,
    /// The server has lost its data. While its clock stands behind tokens that it gave before, tokens
    /// may repeat: a declared exception (R2).
    pub(crate) counter_lost: bool,
    /// Counts entries of the queue, in the order in which they came.
    pub(crate) arrivals: u8,
    /// A property that a step broke, as opposed to a state.
    pub(crate) broken: Option<Property>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Client {
    pub(crate) alive: bool,
    pub(crate) wire: Wire,
    /// The inbox: by nonce, in the order in which they were registered.
    pub(crate) records: Vec<Record>,
    pub(crate) line: Line,
    /// Nonces that are being released.
    pub(crate) cleaning: Vec<Cleaning>,
    /// The largest token that this client has seen.
    pub(crate) seen: Token,
    pub(crate) serials: u8,
    /// For the properties: when this client's turn came into the queue, if it stands there ever since.
    pub(crate) turn: Option<u8>,
}

/// What the client's line is doing (`lock-core/src/line.rs`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Line {
    Idle,
    /// One attempt is under way.
    Trying(Nonce),
    /// It asked for the lock, and stands in its queue when that was answered.
    Asking(Nonce),
    /// A grant that may be over is renewed before it is used.
    Confirming {
        nonce: Nonce,
        token: Token,
    },
    Holding(Hold),
    Passing {
        held: Nonce,
        next: Nonce,
    },
    Replacing {
        old: Nonce,
        next: Nonce,
    },
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Hold {
    pub(crate) nonce: Nonce,
    pub(crate) token: Token,
    /// Until when this client believes to hold, on its own clock.
    pub(crate) until: Time,
    /// This belief is older than a forward step of the server's clock, or than a loss of its data: a
    /// declared exception (R1, R3).
    pub(crate) tainted: bool,
    pub(crate) renewing: bool,
    /// When it was last made whole; one renewal each tick is enough to look at.
    pub(crate) renewed: Option<Time>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Cleaning {
    pub(crate) nonce: Nonce,
    pub(crate) under_way: bool,
}

/// What the inbox knows of a claim (`lock-redis/src/inbox.rs`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Record {
    pub(crate) nonce: Nonce,
    pub(crate) stage: Stage,
    pub(crate) unanswered: u8,
    pub(crate) enqueued: Time,
    pub(crate) reference: Option<Reference>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Stage {
    Asking,
    Waiting { due: Option<Time> },
    Granted(Grant),
    Stale(Grant),
    Taken,
    Leaving,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Grant {
    pub(crate) token: Token,
    pub(crate) until: Time,
    pub(crate) tainted: bool,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Reference {
    /// Of the connection that is in use now.
    pub(crate) current: bool,
    pub(crate) sent: Time,
    pub(crate) server: Time,
    /// The server's clock was stepped forward since.
    pub(crate) tainted: bool,
}

impl State {
    pub(crate) fn new(clients: Id) -> Self {
        Self {
            now: 0,
            server: Server::new(),
            clients: vec![Client::new(); usize::from(clients)],
            late: Vec::new(),
            spent: Spent::default(),
            memory: Memory::default(),
        }
    }

    pub(crate) fn client(&self, id: Id) -> &Client {
        &self.clients[usize::from(id)]
    }

    pub(crate) fn client_mut(&mut self, id: Id) -> &mut Client {
        &mut self.clients[usize::from(id)]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        0..Id::try_from(self.clients.len()).expect("few clients")
    }
}

impl Client {
    fn new() -> Self {
        Self {
            alive: true,
            wire: Wire::connected(),
            records: Vec::new(),
            line: Line::Idle,
            cleaning: Vec::new(),
            seen: 0,
            serials: 0,
            turn: None,
        }
    }

    pub(crate) fn record(&self, nonce: Nonce) -> Option<&Record> {
        self.records.iter().find(|record| record.nonce == nonce)
    }

    pub(crate) fn record_mut(&mut self, nonce: Nonce) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.nonce == nonce)
    }

    /// The nonce for which this client wants the lock, while it does not have it.
    pub(crate) fn wanted(&self) -> Option<Nonce> {
        match self.line {
            Line::Asking(nonce) | Line::Confirming { nonce, .. } => Some(nonce),
            Line::Passing { next, .. } | Line::Replacing { next, .. } => Some(next),
            Line::Idle | Line::Trying(_) | Line::Holding(_) => None,
        }
    }

    pub(crate) fn hold(&self) -> Option<&Hold> {
        match &self.line {
            Line::Holding(hold) => Some(hold),
            _ => None,
        }
    }
}
