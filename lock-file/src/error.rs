//! From the operating system's errors to the contract's.

use std::io;

use lock_core::{Error, ErrorKind};

/// What went wrong with a file. Nothing was granted.
pub(crate) fn os(op: &'static str, what: &str, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => ErrorKind::WrongType,
        _ if source.raw_os_error() == Some(nix::libc::ELOOP) => ErrorKind::WrongType,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, op)
        .with_detail(what.to_owned())
        .with_source(source)
}

pub(crate) fn invalid(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, op).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_trouble() {
        let kind = |errno| os("acquire", "x", io::Error::from_raw_os_error(errno)).kind();
        assert_eq!(kind(nix::libc::EACCES), ErrorKind::Denied);
        assert_eq!(kind(nix::libc::EROFS), ErrorKind::Denied);
        assert_eq!(kind(nix::libc::ELOOP), ErrorKind::WrongType);
        assert_eq!(kind(nix::libc::EISDIR), ErrorKind::WrongType);
        assert_eq!(kind(nix::libc::EMFILE), ErrorKind::Unavailable);
        assert_eq!(kind(nix::libc::ENOSPC), ErrorKind::Unavailable);
    }
}
