//! The third act: a buyer that is paused while it holds the lock, and writes after its TTL.

use std::time::Duration;

use distlock::{Guard, Locks};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::warehouse::{ITEM, Receipt, Warehouse};

/// Short, since the next buyer waits for its end.
pub(crate) const TTL: Duration = Duration::from_millis(1_000);

/// A buyer that has the lock, has read the stock, has checked that the lock is still its own, and is
/// about to write. No check can come later than this one.
#[derive(Debug)]
pub(crate) struct AboutToWrite {
    guard: Guard,
    stock: u32,
}

/// What came of the write when the buyer went on.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LateWrite {
    pub(crate) token: u64,
    /// Why the gate refused it; `None` when it was let through.
    pub(crate) refused: Option<String>,
    /// Whether the buyer's own guard says by now that the lock is lost.
    pub(crate) noticed: bool,
}

impl AboutToWrite {
    /// Takes the lock: renewed by a keeper that stops with its process, or for a fixed time.
    pub(crate) async fn get(
        locks: &Locks,
        fixed: bool,
        warehouse: &dyn Warehouse,
    ) -> Result<Self, Failure> {
        let mutex = locks.mutex(ITEM).ttl(TTL);
        let mutex = if fixed { mutex.fixed() } else { mutex };
        let guard = mutex.acquire().await?;
        let stock = warehouse.stock().await?;
        guard.check()?;
        Ok(Self { guard, stock })
    }

    /// Goes on after the pause, without looking at a clock again.
    pub(crate) async fn write(self, warehouse: &dyn Warehouse) -> Result<LateWrite, Failure> {
        let token = self.guard.token();
        let left = self.stock.saturating_sub(1);
        let refused = match warehouse.sell(left, Some(token)).await? {
            Receipt::Sold => None,
            Receipt::Stale(why) => Some(why),
        };
        let noticed = self.guard.check().is_err();
        self.guard.release().await?;
        Ok(LateWrite {
            token: token.get(),
            refused,
            noticed,
        })
    }
}
