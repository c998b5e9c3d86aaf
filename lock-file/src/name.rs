//! From lock names to file names, without collisions.

use lock_core::LockName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

const SUFFIX: &str = ".lock";
/// File systems take 255 bytes; this leaves room.
const LONGEST: usize = 200;
const HASHED: char = '~';
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// The file of the lock `name`.
///
/// Upper case is escaped too: directories can be made to fold case. What is hashed begins with `~`,
/// which no escaped name contains.
pub(crate) fn file_name(name: &LockName) -> String {
    let escaped = escape(name.as_str());
    if escaped.len() <= LONGEST {
        format!("{escaped}{SUFFIX}")
    } else {
        let digest = Sha256::digest(name.as_str());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{HASHED}{hex}{SUFFIX}")
    }
}

/// Whether a file of this name is a lock.
pub(crate) fn is_lock(file: &str) -> bool {
    file.ends_with(SUFFIX) && !file.starts_with('.')
}

fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for char in name.chars() {
        if char.is_ascii_uppercase() {
            escaped.push_str(&format!("%{:02x}", u32::from(char)));
        } else {
            let mut bytes = [0; 4];
            let one = utf8_percent_encode(char.encode_utf8(&mut bytes), KEPT).to_string();
            escaped.push_str(&one.to_ascii_lowercase());
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(name: &str) -> String {
        file_name(&LockName::new(name).expect("a good name"))
    }

    #[test]
    fn names_that_look_alike_are_different_files_even_where_case_is_folded() {
        let long = "x".repeat(1024);
        let names = [
            "a",
            "A",
            "a/",
            "/a",
            "a/b",
            "a%2fb",
            "a%2Fb",
            ".",
            "..",
            "~",
            ".a",
            "é",
            "e\u{301}",
            "a.lock",
            "a ",
            " a",
            "É",
            &long,
            &long[..1023],
        ];
        let files: BTreeSet<String> = names.iter().map(|name| of(name).to_lowercase()).collect();
        assert_eq!(files.len(), names.len());
        for file in files {
            assert!(
                file.len() <= 255 && !file.contains('/') && is_lock(&file),
                "{file}"
            );
        }
    }

    #[test]
    fn hidden_and_foreign_files_are_no_locks() {
        assert!(!is_lock(".swept"));
        assert!(!is_lock("README"));
        assert!(!is_lock(".lock"));
    }
}
