//! Fencing tokens.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// A number that grows with every grant of one name.
///
/// Send it with each write to the resource that the lock protects, and let the resource refuse a
/// token that is smaller than the largest it has seen (see [`FenceGate`](crate::FenceGate)): that is
/// what stops a holder that was paused past the end of its lease. A token fits SQL's signed
/// `BIGINT` and is never zero. Tokens of different backends or names do not compare.
///
/// # Source
/// C. Gray and D. Cheriton, "Leases" (1989), for the lease; M. Kleppmann, "How to do distributed
/// locking" (2016), for the token.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The largest token: what SQL's signed `BIGINT` can hold.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());

    /// The token with this value.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when `value` is 0, which means "never", or more than [`Self::MAX`].
    pub fn new(value: u64) -> Result<Self, Error> {
        if value == 0 || value > Self::MAX.0 {
            return Err(Error::new(ErrorKind::Protocol, "token")
                .with_detail(format!("{value} is no fencing token")));
        }
        Ok(Self(value))
    }

    /// The token as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The token as SQL's `BIGINT`.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_more_than_63_bits_are_no_tokens() {
        assert!(FencingToken::new(0).is_err());
        assert!(FencingToken::new(1 << 63).is_err());
        assert_eq!(
            FencingToken::new(FencingToken::MAX.get())
                .expect("fits")
                .as_i64(),
            i64::MAX
        );
    }
}
