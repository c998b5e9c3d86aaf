//! What one client holds, and the largest token it knows.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use lock_core::{BootInstant, Claim, FencingToken, LockName, Nonce, Result};

use crate::file::LockFile;
use crate::record::Record;
use crate::token;

/// A hold of this client.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) name: LockName,
    pub(crate) file: Arc<LockFile>,
    pub(crate) record: Record,
    /// Since when the lock has not been offered to other processes.
    pub(crate) ours_since: BootInstant,
}

#[derive(Debug)]
pub(crate) struct Book {
    held: HashMap<Nonce, Held>,
    fence_base: u64,
    floor: u64,
}

impl Book {
    pub(crate) fn new(fence_base: u64) -> Self {
        Self {
            held: HashMap::new(),
            fence_base,
            floor: fence_base,
        }
    }

    /// The token after `last`. Remembered: whatever becomes of the files, this client's tokens grow.
    pub(crate) fn next_token(&mut self, last: u64) -> Result<FencingToken> {
        let token = token::next(last, self.floor, token::seed(self.fence_base))?;
        self.floor = token.get();
        Ok(token)
    }

    pub(crate) fn insert(&mut self, claim: &Claim, held: Held) {
        self.held.insert(claim.nonce, held);
    }

    pub(crate) fn remove(&mut self, nonce: Nonce) -> Option<Held> {
        self.held.remove(&nonce)
    }

    pub(crate) fn get(&self, nonce: Nonce) -> Option<&Held> {
        self.held.get(&nonce)
    }

    pub(crate) fn drain(&mut self) -> Vec<Held> {
        self.held.drain().map(|(_, held)| held).collect()
    }

    /// Takes out what is held through a file of this name, or any file, and is not in its place any more.
    pub(crate) fn out_of_place(&mut self, file: Option<&OsStr>) -> Vec<Nonce> {
        let lost = |held: &Held| {
            file.is_none_or(|file| held.file.path().file_name() == Some(file))
                // A file that cannot be looked at is not known to be gone.
                && held.file.is_in_place().is_ok_and(|in_place| !in_place)
        };
        let nonces: Vec<Nonce> = self
            .held
            .iter()
            .filter(|(_, held)| lost(held))
            .map(|(nonce, _)| *nonce)
            .collect();
        for nonce in &nonces {
            self.held.remove(nonce);
        }
        nonces
    }
}
