//! The contract of distlock: one lock API, the trait that a backend implements, and the in-memory
//! backend that is their reference.
mod backend;
mod book;
mod capability;
mod claim;
mod client;
mod clock;
mod error;
mod gate;
mod gauge;
mod grant;
mod guard;
mod hold;
mod keeper;
mod lease;
mod line;
mod locks;
mod memory;
mod message;
mod mutex;
mod name;
mod options;
mod owner;
mod queue;
mod reaper;
mod registry;
mod shared;
#[cfg(test)]
mod simulation;
mod state;
mod token;
mod url;

pub use crate::backend::{Backend, Connect, Context, Event};
pub use crate::capability::{
    Capabilities, CrashRelease, FenceStrength, Guarantee, Scope, TtlRange, WaitOrder,
};
pub use crate::claim::{Claim, Lease, Mode, Progress, Reach};
pub use crate::client::ShutdownReport;
pub use crate::clock::{BootInstant, Clock, ManualClock};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::gate::{FenceGate, MemoryGate};
pub use crate::grant::{Grant, Passed, Renewal, Replaced, Standing, Validity};
pub use crate::guard::{Guard, RunError};
pub use crate::lease::LossReason;
pub use crate::locks::{Locks, Stats};
pub use crate::memory::MemoryStore;
pub use crate::message::Released;
pub use crate::mutex::Mutex;
pub use crate::name::LockName;
pub use crate::options::ClientOptions;
pub use crate::owner::{Identity, Nonce, OwnerId};
pub use crate::registry::{ReadUrl, Registry};
pub use crate::state::{Cursor, HolderState, LockState, Page, WaiterState};
pub use crate::token::FencingToken;
pub use crate::url::{HostPort, LockUrl};
/// The attribute that [`Backend`] implementations need.
pub use async_trait::async_trait;
