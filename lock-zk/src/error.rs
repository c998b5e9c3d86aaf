//! What an error of ZooKeeper means for a lock.

use lock_core::{Error, ErrorKind};
use zookeeper_client::Error as ZkError;

/// How a request failed, as far as it matters: may it have been executed?
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The server answered that it did not do it.
    Refused(ZkError),
    /// It has not left this machine, and will not.
    Unsent,
    /// It may or may not have been executed.
    Unknown(Option<ZkError>),
}

impl Failure {
    /// Sorts an error of a request that was sent.
    pub(crate) fn of(error: ZkError) -> Self {
        match error {
            ZkError::NoNode
            | ZkError::NoAuth
            | ZkError::BadVersion
            | ZkError::NoChildrenForEphemerals
            | ZkError::NodeExists
            | ZkError::NotEmpty
            | ZkError::InvalidAcl
            | ZkError::AuthFailed
            | ZkError::SessionMoved
            | ZkError::NotReadOnly
            | ZkError::NoWatcher
            | ZkError::QuotaExceeded
            | ZkError::Throttled
            | ZkError::MarshallingError
            | ZkError::Unimplemented
            | ZkError::ReconfigDisabled
            | ZkError::UnexpectedErrorCode(_)
            | ZkError::NoHosts
            | ZkError::BadArguments(_) => Self::Refused(error),
            // Of the connection or the session, or an answer that cannot be read: what was under way may
            // have been executed.
            _ => Self::Unknown(Some(error)),
        }
    }

    /// What the caller of `op` is told.
    pub(crate) fn into_error(self, op: &'static str) -> Error {
        match self {
            Self::Unsent => {
                Error::new(ErrorKind::Unavailable, op).with_detail("no session with the ensemble")
            }
            Self::Unknown(None) => {
                Error::new(ErrorKind::Indeterminate, op).with_detail("no answer in time")
            }
            Self::Unknown(Some(source)) => {
                Error::new(ErrorKind::Indeterminate, op).with_source(source)
            }
            Self::Refused(source) => Error::new(refusal(&source), op).with_source(source),
        }
    }
}

/// What a refusal means.
fn refusal(error: &ZkError) -> ErrorKind {
    match error {
        ZkError::NoAuth | ZkError::AuthFailed | ZkError::InvalidAcl => ErrorKind::Denied,
        // An ephemeral node stands where the queue of a lock would be.
        ZkError::NoChildrenForEphemerals => ErrorKind::WrongType,
        ZkError::SessionMoved | ZkError::NotReadOnly | ZkError::Throttled | ZkError::NoHosts => {
            ErrorKind::Unavailable
        }
        ZkError::Unimplemented => ErrorKind::Unsupported,
        ZkError::BadArguments(_) => ErrorKind::Invalid,
        _ => ErrorKind::Protocol,
    }
}

/// An error before there was a session: nothing was asked for yet.
pub(crate) fn of_connecting(source: ZkError) -> Error {
    let kind = match Failure::of(source.clone()) {
        Failure::Refused(error) => refusal(&error),
        Failure::Unsent | Failure::Unknown(_) => ErrorKind::Unavailable,
    };
    Error::new(kind, "connect").with_source(source)
}

/// A configuration or request that cannot work.
pub(crate) fn invalid(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, op).with_detail(detail)
}

/// Something that is not ours stands where the queue of a lock would be.
pub(crate) fn foreign(op: &'static str) -> Error {
    Error::new(ErrorKind::WrongType, op)
        .with_detail("a node that is nobody's request is among those of this lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_has_said_is_a_refusal() {
        let refused = |error| matches!(Failure::of(error), Failure::Refused(_));
        assert!(refused(ZkError::NoNode));
        assert!(refused(ZkError::SessionMoved));
        assert!(refused(ZkError::UnexpectedErrorCode(-4096)));
        let unread = ZkError::UnmarshalError {
            entity: "Stat",
            reason: &"insufficient buf",
        };
        for unknown in [
            unread,
            ZkError::ConnectionLoss,
            ZkError::SessionExpired,
            ZkError::Timeout,
            ZkError::RuntimeInconsistent,
        ] {
            assert!(!refused(unknown));
        }
    }
}
