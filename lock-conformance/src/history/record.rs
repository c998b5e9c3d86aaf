//! What the backend itself says, apart from anything a client believes.

use serde::{Deserialize, Serialize};

/// One entry of the backend's own record of who held what. Records are given in the backend's own
/// order: its log, its revisions, its transaction ids.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The lock.
    pub name: String,
    /// The fencing token of the hold.
    pub token: u64,
    /// Which end of the hold it is.
    pub what: Stood,
}

/// An end of a hold, as the backend has it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Stood {
    /// From here on the backend has it as the holder.
    Began,
    /// From here on it has not: released, expired, broken.
    Ended,
}
