//! Locks as keys: which key a claim has, and what is kept under it.
//!
//! A lock is the keys under `queue⇥NAME⇥`, one for each claim, in the order in which they came. The first may hold the
//! lock; it does once its record says `granted`. Names have no control characters, so a tab ends them without escaping.

use lock_core::{Claim, Error, ErrorKind, Identity, LockName, Nonce, Result};
use serde::{Deserialize, Serialize};

use crate::protocol::Entry;

/// What begins the keys of all claims of this lock.
pub(crate) fn queue(name: &LockName) -> String {
    format!("queue\t{name}\t")
}

/// What begins the keys of all locks whose names begin with `prefix`.
pub(crate) fn queues(prefix: &str) -> String {
    format!("queue\t{prefix}")
}

/// The key of a claim.
pub(crate) fn place(claim: &Claim) -> String {
    format!("{}{}", queue(&claim.name), claim.nonce)
}

/// The key that keeps a claim which was given up from coming again.
pub(crate) fn spent(claim: &Claim) -> String {
    format!("spent\t{}", claim.nonce)
}

#[derive(Deserialize, Serialize)]
struct Record {
    identity: String,
    granted: bool,
}

/// What a claim keeps under its key.
pub(crate) fn record(claim: &Claim, granted: bool) -> String {
    let identity = claim.identity.to_string();
    serde_json::json!(Record { identity, granted }).to_string()
}

/// A claim as the server has it.
pub(crate) struct Standing {
    pub(crate) name: LockName,
    pub(crate) nonce: Nonce,
    pub(crate) identity: Identity,
    pub(crate) granted: bool,
}

impl Standing {
    /// # Errors
    /// [`ErrorKind::WrongType`] when it is nobody's claim.
    pub(crate) fn read(entry: &Entry, op: &'static str) -> Result<Self> {
        let claim = || {
            let (name, nonce) = entry.key.strip_prefix("queue\t")?.split_once('\t')?;
            let record: Record = serde_json::from_str(&entry.value).ok()?;
            Some(Self {
                name: LockName::new(name).ok()?,
                nonce: nonce.parse().ok()?,
                identity: record.identity.parse().ok()?,
                granted: record.granted,
            })
        };
        claim().ok_or_else(|| {
            Error::new(ErrorKind::WrongType, op)
                .with_detail(format!("the key {:?} is not a claim's", entry.key))
        })
    }
}
