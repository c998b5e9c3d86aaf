//! When a hold is renewed and when it ends: pure state, no I/O, no clock of its own.

use std::fmt;
use std::time::Duration;

use crate::clock::BootInstant;
use crate::grant::Validity;

/// A renewal comes after one part in this many of what is left.
const RENEW_AFTER: u32 = 3;
/// Failed renewals are not repeated faster than this.
const LEAST_RETRY: Duration = Duration::from_millis(20);

/// Why a hold ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LossReason {
    /// Its guard released it, or was dropped: not a loss.
    Released,
    /// Its validity ended on this machine's clock without a renewal.
    Expired,
    /// The backend said that somebody else has it, or nobody.
    NotHeld,
    /// An operator broke it by force.
    Broken,
    /// The session it shared with other locks of this client ended.
    SessionEnded,
    /// It was kept for the longest time that the client allows.
    MaxHold,
    /// The client was shut down, or its background thread died: nobody renews it any more.
    Closed,
    /// This process is a forked copy of the one that holds it.
    Forked,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "released",
            Self::Expired => "its validity ended without a renewal",
            Self::NotHeld => "the backend says that it is not held",
            Self::Broken => "broken by an operator",
            Self::SessionEnded => "its session ended",
            Self::MaxHold => "held for the longest time allowed",
            Self::Closed => "its client is closed",
            Self::Forked => "held by the process this one was forked from",
        })
    }
}

/// Something that happened to a hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeaseEvent {
    /// Time has passed.
    Tick,
    /// The backend extended it.
    Renewed(Validity),
    /// A renewal was not answered, or refused for a reason that is not about this hold.
    RenewalFailed,
    /// Pushes may have been lost: renew now.
    Verify,
    /// It ended, for this reason.
    End(LossReason),
}

/// The lease of one hold.
#[derive(Clone, Debug)]
pub(crate) struct LeaseState {
    validity: Validity,
    renew_at: Option<BootInstant>,
    keep_until: Option<BootInstant>,
    /// Whether a renewal was sent since the last answer: the backend may keep more than we know.
    unanswered: bool,
    ended: Option<LossReason>,
}

impl LeaseState {
    /// A lease just granted; `kept` until `keep_until` at the latest, or left to end by itself.
    pub(crate) fn new(
        validity: Validity,
        kept: bool,
        keep_until: Option<BootInstant>,
        now: BootInstant,
        jitter: Duration,
    ) -> Self {
        let mut lease = Self {
            validity: bounded(validity, keep_until),
            renew_at: None,
            keep_until,
            unanswered: false,
            ended: None,
        };
        if kept {
            lease.plan_renewal(now, jitter);
        }
        lease
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn ended(&self) -> Option<LossReason> {
        self.ended
    }

    /// When the keeper has to look at it again; `None` once it has ended.
    pub(crate) fn due(&self) -> Option<BootInstant> {
        if self.ended.is_some() {
            return None;
        }
        let end = self.validity.expires_at();
        Some(self.renew_at.map_or(end, |at| at.min(end)))
    }

    /// When the next renewal is planned.
    pub(crate) fn renew_at(&self) -> Option<BootInstant> {
        if self.ended.is_some() {
            None
        } else {
            self.renew_at
        }
    }

    /// A renewal is on its way: until its outcome is known only the end is waited for.
    pub(crate) fn renewal_started(&mut self) {
        self.renew_at = None;
        self.renewal_sent();
    }

    /// A renewal that was not planned is on its way.
    pub(crate) fn renewal_sent(&mut self) {
        self.unanswered = true;
    }

    /// Whether a renewal may have been executed of which we do not know.
    pub(crate) fn renewal_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Takes note of `event`. What has ended stays ended, whatever comes later.
    ///
    /// `jitter` lengthens the wait for the next renewal, so that many clients that began together
    /// do not renew together.
    pub(crate) fn apply(
        &mut self,
        event: LeaseEvent,
        now: BootInstant,
        kept: bool,
        jitter: Duration,
    ) {
        if self.ended.is_some() {
            return;
        }
        // The local deadline comes before everything else: an extension that was on its way when
        // it passed must not revive the hold, since the guard may have been told already.
        if now >= self.validity.expires_at() {
            let outlived = self.keep_until.is_some_and(|until| now >= until);
            self.ended = Some(match event {
                LeaseEvent::End(reason) => reason,
                _ if kept && outlived => LossReason::MaxHold,
                _ => LossReason::Expired,
            });
            return;
        }
        match event {
            LeaseEvent::Tick => {}
            LeaseEvent::End(reason) => self.ended = Some(reason),
            LeaseEvent::Renewed(validity) => {
                self.validity = bounded(validity, self.keep_until);
                self.unanswered = false;
                if now >= self.validity.expires_at() {
                    self.ended = Some(LossReason::Expired);
                } else if kept {
                    self.plan_renewal(now, jitter);
                }
            }
            LeaseEvent::RenewalFailed if kept => {
                let left = self.validity.expires_at().saturating_since(now);
                self.plan_at(now + (left / RENEW_AFTER).max(LEAST_RETRY));
            }
            LeaseEvent::Verify if kept => self.plan_at(now),
            LeaseEvent::RenewalFailed | LeaseEvent::Verify => {}
        }
    }

    fn plan_renewal(&mut self, now: BootInstant, jitter: Duration) {
        let third = self.validity.expires_at().saturating_since(now) / RENEW_AFTER;
        self.plan_at(now + third + jitter.min(third / 10));
    }

    fn plan_at(&mut self, at: BootInstant) {
        self.renew_at = match self.keep_until {
            Some(until) if at >= until => None,
            _ => Some(at),
        };
    }
}

/// A lease that has no end of its own ends with the longest hold; every other lapses after it.
fn bounded(validity: Validity, keep_until: Option<BootInstant>) -> Validity {
    match keep_until {
        Some(until) if validity == Validity::unlimited() => Validity::until(until),
        _ => validity,
    }
}

#[cfg(test)]
mod tests;
