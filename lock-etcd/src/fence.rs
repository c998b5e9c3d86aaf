//! Proof, inside of etcd, that a lock is still held.

use etcd_client::{Compare, CompareOp};
use lock_core::{Grant, Guard};

use crate::txn::Held;

/// A condition for transactions on data in the same etcd: "the lock is still held".
///
/// A token protects any resource that compares it; data in the etcd that keeps the lock needs no
/// token. The transaction that writes it carries this condition, and the server itself refuses a
/// holder whose lock has ended, however long that holder was paused before it sent.
///
/// # Examples
/// ```no_run
/// # async fn write(guard: lock_core::Guard, mut kv: lock_etcd::etcd_client::KvClient)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use lock_etcd::Fence;
/// use lock_etcd::etcd_client::{Txn, TxnOp};
///
/// let fence = Fence::of(&guard).ok_or("this lock is not in etcd")?;
/// let write = Txn::new()
///     .when([fence.held()])
///     .and_then([TxnOp::put("stock/42", "17", None)]);
/// if !kv.txn(write).await?.succeeded() {
///     // The lock was lost: nothing was written.
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Source
/// M. Burrows, "The Chubby lock service" (2006), section 2.4: sequencers, checked by the server that
/// is written to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fence {
    held: Held,
}

impl Fence {
    pub(crate) const fn new(held: Held) -> Self {
        Self { held }
    }

    /// The fence of a lock that is held; `None` when its backend is not etcd.
    #[must_use]
    pub fn of(guard: &Guard) -> Option<&Self> {
        guard.record()
    }

    /// The fence of a grant, for who uses the backend without core.
    #[must_use]
    pub fn of_grant(grant: &Grant) -> Option<&Self> {
        grant.record()
    }

    /// True in the server exactly as long as the lock is held by this acquisition.
    ///
    /// The transaction has to be sent to the cluster that keeps the lock.
    #[must_use]
    pub fn held(&self) -> Compare {
        Compare::create_revision(self.held.key.clone(), CompareOp::Equal, self.held.created)
    }

    /// The key that is there as long as the lock is held.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.held.key
    }

    /// The revision at which the key was created for this acquisition; the token less the
    /// `fence_base` of the clients.
    #[must_use]
    pub const fn create_revision(&self) -> i64 {
        self.held.created
    }
}
