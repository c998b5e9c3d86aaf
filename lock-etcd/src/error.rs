//! What an error of etcd means for a lock.

use std::error::Error as StdError;

use lock_core::{Error, ErrorKind};
use tonic::{Code, Status};

/// An error of a request.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) meaning: Meaning,
    source: etcd_client::Error,
}

/// What became of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    /// It was not sent, or this member could not take it: another one may.
    Elsewhere,
    /// The token is too old for the server's list of users. Not executed; a fresh one will do.
    StaleToken,
    /// Credentials or rights. Not executed.
    Denied,
    /// The server answered that it did not execute it.
    Refused,
    /// The lease does not exist. A transaction that needs it was not executed.
    LeaseGone,
    /// A lease with this id exists already.
    LeaseExists,
    /// The request cannot be served by this server, ever.
    Unfit,
    /// It may have been executed or not.
    Unknown,
}

impl From<etcd_client::Error> for Failure {
    fn from(source: etcd_client::Error) -> Self {
        Self {
            meaning: meaning(&source),
            source,
        }
    }
}

impl Failure {
    /// The error for the caller of `op`.
    pub(crate) fn into_error(self, op: &'static str) -> Error {
        Error::new(self.kind(), op)
            .with_detail(self.detail())
            .with_source(self.source)
    }

    /// The error for who connects to `member`: nothing of a lock was asked for yet, so nothing is
    /// indeterminate.
    pub(crate) fn of_member(self, member: &str) -> Error {
        let kind = match self.kind() {
            ErrorKind::Indeterminate => ErrorKind::Unavailable,
            kind => kind,
        };
        Error::new(kind, "connect")
            .with_detail(format!("{member}: {}", self.detail()))
            .with_source(self.source)
    }

    fn kind(&self) -> ErrorKind {
        match self.meaning {
            Meaning::Elsewhere | Meaning::Refused | Meaning::LeaseGone | Meaning::LeaseExists => {
                ErrorKind::Unavailable
            }
            Meaning::StaleToken | Meaning::Denied => ErrorKind::Denied,
            Meaning::Unfit => ErrorKind::Unsupported,
            Meaning::Unknown => ErrorKind::Indeterminate,
        }
    }

    fn detail(&self) -> String {
        match &self.source {
            etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
            other => other.to_string(),
        }
    }
}

fn meaning(error: &etcd_client::Error) -> Meaning {
    use etcd_client::Error as E;
    match error {
        E::GRpcStatus(status) => of_status(status),
        // How the client says that a keep-alive was answered with a TTL of zero.
        E::LeaseKeepAliveError(text) if text == "lease not found" => Meaning::LeaseGone,
        E::TransportError(error) if was_not_sent(error) => Meaning::Elsewhere,
        E::InvalidArgs(_)
        | E::InvalidUri(_)
        | E::InvalidMetadataValue(_)
        | E::EndpointError(_)
        | E::EndpointsNotManaged => Meaning::Refused,
        E::IoError(_)
        | E::TransportError(_)
        | E::WatchError(_)
        | E::Utf8Error(_)
        | E::LeaseKeepAliveError(_)
        | E::ElectError(_)
        | E::Internal(_) => Meaning::Unknown,
        // Errors of cryptography that other crates of a program may switch on.
        #[allow(
            unreachable_patterns,
            clippy::allow_attributes,
            reason = "features of the client that this crate does not use add variants"
        )]
        _ => Meaning::Unknown,
    }
}

/// Most of etcd's own errors share a few codes, so their texts are looked at.
///
/// # Source
/// etcd `api/v3rpc/rpctypes/error.go`.
fn of_status(status: &Status) -> Meaning {
    if was_not_sent(status) {
        return Meaning::Elsewhere;
    }
    let text = status.message();
    let says = |part: &str| text.contains(part);
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Meaning::Denied,
        Code::InvalidArgument if says("revision of auth store is old") => Meaning::StaleToken,
        Code::InvalidArgument if says("user") || says("authentication failed") => Meaning::Denied,
        Code::FailedPrecondition if says("authentication is not enabled") => Meaning::Denied,
        // Refused by an interceptor, before the request was proposed.
        Code::Unavailable if says("etcdserver: no leader") => Meaning::Elsewhere,
        Code::Unavailable if says("etcdserver: not capable") => Meaning::Unfit,
        Code::Unimplemented => Meaning::Unfit,
        Code::ResourceExhausted if says("etcdserver:") => Meaning::Refused,
        Code::InvalidArgument | Code::OutOfRange => Meaning::Refused,
        Code::NotFound if says("lease not found") => Meaning::LeaseGone,
        Code::FailedPrecondition if says("lease already exists") => Meaning::LeaseExists,
        // Timeouts, lost connections, leader changes, servers that stop: it may have been proposed.
        _ => Meaning::Unknown,
    }
}

/// Whether the error is one of connecting: then nothing of the request has left this machine.
fn was_not_sent(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<tonic::ConnectError>())
}

/// An error and what caused it, outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The error of a connection that could not be made: nothing was asked for yet.
pub(crate) fn of_connecting(endpoint: &str, source: tonic::transport::Error) -> Error {
    let why = causes(&source)
        .last()
        .map_or_else(String::new, ToString::to_string);
    let kind = match tls_refusal(&source) {
        true => ErrorKind::Denied,
        false => ErrorKind::Unavailable,
    };
    Error::new(kind, "connect")
        .with_detail(format!("{endpoint}: {why}"))
        .with_source(source)
}

/// Whether the server was reached and not believed, or we were not: no retry changes that.
#[cfg(feature = "tls")]
fn tls_refusal(error: &(dyn StdError + 'static)) -> bool {
    let refused = |error: &rustls::Error| {
        matches!(
            error,
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::AlertReceived(_)
        )
    };
    causes(error).any(|cause| {
        // An I/O error keeps its cause to itself: it is not in the chain of sources.
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
        inner.or(cause.downcast_ref()).is_some_and(refused)
    })
}

#[cfg(not(feature = "tls"))]
fn tls_refusal(_: &(dyn StdError + 'static)) -> bool {
    false
}

/// An answer that this version does not understand.
pub(crate) fn protocol(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, op).with_detail(detail)
}

/// A configuration or request that cannot work.
pub(crate) fn invalid(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, op).with_detail(detail)
}

/// The server did not answer, or there is no connection to it.
pub(crate) fn unavailable(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, op).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, text: &str) -> etcd_client::Error {
        etcd_client::Error::GRpcStatus(Status::new(code, text))
    }

    #[test]
    fn answers_are_told_apart() {
        for (code, text, meaning) in [
            (
                Code::Unavailable,
                "etcdserver: no leader",
                Meaning::Elsewhere,
            ),
            (
                Code::Unavailable,
                "etcdserver: leader changed",
                Meaning::Unknown,
            ),
            (
                Code::Unavailable,
                "etcdserver: request timed out",
                Meaning::Unknown,
            ),
            (
                Code::Unavailable,
                "etcdserver: server stopped",
                Meaning::Unknown,
            ),
            (Code::Unavailable, "transport error", Meaning::Unknown),
            (Code::Cancelled, "operation was canceled", Meaning::Unknown),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Meaning::Denied,
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Meaning::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                Meaning::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Meaning::Denied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                Meaning::StaleToken,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                Meaning::Refused,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Meaning::Refused,
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                Meaning::LeaseGone,
            ),
        ] {
            assert_eq!(Failure::from(status(code, text)).meaning, meaning, "{text}");
        }
    }

    #[test]
    fn only_an_error_of_connecting_proves_that_nothing_was_sent() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let connecting = Status::from_error(Box::new(tonic::ConnectError(refused.into())));
        let failure = Failure::from(etcd_client::Error::GRpcStatus(connecting));
        assert_eq!(failure.meaning, Meaning::Elsewhere);
        assert_eq!(failure.into_error("acquire").kind(), ErrorKind::Unavailable);
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let broken = Status::from_error(Box::new(reset));
        let failure = Failure::from(etcd_client::Error::GRpcStatus(broken));
        assert_eq!(
            failure.into_error("acquire").kind(),
            ErrorKind::Indeterminate
        );
    }

    #[test]
    fn source_is_the_clients_own_error() {
        let error = Failure::from(status(
            Code::PermissionDenied,
            "etcdserver: permission denied",
        ));
        let error = error.into_error("acquire");
        let source = StdError::source(&error).expect("a source");
        assert!(source.downcast_ref::<etcd_client::Error>().is_some());
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
}
