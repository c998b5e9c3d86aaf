//! Nonces that must never win again.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::claim::{Claim, Reach};
use crate::owner::Nonce;

/// Below this many a sweep is not worth its while.
const SWEEP_AT_LEAST: usize = 64;

/// The claims that were given up and could still be asked for.
///
/// A server needs tombstones with a life in seconds, since a request may be under way. Here nothing
/// is: only who has a clone of the claim can ask for it again. So a tombstone listens to the claim's
/// progress, and is dead when that channel has no sender any more.
#[derive(Default)]
pub(super) struct Spent {
    claims: HashMap<Nonce, watch::Receiver<Reach>>,
    sweep_at: usize,
}

impl Spent {
    pub(super) fn add(&mut self, claim: &Claim) {
        if self.claims.len() >= self.sweep_at {
            self.claims.retain(|_, asker| asker.has_changed().is_ok());
            self.sweep_at = SWEEP_AT_LEAST.max(2 * self.claims.len());
        }
        self.claims.insert(claim.nonce, claim.progress.subscribe());
    }

    pub(super) fn has(&self, claim: &Claim) -> bool {
        self.claims.contains_key(&claim.nonce)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }
}
