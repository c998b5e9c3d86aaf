//! What worker processes and the server of their parent say to each other: a line of JSON each.
//!
//! Times are those of the machine's own clock, which all its processes share.

use std::time::Duration;

use lock_core::{BootInstant, Lease};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::sync::mpsc;

use crate::prelude::*;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Numbered<T> {
    pub(super) id: u64,
    pub(super) body: T,
}

/// What a client asks.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Ask {
    Connect { identity: String, fence_base: u64 },
    Try(Wanted),
    Acquire(Wanted),
    Renew(Vec<(Wanted, u64)>),
    Release(Wanted),
    Pass(Wanted, Wanted),
    Replace(Wanted, Wanted),
    Close,
}

/// What it is told, asked for or not.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Told {
    Answer(Numbered<Answer>),
    /// How far the request has come.
    Reached(Numbered<Progressed>),
    Event(Pushed),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) enum Progressed {
    Sent,
    Queued,
    Adrift,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Answer {
    /// To who has said who it is.
    Welcome {
        has_window: bool,
    },
    Done,
    Granted(Option<Held>),
    Renewed(Vec<Result<Option<Valid>, Failed>>),
    Released(bool),
    Passed(bool, Option<Held>),
    /// `None` when there was nobody to replace; then whether the next one holds.
    Replaced(Option<Option<Held>>),
    Failed(Failed),
}

/// A claim.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Wanted {
    name: String,
    nonce: String,
    identity: String,
    ttl: Duration,
    kept: bool,
    deadline: Option<Duration>,
}

/// A grant of a claim that the other side knows.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Held {
    token: u64,
    valid: Valid,
    provisional: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Valid {
    expires_at: Duration,
    free_by: Duration,
}

/// The kind of an error, by its name.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Failed(String);

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Pushed {
    Gone(String),
    Broken(String),
    SessionEnded(Vec<String>),
    Reconnected,
}

impl Wanted {
    pub(super) fn of(claim: &Claim) -> Self {
        Self {
            name: claim.name.to_string(),
            nonce: claim.nonce.to_string(),
            identity: claim.identity.to_string(),
            ttl: claim.ttl,
            kept: claim.lease == Lease::Kept,
            deadline: claim.deadline.map(BootInstant::since_origin),
        }
    }

    pub(super) fn claim(&self) -> Result<Claim> {
        let lease = if self.kept { Lease::Kept } else { Lease::Fixed };
        let deadline = self.deadline.map(BootInstant::from_origin);
        let name = LockName::new(&self.name)?;
        let mut claim = Claim::new(name, self.identity.parse()?, self.ttl)
            .with_lease(lease)
            .with_deadline(deadline);
        claim.nonce = self.nonce.parse()?;
        Ok(claim)
    }
}

impl Held {
    pub(super) fn of(grant: &Grant) -> Self {
        Self {
            token: grant.token().get(),
            valid: Valid::of(grant.validity()),
            provisional: grant.is_provisional(),
        }
    }

    pub(super) fn grant(&self, claim: &Claim) -> Grant {
        let grant = Grant::new(claim, token(self.token), self.valid.validity());
        if self.provisional {
            grant.provisional()
        } else {
            grant
        }
    }

    pub(super) fn of_standing(standing: &Standing) -> Option<Self> {
        match standing {
            Standing::Granted(grant) => Some(Self::of(grant)),
            Standing::Queued => None,
        }
    }

    pub(super) fn standing(held: Option<&Self>, claim: &Claim) -> Standing {
        held.map_or(Standing::Queued, |held| {
            Standing::Granted(held.grant(claim))
        })
    }
}

impl Valid {
    pub(super) fn of(validity: Validity) -> Self {
        Self {
            expires_at: validity.expires_at().since_origin(),
            free_by: validity.free_by().since_origin(),
        }
    }

    pub(super) fn validity(self) -> Validity {
        // Of a lease of which nothing is left nothing is taken off either: these are the two ends.
        let [expires_at, free_by] = [self.expires_at, self.free_by].map(BootInstant::from_origin);
        Validity::new(expires_at, free_by, Duration::ZERO)
    }
}

const KINDS: [ErrorKind; 9] = [
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::Denied,
    ErrorKind::Unavailable,
    ErrorKind::Indeterminate,
    ErrorKind::Lost,
    ErrorKind::Closed,
    ErrorKind::WrongType,
    ErrorKind::Protocol,
];

impl Failed {
    pub(super) fn of(error: &Error) -> Self {
        Self(format!("{:?}", error.kind()))
    }

    pub(super) fn error(&self) -> Error {
        let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == self.0);
        Error::new(kind.unwrap_or(ErrorKind::Protocol), "ask")
    }
}

impl Pushed {
    pub(super) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Gone { nonce } => Self::Gone(nonce.to_string()),
            Event::Broken { nonce } => Self::Broken(nonce.to_string()),
            Event::SessionEnded { nonces } => {
                Self::SessionEnded(nonces.iter().map(Nonce::to_string).collect())
            }
            Event::Reconnected => Self::Reconnected,
            _ => return None,
        })
    }

    pub(super) fn event(&self) -> Result<Event> {
        Ok(match self {
            Self::Gone(nonce) => Event::Gone {
                nonce: nonce.parse()?,
            },
            Self::Broken(nonce) => Event::Broken {
                nonce: nonce.parse()?,
            },
            Self::SessionEnded(nonces) => Event::SessionEnded {
                nonces: nonces.iter().map(|n| n.parse()).collect::<Result<_>>()?,
            },
            Self::Reconnected => Event::Reconnected,
        })
    }
}

impl Progressed {
    pub(super) fn of(reach: Reach) -> Self {
        match reach {
            Reach::Unsent | Reach::Sent => Self::Sent,
            Reach::Queued => Self::Queued,
            Reach::Adrift => Self::Adrift,
        }
    }

    pub(super) fn reach(self) -> Reach {
        match self {
            Self::Sent => Reach::Sent,
            Self::Queued => Reach::Queued,
            Self::Adrift => Reach::Adrift,
        }
    }
}

/// Writes what comes through the channel, until one of the two ends.
pub(super) async fn write_all<T: Serialize>(
    mut messages: mpsc::UnboundedReceiver<T>,
    mut stream: impl AsyncWrite + Unpin,
) {
    while let Some(message) = messages.recv().await {
        let mut line = serde_json::to_string(&message).expect("messages are plain data");
        line.push('\n');
        if stream.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The messages of a stream; it has ended when one is not understood.
pub(super) struct Messages<R>(Lines<BufReader<R>>);

impl<R: AsyncRead + Unpin> Messages<R> {
    pub(super) fn of(stream: R) -> Self {
        Self(BufReader::new(stream).lines())
    }

    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = self.0.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}
