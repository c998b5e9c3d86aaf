//! What buyers do.

use std::sync::Arc;
use std::time::Duration;

use distlock::{Clock, FencingToken, Locks};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::warehouse::{ITEM, Receipt, Warehouse};

const TTL: Duration = Duration::from_secs(3);
/// Between reading the stock and writing it: the card is charged.
const PAYMENT: Duration = Duration::from_millis(2);

/// One sale: so many buyers, all at once.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Sale {
    pub(crate) buyers: u32,
    pub(crate) locked: bool,
}

/// How it went for all of them.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Tally {
    /// How many got through, with an item or without.
    pub(crate) sections: u32,
    /// How long each of them waited for the lock, where there was one.
    pub(crate) waits_us: Vec<u64>,
    pub(crate) errors: u32,
    pub(crate) first_error: Option<String>,
}

/// A buyer who got through.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) waited: Option<Duration>,
    pub(crate) token: Option<FencingToken>,
}

/// Lets all the buyers in at once and waits until the last has left.
pub(crate) async fn open(sale: Sale, locks: &Locks, warehouse: &Arc<dyn Warehouse>) -> Tally {
    let mut buyers = JoinSet::new();
    for _ in 0..sale.buyers {
        let (locks, warehouse) = (locks.clone(), Arc::clone(warehouse));
        buyers.spawn(async move {
            if sale.locked {
                visit_locked(&locks, TTL, &*warehouse).await
            } else {
                visit(None, &*warehouse).await
            }
        });
    }
    let mut tally = Tally::default();
    while let Some(left) = buyers.join_next().await {
        tally.add(left.unwrap_or_else(|panic| Err(Failure::new(panic.to_string()))));
    }
    tally
}

/// Visits the warehouse under the lock.
pub(crate) async fn visit_locked(
    locks: &Locks,
    ttl: Duration,
    warehouse: &dyn Warehouse,
) -> Result<Visit, Failure> {
    let clock = Clock::system();
    let asked = clock.now();
    let guard = locks.mutex(ITEM).ttl(ttl).acquire().await?;
    let waited = clock.now().saturating_since(asked);
    let token = Some(guard.token());
    guard
        .run(visit(token, warehouse))
        .await
        .map_err(distlock::Error::from)??;
    guard.release().await?;
    Ok(Visit {
        waited: Some(waited),
        token,
    })
}

/// Reads the stock, pays, and writes that there is one less.
async fn visit(token: Option<FencingToken>, warehouse: &dyn Warehouse) -> Result<Visit, Failure> {
    let stock = warehouse.stock().await?;
    if let Some(left) = stock.checked_sub(1) {
        tokio::time::sleep(PAYMENT).await;
        if let Receipt::Stale(why) = warehouse.sell(left, token).await? {
            return Err(Failure::new(why));
        }
    }
    Ok(Visit {
        waited: None,
        token,
    })
}

impl Tally {
    fn add(&mut self, visit: Result<Visit, Failure>) {
        match visit {
            Ok(visit) => {
                self.sections += 1;
                self.waits_us.extend(visit.waited.map(micros));
            }
            Err(failure) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| failure.to_string());
            }
        }
    }

    /// Adds what another process counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.sections += other.sections;
        self.waits_us.extend(other.waits_us);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
