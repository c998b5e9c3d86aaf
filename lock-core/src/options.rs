//! What a client is configured with, whatever its backend.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::token::FencingToken;
use crate::url::LockUrl;

pub(crate) const DEFAULT_OP_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_OUTAGE_LIMIT: Duration = Duration::from_secs(30);
const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// Limits and defaults of one client.
///
/// The same as URL options: `op_timeout`, `outage_limit`, `max_hold`, `ttl` (durations such as
/// `500ms` or `1m`), `label`, `fence_base`.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientOptions {
    pub(crate) op_timeout: Duration,
    pub(crate) outage_limit: Duration,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) ttl: Duration,
    pub(crate) label: String,
    pub(crate) fence_base: u64,
    pub(crate) clock: Clock,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            op_timeout: DEFAULT_OP_TIMEOUT,
            outage_limit: DEFAULT_OUTAGE_LIMIT,
            max_hold: None,
            ttl: DEFAULT_TTL,
            label: String::new(),
            fence_base: 0,
            clock: Clock::system(),
        }
    }
}

impl ClientOptions {
    /// The options a URL carries, beside the backend's own.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a value that does not read or cannot work.
    pub fn from_url(url: &mut LockUrl) -> Result<Self> {
        let mut options = Self::default();
        if let Some(value) = url.take_duration("op_timeout")? {
            options.op_timeout = value;
        }
        if let Some(value) = url.take_duration("outage_limit")? {
            options.outage_limit = value;
        }
        if let Some(value) = url.take_duration("ttl")? {
            options.ttl = value;
        }
        options.max_hold = url.take_duration("max_hold")?;
        if let Some(label) = url.take("label") {
            options.label = label;
        }
        if let Some(base) = url.take("fence_base") {
            options.fence_base = base.parse().map_err(|_| {
                invalid(format!(
                    "the URL option fence_base={base} is not a whole number"
                ))
            })?;
        }
        Ok(options)
    }

    /// The longest one request may take before it counts as unanswered. Defaults to 2 s.
    pub fn with_op_timeout(mut self, op_timeout: Duration) -> Self {
        self.op_timeout = op_timeout;
        self
    }

    /// How long an acquire that stands in the queue lives through an outage. Defaults to 30 s.
    pub fn with_outage_limit(mut self, outage_limit: Duration) -> Self {
        self.outage_limit = outage_limit;
        self
    }

    /// The longest a kept lock is renewed for: bounds a guard that was forgotten. Defaults to none.
    pub fn with_max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// The TTL of locks that do not name one. Defaults to 10 s.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What operators see beside host and process. Defaults to nothing.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Lifts every token above `base`, for a system that moves here from a backend with larger
    /// tokens. Defaults to 0.
    pub fn with_fence_base(mut self, base: u64) -> Self {
        self.fence_base = base;
        self
    }

    /// Takes another clock. Defaults to the system's suspend-aware monotonic one.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("op_timeout", Some(self.op_timeout)),
            ("outage_limit", Some(self.outage_limit)),
            ("max_hold", self.max_hold),
            ("ttl", Some(self.ttl)),
        ] {
            if value.is_some_and(|value| value.is_zero()) {
                return Err(invalid(format!("{name} must not be zero")));
            }
        }
        // The base is not handed out itself, so there has to be a token above it.
        if self.fence_base >= FencingToken::MAX.get() {
            return Err(invalid(format!(
                "fence_base has to be below {}",
                FencingToken::MAX
            )));
        }
        Ok(())
    }
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorKind::Invalid, "connect").with_detail(detail)
}
