//! What a backend answers.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::Claim;
use crate::clock::BootInstant;
use crate::token::FencingToken;

/// Clocks of two machines may differ in rate by this part: 1 / 100.
///
/// Time daemons slew a clock by at most 500 ppm (ntpd) and in exceptional phases by up to some
/// percent (chrony's `maxslewrate`); 1 % is the allowance of the Redlock paper.
const CLOCK_DRIFT_DIVISOR: u32 = 100;
/// What the end of a lease is moved forward by besides: scheduling, and the server's millisecond steps.
const MARGIN: Duration = Duration::from_millis(5);

/// Until when a grant may be used, on the client's clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    expires_at: BootInstant,
    free_by: BootInstant,
}

impl Validity {
    /// The validity of a lease of which the server said that `remaining` was left.
    ///
    /// `since` is a point that is certainly not later than the one at which the server counted: the
    /// instant *before* the request was sent, never the arrival of its reply. `received` is when the
    /// answer was here. An allowance for clock drift and a margin are taken off.
    ///
    /// # Source
    /// ADR 0003.
    #[must_use]
    pub fn new(since: BootInstant, received: BootInstant, remaining: Duration) -> Self {
        let allowance = remaining / CLOCK_DRIFT_DIVISOR + MARGIN;
        Self {
            expires_at: since + remaining.saturating_sub(allowance),
            free_by: received + remaining + remaining / CLOCK_DRIFT_DIVISOR,
        }
    }

    /// The same validity of a record that may stay until `free_by`, where that is later.
    ///
    /// For a backend that keeps two limits, such as a session's and a hold's own: the holder stops at
    /// the first, and the record is gone after the last.
    #[must_use]
    pub fn freed_by(mut self, free_by: BootInstant) -> Self {
        self.free_by = self.free_by.max(free_by);
        self
    }

    /// A lease that does not end while the process lives.
    #[must_use]
    pub fn unlimited() -> Self {
        let never = BootInstant::from_origin(Duration::MAX);
        Self {
            expires_at: never,
            free_by: never,
        }
    }

    /// A validity that ends at `end`, here and on the backend.
    pub(crate) const fn until(end: BootInstant) -> Self {
        Self {
            expires_at: end,
            free_by: end,
        }
    }

    /// The end: from then on the holder must not act.
    #[must_use]
    pub const fn expires_at(self) -> BootInstant {
        self.expires_at
    }

    /// When the server has ended the lease at the latest, if nothing renews it.
    #[must_use]
    pub const fn free_by(self) -> BootInstant {
        self.free_by
    }

    /// `length` of a span on another machine's clock, shortened by what that clock may run fast.
    #[must_use]
    pub fn least_local(length: Duration) -> Duration {
        length - length / CLOCK_DRIFT_DIVISOR
    }
}

/// A lock, granted.
#[derive(Clone)]
pub struct Grant {
    claim: Claim,
    token: FencingToken,
    validity: Validity,
    provisional: bool,
    record: Option<Arc<dyn Any + Send + Sync>>,
}

impl Grant {
    /// The grant of `claim`.
    #[must_use]
    pub fn new(claim: &Claim, token: FencingToken, validity: Validity) -> Self {
        Self {
            claim: claim.clone(),
            token,
            validity,
            provisional: false,
            record: None,
        }
    }

    /// Says that the backend granted less than the claim's TTL until the first renewal.
    #[must_use]
    pub fn provisional(mut self) -> Self {
        self.provisional = true;
        self
    }

    /// Keeps whatever the backend needs to find its record again.
    #[must_use]
    pub fn with_record(mut self, record: Arc<dyn Any + Send + Sync>) -> Self {
        self.record = Some(record);
        self
    }

    /// The claim that was granted.
    #[must_use]
    pub const fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The fencing token; the same for the whole hold.
    #[must_use]
    pub const fn token(&self) -> FencingToken {
        self.token
    }

    /// Until when, as the backend said with this grant.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether a renewal has yet to make the lease whole.
    #[must_use]
    pub const fn is_provisional(&self) -> bool {
        self.provisional
    }

    /// The same grant, whole, with the validity that a renewal answered.
    pub(crate) fn confirmed(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self.provisional = false;
        self
    }

    /// What the backend kept with [`with_record`](Self::with_record).
    #[must_use]
    pub fn record<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.record.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("name", &self.claim.name)
            .field("nonce", &self.claim.nonce)
            .field("token", &self.token)
            .field("validity", &self.validity)
            .field("provisional", &self.provisional)
            .finish_non_exhaustive()
    }
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// The lease is whole again.
    Extended(Validity),
    /// The nonce does not hold the lock. It was not given it back.
    Gone,
}

/// What became of a claim that was put in the place of another.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It holds the lock.
    Granted(Grant),
    /// It stands in the queue; [`Backend::acquire`](crate::Backend::acquire) attaches to it without
    /// another command.
    Queued,
}

/// What became of [`Backend::pass`](crate::Backend::pass).
#[derive(Clone, Debug)]
pub struct Passed {
    /// Whether the held claim was still the holder, as [`Backend::release`](crate::Backend::release) says.
    pub released: bool,
    /// What became of the next one.
    pub next: Standing,
}

/// What became of [`Backend::replace`](crate::Backend::replace).
#[derive(Clone, Debug)]
pub enum Replaced {
    /// The next claim stands where the waiting one stood, or holds the lock if that had been granted.
    Now(Standing),
    /// The waiting claim was not there. The next one was not put anywhere.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_counted_from_the_sending_and_ends_before_the_servers_lease() {
        let sent = BootInstant::from_origin(Duration::from_secs(100));
        let received = sent + Duration::from_millis(40);
        let validity = Validity::new(sent, received, Duration::from_secs(10));
        assert_eq!(validity.expires_at(), sent + Duration::from_millis(9_895));
        assert_eq!(validity.free_by(), received + Duration::from_millis(10_100));
    }

    #[test]
    fn record_that_stays_longer_lengthens_no_validity() {
        let sent = BootInstant::from_origin(Duration::from_secs(100));
        let validity = Validity::new(sent, sent, Duration::from_secs(10));
        let later = validity.freed_by(sent + Duration::from_secs(60));
        assert_eq!(later.expires_at(), validity.expires_at());
        assert_eq!(later.free_by(), sent + Duration::from_secs(60));
        assert_eq!(validity.freed_by(sent), validity);
    }

    #[test]
    fn lease_shorter_than_the_margin_is_never_valid() {
        let sent = BootInstant::from_origin(Duration::from_secs(100));
        assert_eq!(
            Validity::new(sent, sent, Duration::from_millis(4)).expires_at(),
            sent
        );
    }
}
