//! Options in the environment.

use std::env::{self, VarError};

/// The value of the option `name`, or `None` where it is not set.
///
/// # Errors
/// When it is set to something that `read` does not understand: what it is, and what is `wanted`. A wrong
/// option is never taken for one that is not there: the run would be another than was asked for.
pub(crate) fn option<T>(
    name: &str,
    wanted: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    match env::var(name) {
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(text)) => Err(wrong(name, &text.to_string_lossy(), wanted)),
        Ok(text) => match read(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong(name, &text, wanted)),
        },
    }
}

fn wrong(name: &str, text: &str, wanted: &str) -> String {
    format!("{name}={text:?}: wanted {wanted}")
}

/// A whole number.
pub(crate) fn number(name: &str) -> Result<Option<u64>, String> {
    option(name, "a whole number", |text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_that_is_not_set_is_none_and_a_wrong_one_an_error() {
        assert_eq!(number("LOCK_TEST_NO_SUCH_OPTION"), Ok(None));
        // Cargo sets this one for every test.
        let wrong = number("CARGO_MANIFEST_DIR").expect_err("it is a path");
        assert!(wrong.starts_with("CARGO_MANIFEST_DIR=\""), "{wrong}");
        assert!(wrong.ends_with("wanted a whole number"), "{wrong}");
        let right = option("CARGO_MANIFEST_DIR", "a path", |text| Some(text.len()));
        assert!(right.is_ok_and(|found| found.is_some()));
    }
}
