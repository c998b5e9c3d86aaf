//! What the scripts answer.

use std::time::Duration;

use lock_core::{FencingToken, HolderState, LockName, LockState, Result, WaiterState};
use redis::Value;

use crate::error::protocol;

/// Redis counts in doubles inside of scripts; beyond this they do not count in ones.
pub(crate) const LARGEST_TOKEN: u64 = (1 << 53) - 1;

/// The answer to a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    Granted {
        token: FencingToken,
        left: Duration,
        provisional: bool,
    },
    Queued {
        /// The server's clock.
        server: Duration,
        /// When the place is to be renewed, counted from the sending.
        again: Duration,
    },
    Busy,
    /// The claim neither holds nor waits.
    Gone,
    /// The claim was released before.
    Dead,
    /// A key of another type is in the way.
    Foreign,
}

impl Reply {
    pub(crate) fn read(op: &'static str, value: &Value) -> Result<Self> {
        let parts = list(op, value)?;
        Ok(match (text(op, part(op, parts, 0)?)?, parts.len()) {
            ("granted", 4) => Self::Granted {
                token: token(op, &parts[1])?,
                left: micros(op, &parts[2])?,
                provisional: whole(op, &parts[3])? == 1,
            },
            ("queued", 5) => Self::Queued {
                server: micros(op, &parts[2])?,
                again: Duration::from_millis(whole(op, &parts[4])?),
            },
            ("busy", 1) => Self::Busy,
            ("gone", 1) => Self::Gone,
            ("dead", 1) => Self::Dead,
            ("foreign", 1) => Self::Foreign,
            _ => return Err(odd(op, value)),
        })
    }
}

/// The answer to `inspect`.
pub(crate) fn state(name: &LockName, value: &Value) -> Result<LockState> {
    let op = "inspect";
    let parts = list(op, value)?;
    let last = whole(op, part(op, parts, 0)?)?;
    let holder = list(op, part(op, parts, 1)?)?;
    let waiters = list(op, part(op, parts, 2)?)?;
    let holders = match holder {
        [] => Vec::new(),
        [nonce, held, age, left, provisional, identity] => vec![HolderState {
            nonce: text(op, nonce)?.parse()?,
            token: token(op, held)?,
            identity: text(op, identity)?.parse()?,
            age: micros(op, age)?,
            remaining: Some(micros(op, left)?),
            provisional: whole(op, provisional)? == 1,
        }],
        _ => return Err(odd(op, value)),
    };
    let waiters = waiters
        .iter()
        .map(|waiter| match list(op, waiter)? {
            [nonce, age, identity] => Ok(WaiterState {
                nonce: text(op, nonce)?.parse()?,
                identity: text(op, identity)?.parse()?,
                age: micros(op, age)?,
            }),
            _ => Err(odd(op, value)),
        })
        .collect::<Result<_>>()?;
    Ok(LockState {
        name: name.clone(),
        holders,
        waiters,
        last_token: match last {
            0 => None,
            last => Some(FencingToken::new(last)?),
        },
    })
}

pub(crate) fn list<'a>(op: &'static str, value: &'a Value) -> Result<&'a [Value]> {
    match value {
        Value::Array(parts) => Ok(parts),
        other => Err(odd(op, other)),
    }
}

pub(crate) fn text<'a>(op: &'static str, value: &'a Value) -> Result<&'a str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| odd(op, value)),
        Value::SimpleString(text) => Ok(text),
        other => Err(odd(op, other)),
    }
}

pub(crate) fn whole(op: &'static str, value: &Value) -> Result<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| odd(op, value)),
        other => Err(odd(op, other)),
    }
}

fn micros(op: &'static str, value: &Value) -> Result<Duration> {
    whole(op, value).map(Duration::from_micros)
}

fn token(op: &'static str, value: &Value) -> Result<FencingToken> {
    match whole(op, value)? {
        token if token > LARGEST_TOKEN => Err(odd(op, value)),
        token => FencingToken::new(token),
    }
}

pub(crate) fn part<'a>(op: &'static str, parts: &'a [Value], at: usize) -> Result<&'a Value> {
    parts
        .get(at)
        .ok_or_else(|| protocol(op, "the answer is too short"))
}

pub(crate) fn odd(op: &'static str, value: &Value) -> lock_core::Error {
    protocol(op, format!("answer {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn answers_are_read() {
        let value = Value::Array(vec![
            bulk("granted"),
            Value::Int(7),
            Value::Int(1500),
            Value::Int(1),
        ]);
        assert_eq!(
            Reply::read("acquire", &value).expect("reads"),
            Reply::Granted {
                token: FencingToken::new(7).expect("a token"),
                left: Duration::from_micros(1500),
                provisional: true
            }
        );
        let value = Value::Array(vec![bulk("busy")]);
        assert_eq!(Reply::read("acquire", &value).expect("reads"), Reply::Busy);
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_no_panic() {
        let granted = |token| {
            Value::Array(vec![
                bulk("granted"),
                Value::Int(token),
                Value::Int(1),
                Value::Int(0),
            ])
        };
        for value in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![bulk("granted")]),
            Value::Array(vec![bulk("what")]),
            granted(0),
            granted(-1),
            granted(1 << 53),
        ] {
            assert!(Reply::read("acquire", &value).is_err(), "{value:?}");
        }
        let name = LockName::new("a").expect("a name");
        assert!(state(&name, &Value::Array(vec![Value::Int(1)])).is_err());
    }
}
