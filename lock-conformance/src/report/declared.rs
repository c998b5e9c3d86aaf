//! What a backend declares, as a report has it.

use std::fmt::Debug;
use std::time::Duration;

use lock_core::{Capabilities, TtlRange};
use serde::{Deserialize, Serialize};

/// [`Capabilities`] in words and numbers that a document can hold. What is a word there is one here, in kebab-case.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Declared {
    /// As the URL scheme names it.
    pub backend: String,
    /// [`Capabilities::linearizable`].
    pub linearizable: bool,
    /// [`Capabilities::fence`].
    pub fence: String,
    /// [`Capabilities::largest_token`].
    pub largest_token: u64,
    /// [`Capabilities::wait_order`].
    pub wait_order: String,
    /// [`Capabilities::crash_release`].
    pub crash_release: String,
    /// [`Capabilities::scope`].
    pub scope: String,
    /// [`Capabilities::ttl`].
    pub ttl: Option<TtlDeclared>,
    /// [`Capabilities::fixed_ttl`].
    pub fixed_ttl: Option<TtlDeclared>,
    /// [`Capabilities::expiry_slack`].
    pub expiry_slack_ns: u64,
    /// [`Capabilities::claim_window`].
    pub claim_window_ns: Option<u64>,
    /// [`Capabilities::name_max`].
    pub name_max: usize,
    /// [`Capabilities::shared`].
    pub shared: bool,
    /// [`Capabilities::permits`].
    pub permits: bool,
    /// [`Capabilities::list`].
    pub list: bool,
    /// [`Capabilities::break_hold`].
    pub break_hold: bool,
}

/// A [`TtlRange`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TtlDeclared {
    /// The shortest.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// What a TTL has to be a multiple of.
    pub step_ns: u64,
}

impl From<&Capabilities> for Declared {
    fn from(capabilities: &Capabilities) -> Self {
        Self {
            backend: capabilities.backend.to_owned(),
            linearizable: capabilities.linearizable,
            fence: word(capabilities.fence),
            largest_token: capabilities.largest_token,
            wait_order: word(capabilities.wait_order),
            crash_release: word(capabilities.crash_release),
            scope: word(capabilities.scope),
            ttl: capabilities.ttl.map(TtlDeclared::from),
            fixed_ttl: capabilities.fixed_ttl.map(TtlDeclared::from),
            expiry_slack_ns: nanos(capabilities.expiry_slack),
            claim_window_ns: capabilities.claim_window.map(nanos),
            name_max: capabilities.name_max,
            shared: capabilities.shared,
            permits: capabilities.permits,
            list: capabilities.list,
            break_hold: capabilities.break_hold,
        }
    }
}

impl From<TtlRange> for TtlDeclared {
    fn from(range: TtlRange) -> Self {
        Self {
            min_ns: nanos(range.min),
            max_ns: nanos(range.max),
            step_ns: nanos(range.step),
        }
    }
}

/// As many as fit: 584 years.
fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// The name of an enum's value, from `CamelCase` to `kebab-case`.
pub(crate) fn word(value: impl Debug) -> String {
    let mut word = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}
