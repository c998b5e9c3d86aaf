//! The next token of a lock.

use std::time::UNIX_EPOCH;

use lock_core::{FencingToken, Result};

/// `max(last + 1, seed, floor + 1)`.
///
/// `last` is what the lock's file remembers, `floor` the largest this client has seen or was given as
/// its base. The [`seed`] makes tokens grow when the file has been swept, and after a crash of the machine
/// that lost its last change.
pub(crate) fn next(last: u64, floor: u64, seed: u64) -> Result<FencingToken> {
    FencingToken::new(last.max(floor).saturating_add(1).max(seed))
}

/// What a token is larger than, whatever else is known: the wall clock, lifted above the base, so that tokens
/// above the base grow as well when the file has been swept.
pub(crate) fn seed(fence_base: u64) -> u64 {
    fence_base.saturating_add(wall_micros())
}

/// The wall clock in µs since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "a token has to grow across reboots, which only the wall clock does; no lease is measured by it"
)]
pub(crate) fn wall_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 seeds nothing; the counter alone grows then.
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_grows_whatever_the_clock_does() {
        let next = |last, floor, wall| next(last, floor, wall).map(FencingToken::get).ok();
        assert_eq!(next(10, 0, 1_000), Some(1_000));
        assert_eq!(next(1_000, 0, 10), Some(1_001), "a clock that was set back");
        assert_eq!(next(1_000, 5_000, 10), Some(5_001), "a base above all");
        assert_eq!(next(0, 0, 0), Some(1));
        assert_eq!(next(FencingToken::MAX.get(), 0, 0), None, "exhausted");
    }
}
