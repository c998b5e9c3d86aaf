//! Who asks for a lock: re-entrancy identity, and what an operator reads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// Names an owner for explicit re-entrancy.
///
/// Within one client, an acquire with the [`OwnerId`] that holds the lock already gets one more
/// guard of the same hold. Nothing is re-entrant unless the same id is passed on purpose: two tasks
/// that share an id do not exclude each other.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OwnerId(Uuid);

impl OwnerId {
    /// A fresh owner, different from every other.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a random identity has no default value"
    )]
    pub fn new() -> Self {
        Self(fresh())
    }
}

#[cfg(not(test))]
fn fresh() -> Uuid {
    Uuid::new_v4()
}

/// From the thread's own random numbers, so that what a seed began is the same each time.
#[cfg(test)]
fn fresh() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
}

/// Names one acquisition, from its request to its release: the holder or waiter in the backend.
///
/// Fresh for every acquisition, so that a late renewal or release can never meet a successor.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Nonce(Uuid);

impl Nonce {
    /// A fresh nonce.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a random identity has no default value"
    )]
    pub fn new() -> Self {
        Self(fresh())
    }

    /// The nonce in its 128 bits.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

impl FromStr for Nonce {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Uuid::parse_str(text).map(Self).map_err(|source| {
            Error::new(ErrorKind::Protocol, "nonce")
                .with_detail(format!("{text:?} is no nonce"))
                .with_source(source)
        })
    }
}

/// What an operator sees of a client: its label, host and process. Stored beside each record.
///
/// Cheap to clone. As text: `pid host label`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Identity {
    pid: u32,
    host: Arc<str>,
    label: Arc<str>,
}

impl Identity {
    /// This process on this host, under `label`.
    #[must_use]
    pub fn of_this_process(label: &str) -> Self {
        let host = hostname::get().map_or_else(
            |_| "unknown-host".to_owned(),
            |name| name.to_string_lossy().split_whitespace().collect(),
        );
        Self {
            pid: std::process::id(),
            host: host.into(),
            label: printable(label).into(),
        }
    }

    /// The process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The host's name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The label that the client was given; empty when it was given none.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

fn printable(label: &str) -> String {
    label
        .chars()
        .filter(|c| !c.is_control())
        .take(128)
        .collect()
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.host, self.label)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.splitn(3, ' ');
        let mut read = || {
            let pid = parts.next()?.parse().ok()?;
            Some(Self {
                pid,
                host: parts.next()?.into(),
                label: parts.next()?.into(),
            })
        };
        read().ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "identity")
                .with_detail(format!("{text:?} does not read as `pid host label`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_its_text_form() {
        for label in ["", "worker 7 of 9", "a\u{0}b"] {
            let identity = Identity::of_this_process(label);
            assert_eq!(
                identity.to_string().parse::<Identity>().expect("parses"),
                identity
            );
        }
        assert!("no pid".parse::<Identity>().is_err());
    }

    #[test]
    fn nonce_survives_its_text_form() {
        let nonce = Nonce::new();
        assert_eq!(nonce.to_string().parse::<Nonce>().expect("parses"), nonce);
    }
}
