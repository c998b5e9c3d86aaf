//! Where stale writes are stopped: at the resource.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::token::FencingToken;

/// What a protected resource asks before it applies a write.
///
/// One interface for every place that a largest token can be kept: in memory ([`MemoryGate`]), and
/// with later backends in SQL, Redis or etcd beside the data itself, which takes a request.
#[async_trait]
pub trait FenceGate: Send + Sync {
    /// Admits the write that carries `token`, and refuses every smaller token from now on.
    ///
    /// An equal token is admitted: one hold may write several times.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] when a larger token has been seen: the writer is no longer the holder. Any
    /// other error as of the place where the token is kept: then the write must not be applied.
    ///
    /// # Cancel safety
    /// Cancel safe. A dropped call may still have admitted the token, which refuses older ones.
    async fn admit(&self, slot: &str, token: FencingToken) -> Result<()>;
}

/// A [`FenceGate`] in memory, with one largest token per slot.
///
/// A slot is what one lock protects, most simply the lock's name; a semaphore's permits have a slot
/// each. The admission and the write that it is for must not be separated by another admission: hold
/// the resource's own mutex over both, or write only what came with the largest token.
///
/// # Examples
/// ```
/// use lock_core::{FencingToken, MemoryGate};
/// let gate = MemoryGate::new();
/// gate.admit_now("stock", FencingToken::new(7)?)?;
/// gate.admit_now("stock", FencingToken::new(7)?)?;
/// gate.admit_now("stock", FencingToken::new(9)?)?;
/// assert!(gate.admit_now("stock", FencingToken::new(8)?).is_err());
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryGate {
    highest: Mutex<HashMap<String, FencingToken>>,
}

impl MemoryGate {
    /// A gate that has seen no token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest token that `slot` has seen.
    #[must_use]
    pub fn highest(&self, slot: &str) -> Option<FencingToken> {
        self.highest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(slot)
            .copied()
    }

    /// [`FenceGate::admit`] without waiting, for code that holds the resource's own mutex.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] when a larger token has been seen.
    pub fn admit_now(&self, slot: &str, token: FencingToken) -> Result<()> {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        match highest.get_mut(slot) {
            Some(seen) if *seen > token => Err(Error::new(ErrorKind::Lost, "write")
                .with_detail(format!("token {token} is stale: {slot:?} has seen {seen}"))),
            Some(seen) => {
                *seen = token;
                Ok(())
            }
            None => {
                highest.insert(slot.to_owned(), token);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl FenceGate for MemoryGate {
    async fn admit(&self, slot: &str, token: FencingToken) -> Result<()> {
        self.admit_now(slot, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_token_is_refused_and_slots_are_apart() {
        let token = |value| FencingToken::new(value).expect("a good token");
        let gate = MemoryGate::new();
        assert_eq!(gate.highest("a"), None);
        gate.admit_now("a", token(5)).expect("first");
        gate.admit_now("a", token(5))
            .expect("several writes in one hold");
        let stale = gate.admit_now("a", token(4)).expect_err("stale");
        assert_eq!(stale.kind(), ErrorKind::Lost);
        gate.admit_now("b", token(1)).expect("another slot");
        assert_eq!(gate.highest("a"), Some(token(5)));
    }

    #[tokio::test]
    async fn gate_in_memory_serves_as_any_gate() {
        let gate: Box<dyn FenceGate> = Box::new(MemoryGate::new());
        let token = |value| FencingToken::new(value).expect("a good token");
        gate.admit("a", token(5)).await.expect("first");
        let stale = gate.admit("a", token(4)).await.expect_err("stale");
        assert_eq!(stale.kind(), ErrorKind::Lost);
    }
}
