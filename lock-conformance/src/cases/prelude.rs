//! What every case needs.

pub(super) use std::sync::Arc;
pub(super) use std::time::Duration;

pub(super) use futures_util::FutureExt;
pub(super) use lock_core::{
    Clock, CrashRelease, Cursor, ErrorKind, FencingToken, Lease, LossReason, OwnerId, Released,
    Renewal, WaitOrder,
};

pub(super) use super::entry::{Entry, case};
pub(super) use crate::case::{Failure, Fault, Need};
pub(super) use crate::history;
pub(super) use crate::stand::{
    LONG, SOON, Stand, ensure, ensure_eq, ensure_growing, ensure_kind, ensure_pending, joined,
    released_clean, timed, within,
};

/// What the body of a case answers.
pub(super) type Check = Result<(), Failure>;

pub(super) const FIFO: Need = Need::Capability("waiters served in order", |caps| {
    caps.wait_order == WaitOrder::Fifo
});
pub(super) const TTL: Need = Need::Capability("leases that end", |caps| caps.ttl.is_some());
pub(super) const CRASH: Need = Need::Capability("replacing a process that died", |caps| {
    caps.ttl.is_some() || caps.crash_release == CrashRelease::ProcessExit
});
pub(super) const BREAK: Need = Need::Capability("breaking a hold", |caps| caps.break_hold);
pub(super) const LIST: Need = Need::Capability("listing locks", |caps| caps.list);
pub(super) const CLAIM_WINDOW: Need = Need::Capability("hand-off with a claim window", |caps| {
    caps.claim_window.is_some()
});

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What must be there, or the case fails.
#[track_caller]
pub(super) fn some<T>(value: Option<T>, what: &str) -> Result<T, Failure> {
    let at = std::panic::Location::caller();
    value.ok_or_else(|| Failure::new(format!("{what} ({at})")))
}
