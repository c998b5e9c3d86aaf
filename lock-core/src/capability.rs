//! What a backend can promise.

use std::fmt;
use std::time::Duration;

use crate::claim::Lease;
use crate::name::LockName;

/// How far the promise that tokens grow holds.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FenceStrength {
    /// Tokens grow as long as the server's clock does not stand behind an earlier server's clock
    /// while the counter is lost and no client remembers a larger token.
    TimeSeeded,
    /// Tokens grow through every failure that the backend survives.
    Linearizable,
}

/// In which order waiters are served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WaitOrder {
    /// Any waiter may be next.
    Unordered,
    /// Clients are served in the order in which they joined the queue, the tasks of one client in
    /// the order in which they asked.
    Fifo,
}

/// How the lock of a holder that died becomes free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CrashRelease {
    /// Its lease ends.
    Ttl,
    /// The session that its locks share ends.
    Session,
    /// The operating system releases it at once.
    ProcessExit,
}

/// Among whom a lock excludes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Scope {
    /// The clients of one process.
    Process,
    /// The processes of one machine.
    Host,
    /// Every machine that reaches the backend.
    Network,
}

/// The leases a backend can keep. Values between steps are refused, not rounded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TtlRange {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// What a TTL has to be a multiple of.
    pub step: Duration,
}

impl TtlRange {
    /// Why `ttl` cannot be kept, if it cannot.
    #[must_use]
    pub fn refusal(&self, ttl: Duration) -> Option<String> {
        let show = humantime::format_duration;
        if ttl < self.min || ttl > self.max {
            Some(format!(
                "a TTL of {} is outside of what this backend keeps: {} to {}",
                show(ttl),
                show(self.min),
                show(self.max)
            ))
        } else if !ttl.as_nanos().is_multiple_of(self.step.as_nanos().max(1)) {
            Some(format!(
                "a TTL of {} is no multiple of {}",
                show(ttl),
                show(self.step)
            ))
        } else {
            None
        }
    }
}

/// What a program may demand of its backend, with [`Locks::require`](crate::Locks::require).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Guarantee {
    /// Exclusion and growing tokens hold through failover, restart and clock steps of the servers.
    Linearizable,
    /// Waiters are served in order.
    Fifo,
    /// The lock excludes the processes of one machine.
    CrossProcess,
    /// The lock excludes machines.
    CrossHost,
    /// A holder that hangs, and not only one that dies, is replaced after its TTL.
    Expiry,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linearizable => "exclusion that survives failover and clock steps",
            Self::Fifo => "waiters served in order",
            Self::CrossProcess => "exclusion between processes",
            Self::CrossHost => "exclusion between hosts",
            Self::Expiry => "replacement of a holder that hangs",
        })
    }
}

/// What a backend promises, as data. What is not declared here answers
/// [`Unsupported`](crate::ErrorKind::Unsupported).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The backend, as its URL scheme names it.
    pub backend: &'static str,
    /// Whether exclusion holds through every failure that the backend survives. Defaults to false.
    pub linearizable: bool,
    /// How far tokens grow. Defaults to the weakest.
    pub fence: FenceStrength,
    /// The largest token the backend can hand out.
    pub largest_token: u64,
    /// The order of waiters. Defaults to none.
    pub wait_order: WaitOrder,
    /// What frees the lock of a dead holder.
    pub crash_release: CrashRelease,
    /// Among whom it excludes.
    pub scope: Scope,
    /// The leases it keeps; `None` when a live process's hold never ends.
    pub ttl: Option<TtlRange>,
    /// The leases it keeps for holds that nobody renews ([`Lease::Fixed`]), where they differ. Where
    /// a session carries every hold, a kept one may ask for more and is given the session's TTL, and a
    /// fixed one may ask for less. Defaults to `None`: the same.
    pub fixed_ttl: Option<TtlRange>,
    /// The option of the backend that these ranges follow from, for the text of a refusal. Defaults to none.
    pub ttl_option: Option<&'static str>,
    /// A dead holder is replaced within its TTL and this much.
    pub expiry_slack: Duration,
    /// The lease that a waiter is given by a hand-off until its first renewal, where there is one.
    pub claim_window: Option<Duration>,
    /// The longest name, in bytes.
    pub name_max: usize,
    /// Whether [`Mode::Shared`](crate::Mode::Shared) is served. Defaults to false.
    pub shared: bool,
    /// Whether [`Mode::Permit`](crate::Mode::Permit) is served. Defaults to false.
    pub permits: bool,
    /// Whether locks can be listed. Defaults to false.
    pub list: bool,
    /// Whether a hold can be broken by force. Defaults to false.
    pub break_hold: bool,
}

impl Capabilities {
    /// The least there is: what a backend does not set, it does not promise.
    #[must_use]
    pub const fn least(backend: &'static str) -> Self {
        Self {
            backend,
            linearizable: false,
            fence: FenceStrength::TimeSeeded,
            largest_token: i64::MAX.unsigned_abs(),
            wait_order: WaitOrder::Unordered,
            crash_release: CrashRelease::Ttl,
            scope: Scope::Process,
            ttl: None,
            fixed_ttl: None,
            ttl_option: None,
            expiry_slack: Duration::ZERO,
            claim_window: None,
            name_max: LockName::MAX_BYTES,
            shared: false,
            permits: false,
            list: false,
            break_hold: false,
        }
    }

    /// The leases of this kind that it keeps; `None` when a live process's hold never ends.
    #[must_use]
    pub fn ttl_of(&self, lease: Lease) -> Option<TtlRange> {
        match lease {
            Lease::Kept => self.ttl,
            Lease::Fixed => self.fixed_ttl.or(self.ttl),
        }
    }

    /// Why a lease of this kind and length cannot be kept, if it cannot.
    #[must_use]
    pub fn ttl_refusal(&self, lease: Lease, ttl: Duration) -> Option<String> {
        let why = self.ttl_of(lease)?.refusal(ttl)?;
        let kind = match lease {
            Lease::Kept => "a renewed lease",
            Lease::Fixed => "a lease that is not renewed",
        };
        Some(match (self.ttl_option, self.fixed_ttl) {
            (Some(option), Some(_)) => format!("{why}, for {kind}; the option is {option}"),
            (Some(option), None) => format!("{why}; the option is {option}"),
            (None, Some(_)) => format!("{why}, for {kind}"),
            (None, None) => why,
        })
    }

    /// Whether the backend promises `wanted`.
    #[must_use]
    pub fn promises(&self, wanted: Guarantee) -> bool {
        match wanted {
            Guarantee::Linearizable => {
                self.linearizable && self.fence == FenceStrength::Linearizable
            }
            Guarantee::Fifo => self.wait_order == WaitOrder::Fifo,
            Guarantee::CrossProcess => self.scope >= Scope::Host,
            Guarantee::CrossHost => self.scope >= Scope::Network,
            Guarantee::Expiry => self.ttl.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_capabilities_promise_nothing() {
        let least = Capabilities::least("toy");
        for wanted in [
            Guarantee::Linearizable,
            Guarantee::Fifo,
            Guarantee::CrossProcess,
            Guarantee::CrossHost,
            Guarantee::Expiry,
        ] {
            assert!(!least.promises(wanted), "{wanted}");
        }
    }

    #[test]
    fn ttl_outside_of_range_or_step_is_refused_with_the_reason() {
        let range = TtlRange {
            min: Duration::from_secs(1),
            max: Duration::from_secs(60),
            step: Duration::from_secs(1),
        };
        assert!(range.refusal(Duration::from_secs(60)).is_none());
        assert!(
            range
                .refusal(Duration::from_secs(61))
                .expect("refused")
                .contains("1s to 1m")
        );
        assert!(
            range
                .refusal(Duration::from_millis(1500))
                .expect("refused")
                .contains("multiple")
        );
        assert!(range.refusal(Duration::ZERO).is_some());
    }

    #[test]
    fn refusal_of_a_lease_names_its_kind_and_the_option() {
        let second = Duration::from_secs(1);
        let mut capabilities = Capabilities::least("toy");
        assert!(capabilities.ttl_refusal(Lease::Kept, second).is_none());
        capabilities.ttl = Some(TtlRange {
            min: second * 10,
            max: second * 60,
            step: Duration::from_millis(1),
        });
        assert!(capabilities.ttl_refusal(Lease::Fixed, second).is_some());
        capabilities.ttl_option = Some("session_timeout");
        capabilities.fixed_ttl = Some(TtlRange {
            min: second,
            max: second * 10,
            step: Duration::from_millis(1),
        });
        assert!(capabilities.ttl_refusal(Lease::Fixed, second).is_none());
        let kept = capabilities.ttl_refusal(Lease::Kept, second);
        let kept = kept.expect("shorter than the session");
        assert!(kept.contains("a renewed lease"), "{kept}");
        assert!(kept.contains("session_timeout"), "{kept}");
    }
}
