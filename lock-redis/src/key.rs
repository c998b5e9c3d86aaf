//! How names become keys, and keys names.

use lock_core::{LockName, Nonce};
use uuid::Uuid;

/// How many hash tags, and so Cluster slots, the names are spread over. Part of the layout.
pub(crate) const PARTITIONS: u64 = 64;

/// The layout that all clients of a namespace have to agree on; see the `namespace` record.
pub(crate) const LAYOUT: &str = "distlock 1 partitions=64 hash=fnv1a64";

/// The part of the key space that one prefix names.
///
/// A prefix contains no braces, so the first pair of them in a key is the hash tag, and what comes
/// after the tag and the kind is the name, byte for byte: names need no escaping and cannot meet.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The record that says which layout this namespace has.
    pub(crate) fn namespace(&self) -> String {
        format!("{}:namespace", self.prefix)
    }

    /// The channel on which this client is told of grants.
    pub(crate) fn inbox(&self, client: Uuid) -> String {
        format!("{}:inbox:{}", self.prefix, client.as_simple())
    }

    /// Holder, queue and waiters of a lock, in the order that the scripts expect.
    pub(crate) fn of_lock(&self, name: &LockName) -> [String; 3] {
        ["l", "q", "w"].map(|kind| self.key(partition(name), kind, name.as_str()))
    }

    /// The record that keeps late copies of this nonce's requests from winning.
    pub(crate) fn tombstone(&self, name: &LockName, nonce: Nonce) -> String {
        self.key(partition(name), "t", &nonce.to_string())
    }

    fn key(&self, partition: u64, kind: &str, rest: &str) -> String {
        format!("{}:{{p{partition:02}}}:{kind}:{rest}", self.prefix)
    }

    /// A glob that matches the holder keys of all names that begin with `start`.
    pub(crate) fn holders_glob(&self, start: &str) -> String {
        format!(
            "{}:{{p[0-9][0-9]}}:l:{}*",
            escape_glob(&self.prefix),
            escape_glob(start)
        )
    }

    /// The name in a holder key.
    pub(crate) fn name_of(&self, holder_key: &str) -> Option<LockName> {
        let rest = holder_key.strip_prefix(&self.prefix)?;
        let rest = rest.strip_prefix(":{p")?;
        let (_, name) = rest.split_once("}:l:")?;
        LockName::new(name).ok()
    }
}

/// The partition of a name: FNV-1a, 64 bits, modulo the number of partitions.
///
/// # Source
/// G. Fowler, L. Noll, K.-P. Vo, "The FNV Non-Cryptographic Hash Algorithm", IETF draft. Chosen because every
/// client library can have it in five lines; it only spreads, it does not protect.
pub(crate) fn partition(name: &LockName) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = name.as_str().bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    hash % PARTITIONS
}

fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Why `prefix` cannot be one, if it cannot.
pub(crate) fn prefix_refusal(prefix: &str) -> Option<&'static str> {
    if prefix.is_empty() {
        Some("the prefix must not be empty")
    } else if prefix.len() > 256 {
        Some("the prefix has at most 256 bytes")
    } else if prefix.contains(['{', '}']) {
        Some("the prefix must not contain braces: they mark the hash tag")
    } else if prefix.chars().any(char::is_control) {
        Some("the prefix must not contain control characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> LockName {
        LockName::new(text).expect("a good name")
    }

    #[test]
    fn partition_is_the_published_hash() {
        // FNV-1a test vectors of the reference implementation.
        assert_eq!(partition(&name("a")), 0xaf63_dc4c_8601_ec8c % PARTITIONS);
        assert_eq!(
            partition(&name("foobar")),
            0x8594_4171_f739_67e8 % PARTITIONS
        );
    }

    #[test]
    fn keys_of_a_lock_share_one_hash_tag_whatever_the_name_contains() {
        let keys = Keys::new("distlock");
        for text in ["a", "{x}", "}{", "a:l:b", "{p00}:l:z"] {
            let name = name(text);
            let tag = format!("{{p{:02}}}", partition(&name));
            let mut all = keys.of_lock(&name).to_vec();
            all.push(keys.tombstone(&name, Nonce::new()));
            for key in all {
                let from = key.find('{').expect("a tag");
                let to = key.find('}').expect("a tag");
                assert_eq!(&key[from..=to], tag, "{key}");
            }
        }
    }

    #[test]
    fn glob_characters_of_a_prefix_are_taken_literally() {
        assert_eq!(
            Keys::new("p*").holders_glob("a?[b]\\"),
            "p\\*:{p[0-9][0-9]}:l:a\\?\\[b\\]\\\\*"
        );
    }

    #[test]
    fn prefix_without_room_for_mistakes() {
        assert!(prefix_refusal("distlock").is_none());
        assert!(prefix_refusal("team a/β").is_none());
        for bad in ["", "a{b", "a}b", "a\nb", "a\tb"] {
            assert!(prefix_refusal(bad).is_some(), "{bad:?}");
        }
        assert!(prefix_refusal(&"x".repeat(257)).is_some());
    }

    proptest! {
        #[test]
        fn names_survive_their_keys(text in "\\PC{1,40}", prefix in "[a-z:p]{1,10}") {
            prop_assume!(LockName::new(&text).is_ok());
            let keys = Keys::new(&prefix);
            let name = name(&text);
            let [holder, ..] = keys.of_lock(&name);
            prop_assert_eq!(keys.name_of(&holder), Some(name));
        }

        #[test]
        fn different_names_have_different_keys(a in "[{}:lp0-9]{1,12}", b in "[{}:lp0-9]{1,12}") {
            prop_assume!(a != b);
            let keys = Keys::new("distlock");
            let mine = keys.of_lock(&name(&a));
            for key in keys.of_lock(&name(&b)) {
                prop_assert!(!mine.contains(&key));
            }
        }
    }
}
