//! Parts that are broken on purpose, to show that the simulation would find out.

use std::cell::Cell;

/// What can be broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sabotage {
    /// Core: leases are not renewed.
    KeeperSleeps,
    /// Core: a renewal without an answer is taken for a loss.
    FailedRenewalLoses,
    /// Core: a renewal without an answer is taken for a success.
    FailedRenewalCounts,
    /// Core: what could not be released at once is not released at all.
    ReaperForgets,
    /// Core: a place in the server's queue is not given up when its caller is gone.
    CancelForgets,
    /// Core: the local line serves the last first.
    LineUnordered,
    /// Core: nobody who waits for the loss is woken.
    LossUntold,
    /// Core: a guard that is dropped does not give the lock back.
    DropForgets,
    /// Core: what is pushed about a grant that nobody has heard of ends the next one of its nonce.
    EarlyEndBelieved,
    /// Core: whoever waits in line is not sent away when its time is up.
    DeadlineIgnored,
    /// Backend: validity is counted from the reply.
    ValidityFromReply,
    /// Server: a late copy of a released request wins.
    NoTombstones,
    /// Server: the token does not grow.
    TokenReused,
    /// Server: a release frees whoever holds.
    ReleaseIgnoresNonce,
    /// Server: a lease that is over can be renewed.
    RenewalRevives,
    /// Server: a lease ends before its time.
    EarlyExpiry,
    /// Server: the last to come is served first.
    QueueUnordered,
    /// Server: who only tries gets the lock although it is held.
    TryIgnoresHolder,
}

impl Sabotage {
    pub(super) const ALL: [Self; 18] = [
        Self::KeeperSleeps,
        Self::FailedRenewalLoses,
        Self::FailedRenewalCounts,
        Self::ReaperForgets,
        Self::CancelForgets,
        Self::LineUnordered,
        Self::LossUntold,
        Self::DropForgets,
        Self::EarlyEndBelieved,
        Self::DeadlineIgnored,
        Self::ValidityFromReply,
        Self::NoTombstones,
        Self::TokenReused,
        Self::ReleaseIgnoresNonce,
        Self::RenewalRevives,
        Self::EarlyExpiry,
        Self::QueueUnordered,
        Self::TryIgnoresHolder,
    ];
}

thread_local! {
    static BROKEN: Cell<Option<Sabotage>> = const { Cell::new(None) };
}

/// Whether this part is broken in the simulations of this thread.
pub(crate) fn broken(part: Sabotage) -> bool {
    BROKEN.get() == Some(part)
}

/// Breaks `part` in all simulations that `work` runs.
pub(super) fn breaking<T>(part: Sabotage, work: impl FnOnce() -> T) -> T {
    struct Mended;
    impl Drop for Mended {
        fn drop(&mut self) {
            BROKEN.set(None);
        }
    }
    BROKEN.set(Some(part));
    let _mended = Mended;
    work()
}
