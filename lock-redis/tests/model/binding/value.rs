//! Reading what a real server answers.

use lock_redis::redis::Value;

use super::TICK_US;

/// A span of the server's in ticks; a test takes some of each.
pub(super) fn ticks(us: i64) -> i64 {
    us.div_euclid(TICK_US) + i64::from(us.rem_euclid(TICK_US) > 0)
}

pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).expect("a small number")
}

pub(super) fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(parts) => parts,
        other => panic!("no list: {other:?}"),
    }
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
        Value::SimpleString(text) => text.clone(),
        other => panic!("no text: {other:?}"),
    }
}

pub(super) fn whole(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => panic!("no number: {other:?}"),
    }
}

pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Nil => None,
        other => Some(text(other).parse().expect("a number")),
    }
}
