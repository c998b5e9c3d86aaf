//! How names become keys, and keys names.

use std::fmt::Write as _;

use lock_core::LockName;

/// The part of the key space that one prefix names, as one client sees it.
///
/// A name is one segment of a key: `/` and `%` in it are escaped, so that no name's range of keys
/// contains a key of another.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    client: String,
}

/// How a claim came to stand at its key.
///
/// Those who follow a client see deletions among the keys of both kinds, and among those of the second
/// kind what is put there as well: a key that is deleted and one that is put in one revision tell that
/// the client has passed the lock on, so it held it. Among the first kind that would only be noise.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Came {
    /// It has joined the queue by itself, or tried.
    Joined,
    /// In the transaction in which its client gave up an earlier hold.
    Passed,
}

impl Came {
    const fn letter(self) -> char {
        match self {
            Self::Joined => 'j',
            Self::Passed => 'p',
        }
    }
}

/// What a lock key says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Parts<'a> {
    /// The name, escaped.
    pub(crate) name: &'a str,
    pub(crate) client: &'a str,
    pub(crate) came: Came,
}

impl Keys {
    pub(crate) fn new(prefix: &str, client: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            client: client.to_owned(),
        }
    }

    /// What every key of holders and waiters begins with.
    fn locks(&self) -> String {
        format!("{}/l/", self.prefix)
    }

    /// What the keys of all holders and waiters of `name` begin with; no other key does.
    pub(crate) fn of_name(&self, name: &LockName) -> Vec<u8> {
        format!("{}{}/", self.locks(), escape(name.as_str())).into_bytes()
    }

    /// This client's key number `slot` for claims of `name` that came in this way.
    pub(crate) fn slot(&self, name: &LockName, came: Came, slot: u32) -> Vec<u8> {
        let (name, came) = (escape(name.as_str()), came.letter());
        format!("{}{name}/{}/{came}{slot}", self.locks(), self.client).into_bytes()
    }

    /// Counts the requests of this lease that were given up unanswered.
    pub(crate) fn generation(&self, lease: i64) -> Vec<u8> {
        format!("{}/g/{lease:016x}", self.prefix).into_bytes()
    }

    /// What is added to revisions to make tokens.
    pub(crate) fn base(&self) -> Vec<u8> {
        format!("{}/f", self.prefix).into_bytes()
    }

    /// Where this client is told that an operator has taken a lock from it.
    pub(crate) fn inbox(&self) -> Vec<u8> {
        self.inbox_of(&self.client)
    }

    pub(crate) fn inbox_of(&self, client: &str) -> Vec<u8> {
        format!("{}/b/{client}", self.prefix).into_bytes()
    }

    /// What the keys of all names begin with that begin with `start`.
    pub(crate) fn names_from(&self, start: &str) -> Vec<u8> {
        format!("{}{}", self.locks(), escape(start)).into_bytes()
    }

    /// Takes a holder's or waiter's key apart; `None` when it is none.
    pub(crate) fn parts<'a>(&self, key: &'a [u8]) -> Option<Parts<'a>> {
        let rest = std::str::from_utf8(key).ok()?;
        let rest = rest.strip_prefix(self.prefix.as_str())?;
        let (name, rest) = rest.strip_prefix("/l/")?.split_once('/')?;
        let (client, slot) = rest.split_once('/')?;
        let came = [Came::Joined, Came::Passed]
            .into_iter()
            .find(|came| slot.starts_with(came.letter()))?;
        slot[1..].parse::<u32>().ok()?;
        Some(Parts { name, client, came })
    }

    /// What all keys begin with that this client has for this name and this kind of claim.
    pub(crate) fn start_of(&self, parts: Parts<'_>) -> Vec<u8> {
        let Parts { name, client, came } = parts;
        format!("{}{name}/{client}/{}", self.locks(), came.letter()).into_bytes()
    }

    /// The name in a holder's or waiter's key.
    pub(crate) fn name_of(&self, key: &[u8]) -> Option<LockName> {
        LockName::new(&unescape(self.parts(key)?.name)?).ok()
    }
}

/// The first key after all that begin with `start`.
pub(crate) fn end_of(start: &[u8]) -> Vec<u8> {
    let mut end = start.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd reads a lone zero byte as "to the end of all keys".
    vec![0]
}

fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' | '%' => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "%{:02X}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescape(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('%');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        name.push(match part.get(..2)? {
            "2F" => '/',
            "25" => '%',
            _ => return None,
        });
        name.push_str(part.get(2..)?);
    }
    Some(name)
}

/// Why `prefix` cannot be one, if it cannot.
pub(crate) fn prefix_refusal(prefix: &str) -> Option<&'static str> {
    if prefix.is_empty() {
        Some("the prefix must not be empty")
    } else if prefix.len() > 256 {
        Some("the prefix has at most 256 bytes")
    } else if prefix.starts_with('/') || prefix.ends_with('/') {
        Some("the prefix must neither begin nor end with a slash")
    } else if prefix.chars().any(char::is_control) {
        Some("the prefix must not contain control characters")
    } else if prefix.split('/').skip(1).any(|part| part == "l") {
        // Its keys would be among those of a lock of the prefix before that.
        Some("the prefix must not contain /l/, which is where another prefix has its locks")
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
    fn keys_read_as_documented() {
        let keys = Keys::new("distlock", "c1");
        let text = |key: Vec<u8>| String::from_utf8(key).expect("UTF-8");
        assert_eq!(
            text(keys.slot(&name("a/b%"), Came::Joined, 1)),
            "distlock/l/a%2Fb%25/c1/j1"
        );
        assert_eq!(text(keys.inbox()), "distlock/b/c1");
        assert_eq!(text(keys.generation(255)), "distlock/g/00000000000000ff");
        assert_eq!(text(keys.names_from("a/")), "distlock/l/a%2F");
    }

    #[test]
    fn keys_of_claims_that_came_in_different_ways_are_followed_apart() {
        let keys = Keys::new("p", "c");
        for came in [Came::Joined, Came::Passed] {
            let key = keys.slot(&name("a"), came, 3);
            let parts = keys.parts(&key).expect("a lock key");
            assert_eq!(parts.came, came);
            assert!(key.starts_with(&keys.start_of(parts)));
        }
    }

    #[test]
    fn end_of_a_range_is_the_first_key_behind_it() {
        assert_eq!(end_of(b"a/"), b"a0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff\xff"), b"\0");
    }

    #[test]
    fn what_is_no_lock_key_has_no_name() {
        let keys = Keys::new("p", "c");
        for key in [
            "p/l/a",
            "p/l/a/c",
            "p/l/a/c/x",
            "p/l/a/c/0",
            "p/l/a/c/j",
            "p/l/a/c/jx",
            "p/g/1",
            "q/l/a/c/j0",
            "p/l/%2X/c/j0",
        ] {
            assert_eq!(keys.name_of(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn prefix_without_room_for_mistakes() {
        for good in ["distlock", "team a/β", "l", "a/ll"] {
            assert!(prefix_refusal(good).is_none(), "{good}");
        }
        for bad in ["", "/a", "a/", "a\nb", "a/l", "a/l/b"] {
            assert!(prefix_refusal(bad).is_some(), "{bad:?}");
        }
        assert!(prefix_refusal(&"x".repeat(257)).is_some());
    }

    proptest! {
        #[test]
        fn names_survive_their_keys(text in "\\PC{1,40}", slot in 0_u32..3) {
            prop_assume!(LockName::new(&text).is_ok());
            let keys = Keys::new("p/q", "c");
            let name = name(&text);
            prop_assert_eq!(keys.name_of(&keys.slot(&name, Came::Passed, slot)), Some(name));
        }

        #[test]
        fn no_range_contains_a_key_of_another_name(a in "[ab/%2F0.]{1,8}", b in "[ab/%2F0.]{1,8}") {
            prop_assume!(a != b);
            let keys = Keys::new("p", "c");
            let range = keys.of_name(&name(&a));
            let other = keys.slot(&name(&b), Came::Joined, 0);
            prop_assert!(!(other >= range && other < end_of(&range)));
        }
    }
}
