//! Why an operation failed.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What every fallible operation of this crate answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, coarse enough to branch on.
///
/// A lock that somebody else holds is not an error: a try answers `Ok(None)`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that can never work, such as an empty name or a zero TTL.
    /// Nothing was sent.
    Invalid,
    /// The backend does not promise this; see [`Capabilities`](crate::Capabilities). Nothing was sent.
    Unsupported,
    /// Wrong credentials or rights. Never retried.
    Denied,
    /// The backend could not be reached. The lock is not held, and safe to ask for again.
    Unavailable,
    /// Sent, but no answer. The lock may be held until its TTL passes; the client cleans up in the
    /// background.
    Indeterminate,
    /// The lock was held and no longer is. Stop touching the resource.
    Lost,
    /// The client was shut down.
    Closed,
    /// Something that is not a lock is stored where the lock would be.
    WrongType,
    /// The backend answered something that this version does not understand.
    Protocol,
}

impl ErrorKind {
    const fn describe(self) -> &'static str {
        match self {
            Self::Invalid => "invalid request",
            Self::Unsupported => "not supported by this backend",
            Self::Denied => "access denied",
            Self::Unavailable => "backend unavailable",
            Self::Indeterminate => "sent, but no answer",
            Self::Lost => "lock lost",
            Self::Closed => "client is shut down",
            Self::WrongType => "something that is not a lock is in the way",
            Self::Protocol => "unexpected answer from the backend",
        }
    }
}

/// What failed, on which lock, and the backend's own error as its [`source`](StdError::source).
///
/// Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    op: &'static str,
    name: Option<Arc<str>>,
    detail: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in the operation `op`, such as `"acquire"`.
    #[must_use]
    pub fn new(kind: ErrorKind, op: &'static str) -> Self {
        Self(Arc::new(Inner {
            kind,
            op,
            name: None,
            detail: None,
            source: None,
        }))
    }

    /// Adds the lock it happened on, unless one is there already.
    #[must_use]
    pub fn with_name(self, name: impl AsRef<str>) -> Self {
        self.change(|inner| {
            inner.name.get_or_insert_with(|| name.as_ref().into());
        })
    }

    pub(crate) fn with_op(self, op: &'static str) -> Self {
        self.change(|inner| inner.op = op)
    }

    /// Adds what a person should know: one lower-case fragment.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        self.change(|inner| inner.detail = Some(detail.into()))
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.source = Some(Arc::new(source)))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Why it failed, to branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The lock it happened on, where there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Whether the same call may succeed later without anybody changing anything.
    ///
    /// True for [`ErrorKind::Unavailable`] and [`ErrorKind::Indeterminate`]. A retry is a new claim
    /// with a new nonce, so it cannot meet its own predecessor as a holder for longer than the TTL.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable | ErrorKind::Indeterminate
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op)?;
        if let Some(name) = &self.0.name {
            write!(f, " {name:?}")?;
        }
        write!(f, ": {}", self.0.kind.describe())?;
        match &self.0.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("op", &self.0.op);
        if let Some(name) = &self.0.name {
            debug.field("name", name);
        }
        if let Some(detail) = &self.0.detail {
            debug.field("detail", detail);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_fragment_that_names_operation_and_lock() {
        let error = Error::new(ErrorKind::Lost, "renew").with_name("orders/42");
        assert_eq!(error.to_string(), "renew \"orders/42\": lock lost");
        let error = error.with_detail("held by another");
        assert_eq!(
            error.to_string(),
            "renew \"orders/42\": lock lost: held by another"
        );
    }

    #[test]
    fn source_is_kept_and_not_repeated() {
        let error = Error::new(ErrorKind::Unavailable, "connect")
            .with_source(std::io::Error::other("refused"));
        assert!(!error.to_string().contains("refused"));
        assert_eq!(error.source().expect("kept").to_string(), "refused");
        assert!(error.is_retryable());
    }

    #[test]
    fn first_name_stays() {
        let error = Error::new(ErrorKind::Lost, "renew").with_name("a");
        assert_eq!(error.with_name("b").name(), Some("a"));
    }
}
