//! What a request's node says about itself, for operators and for whoever breaks it.

use std::time::Duration;

use lock_core::{Claim, Identity, Lease, Nonce};
use uuid::Uuid;

/// The layout of the record; its first line.
const VERSION: &str = "distlock 1";

/// The record of a request. Decisions are made by the node alone; this is to be read by people and
/// to find the client that has to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    /// The acquisition that the node serves now.
    pub(crate) nonce: Nonce,
    /// The client, as its node is called.
    pub(crate) client: Uuid,
    /// How long the hold lasts without a renewal.
    pub(crate) ttl: Duration,
    /// Whether it is renewed.
    pub(crate) lease: Lease,
    /// The timeout of the session that owns the node.
    pub(crate) session: Duration,
    pub(crate) identity: Identity,
}

impl Record {
    pub(crate) fn new(claim: &Claim, client: Uuid, session: Duration) -> Self {
        Self {
            nonce: claim.nonce,
            client,
            ttl: claim.ttl,
            lease: claim.lease,
            session,
            identity: claim.identity.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let lease = match self.lease {
            Lease::Kept => "kept",
            Lease::Fixed => "fixed",
        };
        format!(
            "{VERSION}\n{}\n{}\n{}\n{lease}\n{}\n{}",
            self.nonce,
            self.client.as_simple(),
            self.ttl.as_millis(),
            self.session.as_millis(),
            self.identity,
        )
        .into_bytes()
    }

    /// Reads a record; `None` for one that another layout wrote.
    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(data).ok()?.splitn(7, '\n');
        if lines.next()? != VERSION {
            return None;
        }
        let millis = |text: &str| text.parse().ok().map(Duration::from_millis);
        Some(Self {
            nonce: lines.next()?.parse().ok()?,
            client: Uuid::parse_str(lines.next()?).ok()?,
            ttl: millis(lines.next()?)?,
            lease: match lines.next()? {
                "kept" => Lease::Kept,
                "fixed" => Lease::Fixed,
                _ => return None,
            },
            session: millis(lines.next()?)?,
            identity: lines.next()?.parse().ok()?,
        })
    }

    /// What is left at most when nobody renews it: its client may have renewed it a moment ago.
    pub(crate) fn remaining(&self) -> Duration {
        match self.lease {
            Lease::Kept => self.session,
            Lease::Fixed => self.session.min(self.ttl),
        }
    }
}

#[cfg(test)]
mod tests {
    use lock_core::LockName;

    use super::*;

    #[test]
    fn record_survives_its_text_form() {
        let name = LockName::new("n").expect("a good name");
        let identity = Identity::of_this_process("worker 7\u{e9}");
        let claim = Claim::new(name, identity, Duration::from_secs(60)).with_lease(Lease::Fixed);
        let record = Record::new(&claim, Uuid::new_v4(), Duration::from_secs(10));
        assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        assert_eq!(record.remaining(), Duration::from_secs(10));
        for foreign in ["", "distlock 2\n", "distlock 1\nx", "\u{0}"] {
            assert_eq!(Record::decode(foreign.as_bytes()), None, "{foreign:?}");
        }
    }
}
