//! What every group of mutants needs.

pub(crate) use std::collections::HashMap;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub(crate) use std::time::Duration;

pub(crate) use futures_util::FutureExt;
pub(crate) use futures_util::stream::{BoxStream, StreamExt};
pub(crate) use lock_conformance::async_trait;
pub(crate) use lock_core::{
    Backend, Capabilities, Claim, Clock, Connect, Context, Cursor, Error, ErrorKind, Event,
    FencingToken, Grant, Identity, LockName, LockState, MemoryStore, Mode, Nonce, Page, Passed,
    Reach, Renewal, Replaced, Result, Standing, Validity,
};

use tokio::sync::mpsc;

pub(crate) use crate::bend::{Bend, CLAIM_WINDOW, Real, passed_on};
pub(crate) use crate::mutant::{Mutant, mutant};

pub(crate) fn token(number: u64) -> FencingToken {
    FencingToken::new(number).expect("mutants keep to numbers that are tokens")
}

/// The whole TTL of `claim`, counted from now.
pub(crate) fn whole(clock: &Clock, claim: &Claim) -> Validity {
    let now = clock.now();
    Validity::new(now, now, claim.ttl)
}

/// The same acquisition of the same client, of which core does not see how far it comes.
pub(crate) fn unobserved(claim: &Claim) -> Claim {
    let mut copy = fresh(claim);
    copy.nonce = claim.nonce;
    copy
}

/// Another acquisition of the same client.
pub(crate) fn fresh(claim: &Claim) -> Claim {
    Claim::new(claim.name.clone(), claim.identity.clone(), claim.ttl).with_lease(claim.lease)
}

/// What several connections of one arena share.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that is told of nothing.
pub(crate) fn silence() -> BoxStream<'static, Event> {
    futures_util::stream::pending().boxed()
}

/// What is pushed to whoever takes it first; others are told of nothing.
pub(crate) fn pushed(events: Option<mpsc::UnboundedReceiver<Event>>) -> BoxStream<'static, Event> {
    let Some(events) = events else {
        return silence();
    };
    futures_util::stream::unfold(events, |mut events| async move {
        events.recv().await.map(|event| (event, events))
    })
    .boxed()
}

/// What the memory backend declares.
pub(crate) fn capabilities_of_memory() -> Capabilities {
    let context = Context::new(Identity::of_this_process("mutants"));
    let connecting = MemoryStore::new();
    let connected = connecting.connect(context).now_or_never();
    let backend = connected.expect("memory has nothing to wait for");
    backend.expect("memory is always there").capabilities()
}
