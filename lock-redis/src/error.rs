//! What an error of Redis means for a lock.

use lock_core::{Error, ErrorKind};
use redis::{RedisError, ServerErrorKind};

/// An error of a command that the server may have executed.
pub(crate) fn of_command(op: &'static str, source: RedisError) -> Error {
    let kind = match kind_of(&source) {
        Meaning::Denied => ErrorKind::Denied,
        Meaning::Foreign => ErrorKind::WrongType,
        Meaning::Refused | Meaning::Follower => ErrorKind::Unavailable,
        Meaning::Broken => ErrorKind::Indeterminate,
        Meaning::Unfit => ErrorKind::Unsupported,
        Meaning::Odd => ErrorKind::Protocol,
    };
    describe(Error::new(kind, op), source)
}

/// An error before there was a connection: nothing was asked for yet.
pub(crate) fn of_connecting(source: RedisError) -> Error {
    let kind = match kind_of(&source) {
        Meaning::Denied => ErrorKind::Denied,
        Meaning::Foreign => ErrorKind::WrongType,
        Meaning::Refused | Meaning::Follower | Meaning::Broken => ErrorKind::Unavailable,
        Meaning::Unfit => ErrorKind::Unsupported,
        // Answers to HELLO and SELECT: a password where none is set, a database that is not there.
        Meaning::Odd => match source.detail() {
            Some(detail) if detail.contains("AUTH") => ErrorKind::Denied,
            Some(detail) if detail.contains("DB index") => ErrorKind::Invalid,
            Some(detail) if detail.contains("max number of clients") => ErrorKind::Unavailable,
            _ => ErrorKind::Protocol,
        },
    };
    describe(Error::new(kind, "connect"), source)
}

/// Whether the connection is of no more use after this error.
pub(crate) fn breaks_connection(error: &RedisError) -> bool {
    matches!(kind_of(error), Meaning::Broken | Meaning::Follower)
}

/// Whether the server does not have the script that it was asked to run.
pub(crate) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the command was a script that a missing right has stopped half way: what it had written stays.
pub(crate) fn stopped_half_way(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<RedisError>())
        .is_some_and(|source| {
            let detail = source.detail().unwrap_or_default();
            matches!(of_script(detail), Meaning::Denied)
        })
}

/// An answer that this version does not understand.
pub(crate) fn protocol(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, op).with_detail(detail)
}

/// A configuration or request that cannot work.
pub(crate) fn invalid(op: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, op).with_detail(detail)
}

enum Meaning {
    /// Credentials or rights.
    Denied,
    /// A key of another type is in the way; our scripts find out before they write.
    Foreign,
    /// The server answered that it did not run the command. Our scripts are refused whole: they
    /// read before they write, and a script that has written is let finish.
    Refused,
    /// Refused by a replica: after a failover this connection leads to nobody who will ever run it, and
    /// a new one, to the same address, perhaps to whoever leads now.
    Follower,
    /// The connection broke: the command may have run.
    Broken,
    /// The server does not speak RESP3, or has the key on another node of its cluster.
    Unfit,
    /// Anything else.
    Odd,
}

fn kind_of(error: &RedisError) -> Meaning {
    use redis::ErrorKind as Kind;
    match error.kind() {
        Kind::AuthenticationFailed | Kind::Server(ServerErrorKind::NoPerm) => Meaning::Denied,
        Kind::Io | Kind::Parse => Meaning::Broken,
        Kind::RESP3NotSupported => Meaning::Unfit,
        Kind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain,
        ) => Meaning::Refused,
        Kind::Server(ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly) => Meaning::Follower,
        Kind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => Meaning::Unfit,
        _ => match error.code() {
            // Over RESP3 a wrong password is one of the codes that the crate does not know.
            // DENIED is protected mode: no password, and we are not on the server's machine.
            Some("WRONGPASS" | "NOAUTH" | "NOPERM" | "DENIED") => Meaning::Denied,
            Some("WRONGTYPE") => Meaning::Foreign,
            Some("BUSY" | "OOM" | "MISCONF" | "NOREPLICAS") => Meaning::Refused,
            _ => of_script(error.detail().unwrap_or_default()),
        },
    }
}

/// An error inside of a script. Before Redis 7 it is an ERR that quotes the command's own.
fn of_script(detail: &str) -> Meaning {
    if detail.contains("WRONGTYPE") {
        Meaning::Foreign
    } else if [
        "NOPERM",
        // Redis 7.0, and from Redis 7.2 and Valkey on.
        "The user executing the script can't",
        "ACL failure in script",
    ]
    .iter()
    .any(|text| detail.contains(text))
    {
        Meaning::Denied
    } else if detail.contains("-READONLY ") {
        Meaning::Follower
    } else if ["OOM command not allowed", "-MISCONF ", "-NOREPLICAS "]
        .iter()
        .any(|refusal| detail.contains(refusal))
    {
        Meaning::Refused
    } else {
        Meaning::Odd
    }
}

fn describe(error: Error, source: RedisError) -> Error {
    let detail = match (source.code(), source.detail()) {
        (Some(code), Some(detail)) => Some(format!("{code} {detail}")),
        (Some(code), None) => Some(code.to_owned()),
        (None, _) => None,
    };
    let error = match detail {
        Some(detail) => error.with_detail(detail),
        None => error,
    };
    error.with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> RedisError {
        redis::parse_redis_value(text.as_bytes())
            .expect("RESP")
            .extract_error()
            .expect_err("an error reply")
    }

    #[test]
    fn replies_are_told_apart() {
        for (text, kind) in [
            ("-WRONGPASS invalid\r\n", ErrorKind::Denied),
            ("-NOAUTH Authentication required.\r\n", ErrorKind::Denied),
            (
                "-NOPERM this user has no permissions\r\n",
                ErrorKind::Denied,
            ),
            (
                "-WRONGTYPE Operation against a key\r\n",
                ErrorKind::WrongType,
            ),
            (
                "-ERR Error running script: @user_script:5: WRONGTYPE Operation\r\n",
                ErrorKind::WrongType,
            ),
            (
                "-ERR ACL failure in script: User app has no permissions to run the 'zadd' command\r\n",
                ErrorKind::Denied,
            ),
            (
                "-ERR The user executing the script can't run this command or subcommand\r\n",
                ErrorKind::Denied,
            ),
            ("-LOADING Redis is loading\r\n", ErrorKind::Unavailable),
            ("-READONLY You can't write\r\n", ErrorKind::Unavailable),
            ("-OOM command not allowed\r\n", ErrorKind::Unavailable),
            (
                "-BUSY Redis is busy running a script\r\n",
                ErrorKind::Unavailable,
            ),
            (
                "-ERR Error running script (call to f_0): @user_script:9: @user_script: 9: -READONLY You can't write against a read only replica.\r\n",
                ErrorKind::Unavailable,
            ),
            (
                "-ERR Error running script (call to f_0): @user_script:9: @user_script: 9: -MISCONF Errors writing to the AOF file\r\n",
                ErrorKind::Unavailable,
            ),
            (
                "-DENIED Redis is running in protected mode\r\n",
                ErrorKind::Denied,
            ),
            ("-MOVED 866 127.0.0.1:7001\r\n", ErrorKind::Unsupported),
            ("-ERR what\r\n", ErrorKind::Protocol),
        ] {
            assert_eq!(of_command("acquire", reply(text)).kind(), kind, "{text}");
        }
    }

    #[test]
    fn broken_connection_is_indeterminate_after_sending_and_unavailable_before() {
        let broken = || RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(
            of_command("acquire", broken()).kind(),
            ErrorKind::Indeterminate
        );
        assert_eq!(of_connecting(broken()).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn source_is_the_clients_own_error() {
        let error = of_command("acquire", reply("-OOM command not allowed\r\n"));
        let source = std::error::Error::source(&error).expect("a source");
        assert!(source.downcast_ref::<RedisError>().is_some());
        assert!(
            error.to_string().contains("OOM command not allowed"),
            "{error}"
        );
    }
}
