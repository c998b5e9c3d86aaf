//! A fence for data in the same ZooKeeper.

use lock_core::{ErrorKind, Guard, Result};
use zookeeper_client::{CheckWriter, Client};

use crate::error::invalid;
use crate::node::Place;

/// The node of one hold: who proves that it is still there, holds.
///
/// A hold's node is unique, and is gone before the next holder is granted the lock. So a transaction
/// that begins with a check of this node is refused *by the server* once the hold is over, however
/// late it arrives: the writer need not compare tokens, and a paused process does no harm.
///
/// # Examples
/// ```no_run
/// # async fn write(guard: lock_core::Guard, client: lock_zk::zookeeper_client::Client)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let fence = lock_zk::Fence::of(&guard).ok_or("not a lock of ZooKeeper")?;
/// let mut write = fence.writer(&client)?;
/// write.add_set_data("/accounts/42", b"17", None)?;
/// // Refused with `CheckFailed` when the lock is not held any more.
/// write.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fence {
    path: String,
    czxid: i64,
}

impl Fence {
    pub(crate) fn new(chroot: &str, place: &Place) -> Self {
        Self {
            path: format!("{chroot}{}", place.path),
            czxid: place.czxid,
        }
    }

    /// The fence of this hold; `None` when its lock is not one of ZooKeeper.
    #[must_use]
    pub fn of(guard: &Guard) -> Option<Self> {
        guard.record::<Self>().cloned()
    }

    /// The hold's node, from the root of the ensemble.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The transaction that made the node: the token without a fence base.
    #[must_use]
    pub const fn czxid(&self) -> i64 {
        self.czxid
    }

    /// A transaction that is executed only while the hold lasts. `client` is any client of the same
    /// ensemble that may read the lock's nodes; the check is the transaction's first operation.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the client's chroot does not contain the lock's nodes.
    pub fn writer<'a>(&self, client: &'a Client) -> Result<CheckWriter<'a>> {
        let root = match client.path() {
            "/" => "",
            root => root,
        };
        let path = self
            .path
            .strip_prefix(root)
            .filter(|path| path.starts_with('/'))
            .ok_or_else(|| {
                invalid(
                    "fence",
                    format!(
                        "{:?} is not below {root:?}, the root of this client",
                        self.path
                    ),
                )
            })?;
        client.new_check_writer(path, None).map_err(|source| {
            lock_core::Error::new(ErrorKind::Invalid, "fence").with_source(source)
        })
    }
}
