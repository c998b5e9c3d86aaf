//! What a look at a lock shows.

use std::time::Duration;

use crate::name::LockName;
use crate::owner::{Identity, Nonce};
use crate::token::FencingToken;

/// One lock as its backend saw it at one moment. For people and for tests, never for decisions.
#[derive(Clone, Debug)]
pub struct LockState {
    /// The lock.
    pub name: LockName,
    /// Who holds it. A holder whose lease has ended is not listed.
    pub holders: Vec<HolderState>,
    /// Who waits, in the order of the queue.
    pub waiters: Vec<WaiterState>,
    /// The last token that was granted, as long as the backend remembers it.
    pub last_token: Option<FencingToken>,
}

/// A holder.
#[derive(Clone, Debug)]
pub struct HolderState {
    /// The acquisition.
    pub nonce: Nonce,
    /// Its token.
    pub token: FencingToken,
    /// The client that holds it.
    pub identity: Identity,
    /// For how long it has held, on the backend's clock.
    pub age: Duration,
    /// What is left of its lease, on the backend's clock; `None` when the lease has no end.
    pub remaining: Option<Duration>,
    /// Whether the holder has yet to confirm a hand-off.
    pub provisional: bool,
}

/// A waiter in the backend's queue. The tasks behind it in its own process are not seen.
#[derive(Clone, Debug)]
pub struct WaiterState {
    /// The acquisition.
    pub nonce: Nonce,
    /// The client that waits.
    pub identity: Identity,
    /// For how long it has waited, on the backend's clock.
    pub age: Duration,
}

/// Where a listing goes on. Opaque; the default is the beginning.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cursor(Option<String>);

impl Cursor {
    /// A cursor at a place that only its backend understands.
    #[must_use]
    pub fn at(place: impl Into<String>) -> Self {
        Self(Some(place.into()))
    }

    /// The place; `None` is the beginning.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Some of the names in use.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Names with a holder or a waiter. A name that stays in use for the whole listing is in at
    /// least one of its pages; it may be in more than one.
    pub names: Vec<LockName>,
    /// Where to go on; `None` after the last page. A page may be empty and not be the last.
    pub next: Option<Cursor>,
}
