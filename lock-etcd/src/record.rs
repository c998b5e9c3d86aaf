//! What the value of a holder's or waiter's key says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::{Claim, Identity, Nonce};

/// The version of the encoding, and what tells a record of ours from anything else.
const VERSION: &str = "distlock1";

/// A holder or waiter, for operators.
///
/// As text, separated by tabs: version, nonce, base of the token, TTL in ms, ms since 1970 at the beginning
/// of the wait, identity. No decision hangs on it but one: a value that does not read as a record is no lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) nonce: Nonce,
    pub(crate) identity: Identity,
    /// What is added to the key's revision to make the token.
    pub(crate) base: u64,
    ttl: Duration,
    since: Duration,
}

impl Record {
    /// The record of a claim that asks now.
    pub(crate) fn of(claim: &Claim, base: u64) -> Self {
        Self {
            base,
            nonce: claim.nonce,
            identity: claim.identity.clone(),
            ttl: claim.ttl,
            since: since_1970(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        format!(
            "{VERSION}\t{}\t{}\t{}\t{}\t{}",
            self.nonce,
            self.base,
            self.ttl.as_millis(),
            self.since.as_millis(),
            self.identity
        )
        .into_bytes()
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.splitn(6, '\t');
        if parts.next()? != VERSION {
            return None;
        }
        Some(Self {
            nonce: parts.next()?.parse().ok()?,
            base: parts.next()?.parse().ok()?,
            ttl: Duration::from_millis(parts.next()?.parse().ok()?),
            since: Duration::from_millis(parts.next()?.parse().ok()?),
            identity: parts.next()?.parse().ok()?,
        })
    }

    /// How long ago it was written, as far as this machine's wall clock agrees with the writer's.
    pub(crate) fn age(&self) -> Duration {
        since_1970().saturating_sub(self.since)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "shown to operators on other machines; etcd keeps no time of its own, and nothing is decided by it"
)]
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::LockName;

    #[test]
    fn record_survives_its_encoding() {
        let claim = Claim::new(
            LockName::new("a").expect("a name"),
            Identity::of_this_process("a label of several words"),
            Duration::from_millis(1500),
        );
        let record = Record::of(&claim, 7);
        let read = Record::decode(&record.encode()).expect("reads");
        assert_eq!(read.nonce, claim.nonce);
        assert_eq!(read.identity, claim.identity);
        assert_eq!((read.base, read.ttl), (7, claim.ttl));
        assert!(read.age() < Duration::from_secs(3600));
    }

    #[test]
    fn what_is_no_record_is_not_read_as_one() {
        for value in [
            "",
            "not a lock",
            "distlock1",
            "distlock2\t\t\t\t\t",
            "distlock1\tx\t0\t1\t1\t1 h l",
        ] {
            assert_eq!(Record::decode(value.as_bytes()), None, "{value}");
        }
        assert_eq!(Record::decode(&[0xff]), None);
    }
}
