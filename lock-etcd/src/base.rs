//! What is added to revisions to make tokens.
//!
//! A system that moves here from another backend wants its tokens to go on where they were. The base
//! is kept in the store, so that clients which were not told of it add it as well; each request that
//! puts a claim proves that it knows the latest one.

use std::sync::{Mutex, PoisonError};

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};
use lock_core::{FencingToken, Result};

use crate::error::protocol;

/// The base as a client knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Base {
    pub(crate) key: Vec<u8>,
    pub(crate) value: u64,
    /// The revision of the key; 0 as long as there is none.
    revision: i64,
}

impl Base {
    fn read(key: &[u8], found: Option<&KeyValue>) -> Result<Self> {
        let odd = || protocol("connect", "the base of tokens does not read as a number");
        let (value, revision) = match found {
            None => (0, 0),
            Some(kv) => {
                let text = kv.value_str().map_err(|_| odd())?;
                (text.parse().map_err(|_| odd())?, kv.mod_revision())
            }
        };
        Ok(Self {
            key: key.to_vec(),
            value,
            revision,
        })
    }

    /// True in the server as long as this is the latest base.
    pub(crate) fn is_latest(&self) -> Compare {
        Compare::mod_revision(self.key.clone(), CompareOp::Equal, self.revision)
    }

    /// Reads the base.
    pub(crate) fn look(&self) -> TxnOp {
        TxnOp::get(self.key.clone(), None)
    }

    /// Makes it `value`, unless somebody else has changed it.
    pub(crate) fn raise(&self, value: u64) -> Txn {
        Txn::new().when([self.is_latest()]).and_then([TxnOp::put(
            self.key.clone(),
            value.to_string(),
            None,
        )])
    }
}

/// The token of a claim that was created at `revision`.
pub(crate) fn token(op: &'static str, base: u64, revision: i64) -> Result<FencingToken> {
    let token = u64::try_from(revision)
        .ok()
        .and_then(|revision| revision.checked_add(base));
    let token = token.ok_or_else(|| protocol(op, "a revision that is no token"))?;
    FencingToken::new(token)
}

/// What came of a look at the base.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Learned {
    Nothing,
    Newer,
    /// The server has less than this client knew of: it has lost it, and is to be told again.
    Lost(u64),
}

/// Where a client keeps what it knows of the base.
#[derive(Debug)]
pub(crate) struct Bases(Mutex<Base>);

impl Bases {
    pub(crate) fn new(key: Vec<u8>) -> Self {
        Self(Mutex::new(Base {
            key,
            value: 0,
            revision: 0,
        }))
    }

    pub(crate) fn latest(&self) -> Base {
        self.lock().clone()
    }

    /// Takes note of what the server has.
    pub(crate) fn learn(&self, found: Option<&KeyValue>) -> Result<Learned> {
        let mut known = self.lock();
        let read = Base::read(&known.key, found)?;
        if read.revision == known.revision {
            return Ok(Learned::Nothing);
        }
        let lost = (read.value < known.value).then_some(known.value);
        // An answer that was overtaken is put right by the next request: it compares the revision.
        *known = read;
        Ok(lost.map_or(Learned::Newer, Learned::Lost))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Base> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_base_and_revision_and_never_wraps() {
        assert_eq!(token("t", 0, 7).expect("a token").get(), 7);
        assert_eq!(token("t", 1000, 7).expect("a token").get(), 1007);
        assert!(token("t", 0, 0).is_err());
        assert!(token("t", 0, -1).is_err());
        assert!(token("t", u64::MAX, 1).is_err());
        assert!(token("t", FencingToken::MAX.get(), 1).is_err());
    }
}
