//! One acquisition that was granted, shared by its guards, the keeper and its line.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::claim::{Claim, Lease};
use crate::clock::{BootInstant, Clock};
use crate::grant::{Grant, Validity};
use crate::lease::{LeaseEvent, LeaseState, LossReason};
use crate::owner::OwnerId;
#[cfg(test)]
use crate::simulation::{Sabotage, broken};
use crate::token::FencingToken;

#[derive(Debug)]
pub(crate) struct Hold {
    grant: Grant,
    owner: Option<OwnerId>,
    clock: Clock,
    lease: Mutex<LeaseState>,
    /// Rings when it ends.
    ended: Notify,
}

impl Hold {
    pub(crate) fn new(
        grant: Grant,
        owner: Option<OwnerId>,
        max_hold: Option<Duration>,
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        let kept = grant.claim().lease == Lease::Kept;
        let lease = LeaseState::new(
            grant.validity(),
            kept,
            max_hold.map(|length| now + length),
            now,
            jitter(grant.claim().ttl),
        );
        Self {
            grant,
            owner,
            clock,
            lease: Mutex::new(lease),
            ended: Notify::new(),
        }
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(crate) fn claim(&self) -> &Claim {
        self.grant.claim()
    }

    pub(crate) fn token(&self) -> FencingToken {
        self.grant.token()
    }

    pub(crate) fn owner(&self) -> Option<OwnerId> {
        self.owner
    }

    pub(crate) fn validity(&self) -> Validity {
        self.lease().validity()
    }

    /// When the backend has ended the lease at the latest, if nothing renews it from now on.
    pub(crate) fn free_by(&self) -> BootInstant {
        let lease = self.lease();
        let answered = lease.validity().free_by();
        if lease.renewal_unanswered() {
            let now = self.clock.now();
            answered.max(Validity::new(now, now, self.claim().ttl).free_by())
        } else {
            answered
        }
    }

    /// When the keeper has to look at it again.
    pub(crate) fn due(&self) -> Option<BootInstant> {
        self.lease().due()
    }

    /// When the next renewal is planned.
    pub(crate) fn renew_at(&self) -> Option<BootInstant> {
        self.lease().renew_at()
    }

    pub(crate) fn renewal_started(&self) {
        self.lease().renewal_started();
    }

    pub(crate) fn renewal_sent(&self) {
        self.lease().renewal_sent();
    }

    /// Takes note of `event`; answers whether the hold ended by it, and why it has ended if it has.
    pub(crate) fn apply(&self, event: LeaseEvent) -> (bool, Option<LossReason>) {
        let kept = self.claim().lease == Lease::Kept;
        let mut lease = self.lease();
        let before = lease.ended();
        // The clock is read under the mutex: otherwise a reading taken before another thread saw
        // the end could extend the lease after it.
        lease.apply(event, self.clock.now(), kept, jitter(self.claim().ttl));
        let after = lease.ended();
        let ended_now = before.is_none() && after.is_some();
        drop(lease);
        #[cfg(test)]
        if broken(Sabotage::LossUntold) {
            return (ended_now, after);
        }
        if ended_now {
            self.ended.notify_waiters();
        }
        (ended_now, after)
    }

    /// Resolves when it ends, from this call on. Whoever waits is woken in the order of these calls.
    pub(crate) fn end(&self) -> Notified<'_> {
        self.ended.notified()
    }

    fn lease(&self) -> MutexGuard<'_, LeaseState> {
        // A panic while the mutex was held cannot leave the state half written: every change is a
        // single assignment.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Up to a tenth of a third of the TTL.
fn jitter(ttl: Duration) -> Duration {
    (ttl / 30).mul_f64(fastrand::f64())
}
