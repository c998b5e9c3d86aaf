//! What the program and its worker processes say to each other: JSON, a line each, over the
//! worker's standard input and output.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::paused::LateWrite;
use crate::sale::{Sale, Tally};

/// One piece of work. The end of the input is the end of the worker.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Job {
    /// Connect to the locks and to the warehouse.
    Join { url: String, warehouse: PathBuf },
    /// Let these buyers in.
    Sell(Sale),
    /// Take the lock and stop short of the write.
    Approach,
    /// Write.
    GoOn,
    /// Buy one item, waiting for whoever has the lock.
    Buy,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Reply {
    Joined,
    Sold(Tally),
    AboutToWrite,
    Wrote(LateWrite),
    Bought { token: u64 },
    Failed(String),
}
