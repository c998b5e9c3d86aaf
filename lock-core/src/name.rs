//! Names of what is locked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// The name of a protected resource, exact to the byte.
///
/// A name is 1 to 1024 bytes of UTF-8 without control characters. Two different names are two
/// different locks on every backend: nothing is folded, trimmed, normalised or truncated.
/// Cheap to clone.
///
/// # Examples
/// ```
/// use lock_core::LockName;
/// let name: LockName = "order/42".parse()?;
/// assert_eq!(name.as_str(), "order/42");
/// assert!(LockName::new("").is_err());
/// assert!(LockName::new("line\nbreak").is_err());
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LockName(Arc<str>);

impl LockName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Checks `name` and takes a copy of it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is empty, too long, or has a control character; the error
    /// says which.
    pub fn new(name: &str) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Invalid, "name").with_detail(why));
        if name.is_empty() {
            return refuse("a lock name must not be empty".into());
        }
        if name.len() > Self::MAX_BYTES {
            return refuse(format!(
                "a lock name has at most {} bytes, this one has {}",
                Self::MAX_BYTES,
                name.len()
            ));
        }
        if let Some((at, found)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return refuse(format!(
                "a lock name has no control characters, this one has {found:?} at byte {at}"
            ));
        }
        Ok(Self(name.into()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LockName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

impl TryFrom<&str> for LockName {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

impl AsRef<str> for LockName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusal_says_what_is_wrong() {
        let why = |name: &str| LockName::new(name).expect_err("refused").to_string();
        assert!(why("").contains("must not be empty"));
        assert!(why(&"x".repeat(1025)).contains("1025"));
        assert!(why("a\u{7f}").contains("at byte 1"));
        assert!(why("a\u{85}b").contains("control"));
    }

    #[test]
    fn longest_name_and_odd_unicode_are_accepted() {
        for name in [
            "x".repeat(1024).as_str(),
            " ",
            "é",
            "e\u{301}",
            "a/",
            "a//b",
            "{p1}",
            "🔒",
        ] {
            assert_eq!(LockName::new(name).expect("accepted").as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn accepted_exactly_when_the_rule_holds(name in "\\PC{0,40}|.{0,40}|[\\x00-\\x7f]{0,8}") {
            let allowed = !name.is_empty() && name.len() <= 1024 && !name.chars().any(char::is_control);
            prop_assert_eq!(LockName::new(&name).is_ok(), allowed);
        }
    }
}
