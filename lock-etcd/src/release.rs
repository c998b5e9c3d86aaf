//! Giving up: what was held, what waits, and what nobody knows about.

use std::sync::Arc;

use etcd_client::KeyValue;
use lock_core::{Claim, ErrorKind, Nonce, Result};

use crate::book::Leaving;
use crate::client::Client;
use crate::connection::Stopped;
use crate::lease::Lease;
use crate::record::Record;
use crate::txn::{self, Answers, Held, Put};

impl Client {
    /// Makes sure that `claim` neither holds nor waits, now and for ever; whether it held.
    pub(crate) async fn release(self: &Arc<Self>, claim: &Claim) -> Result<bool> {
        let nonce = claim.nonce;
        loop {
            let held = match self.book.leaving(nonce, self.now()) {
                Leaving::Nothing => return Ok(false),
                Leaving::Later(mut heard) => {
                    // An error says that the entry is gone; so does the next look.
                    let _ = heard.changed().await;
                    continue;
                }
                Leaving::Delete {
                    held,
                    name,
                    granted,
                } => {
                    // Core knows who holds; of one that waited for all we know, the server does.
                    let look = (!granted).then_some(name.as_slice());
                    let txn = txn::leave(&held, look);
                    let mut found = self.read("release", txn).await?;
                    found.succeeded && (granted || was_first(&mut found, held.created)?)
                }
                Leaving::Bury { put, lease } => self.bury(nonce, &put, &lease).await?,
            };
            self.book.left(nonce);
            return Ok(held);
        }
    }

    /// Makes sure that a request which was never answered can do nothing, and has done nothing;
    /// whether it had got the lock.
    async fn bury(self: &Arc<Self>, nonce: Nonce, put: &Put, lease: &Arc<Lease>) -> Result<bool> {
        let granted = lease.confirmed().await.is_ok();
        if granted && !lease.shared {
            // Every copy of the request needs its lease.
            self.revoke_now(lease.id).await?;
            self.lease_ended(lease, &[]);
            return Ok(false);
        }
        // A lease that was not granted as far as is known may yet be, by a late copy as well: what keeps
        // that of the request from winning needs another, for as long.
        let ground = match granted {
            true => lease.id,
            false => self.lease_apart(lease.asked).await?,
        };
        let put = Put {
            generation: lease.generation(),
            ..put.clone()
        };
        match self.txn("release", put.bury(ground), self.by()).await {
            Ok(mut found) => {
                if found.succeeded {
                    lease.adopt(put.generation + 1);
                    found.skip();
                } else {
                    lease.adopt(found.one()?.map_or(0, |kv| kv.version()));
                }
                let first = found.one()?;
                let was_there = match found.succeeded {
                    true => found.txn()?,
                    false => self.remove_put(nonce, found.one()?).await?,
                };
                Ok(was_there && first.is_some_and(|first| first.key() == put.key))
            }
            Err(stopped) if granted && stopped.is_lease_gone() => {
                self.lease_ended(lease, &[]);
                Ok(false)
            }
            Err(stopped) => Err(self.give_up_lease(lease, stopped).await),
        }
    }

    /// Removes what was found at a claim's key if it was put for `nonce`; whether it was.
    async fn remove_put(&self, nonce: Nonce, found: Option<KeyValue>) -> Result<bool> {
        let mine =
            |kv: &KeyValue| Record::decode(kv.value()).is_some_and(|record| record.nonce == nonce);
        let Some(own) = found.filter(mine) else {
            return Ok(false);
        };
        let held = Held {
            key: own.key().to_vec(),
            created: own.create_revision(),
        };
        let left = self.read("release", txn::leave(&held, None)).await?;
        Ok(left.succeeded)
    }

    /// Where the generation cannot be moved on though the server answers, the lease has to go, and
    /// its locks with it: nothing else keeps a late copy from winning.
    async fn give_up_lease(self: &Arc<Self>, lease: &Arc<Lease>, why: Stopped) -> lock_core::Error {
        let error = why.into_error("release");
        if error.kind() == ErrorKind::Denied && self.revoke_now(lease.id).await.is_ok() {
            tracing::warn!(lease = lease.id, %error, "a lease was given up, and its locks with it");
            self.lease_ended(lease, &[]);
        }
        error
    }
}

/// Whether the claim that was created at `created` was at the head of its queue.
fn was_first(found: &mut Answers, created: i64) -> Result<bool> {
    let first = found.one()?;
    Ok(first.is_some_and(|first| first.create_revision() == created))
}
