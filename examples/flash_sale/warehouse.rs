//! The resource that the lock protects: the stock of one item, and who was sold one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use distlock::{FencingToken, MemoryGate, async_trait};

use crate::failure::Failure;

/// The lock's name, and the gate's slot.
pub(crate) const ITEM: &str = "stock/item-1";

/// What buyers do with the stock. Reading and writing are two steps, as with a row in a database:
/// whatever comes in between is overwritten, unless something keeps it out.
#[async_trait]
pub(crate) trait Warehouse: Send + Sync {
    async fn stock(&self) -> Result<u32, Failure>;

    /// Writes that `left` are left, and takes down the order.
    async fn sell(&self, left: u32, token: Option<FencingToken>) -> Result<Receipt, Failure>;
}

#[derive(Debug)]
pub(crate) enum Receipt {
    Sold,
    /// The gate has let a newer holder pass; nothing was written.
    Stale(String),
}

/// The warehouse itself, in the memory of one process.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    count: Mutex<Count>,
    gate: MemoryGate,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    /// How many there were.
    pub(crate) stock: u32,
    /// How many are left, as the last buyer wrote.
    pub(crate) left: u32,
    /// How many orders were taken down.
    pub(crate) sold: u32,
}

impl Shelf {
    /// Begins anew with this many. The gate remembers its tokens: the lock goes on.
    pub(crate) fn restock(&self, stock: u32) {
        *self.lock() = Count {
            stock,
            left: stock,
            sold: 0,
        };
    }

    pub(crate) fn count(&self) -> Count {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Warehouse for Shelf {
    async fn stock(&self) -> Result<u32, Failure> {
        Ok(self.lock().left)
    }

    async fn sell(&self, left: u32, token: Option<FencingToken>) -> Result<Receipt, Failure> {
        // Held over the admission and the write, so that no other admission comes in between.
        let mut count = self.lock();
        if let Some(token) = token
            && let Err(stale) = self.gate.admit_now(ITEM, token)
        {
            return Ok(Receipt::Stale(stale.to_string()));
        }
        count.left = left;
        count.sold += 1;
        Ok(Receipt::Sold)
    }
}
