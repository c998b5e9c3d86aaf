//! Names of locks as names of nodes, and back.
//!
//! A node's name may have no slash, must not be `.` or `..`, and ZooKeeper refuses control
//! characters, the private use area and everything outside of the basic plane. So a lock's name is
//! percent-encoded: printable ASCII stays as it is but for `/` and `%`, every other byte is written
//! as `%XX`. The way back accepts only what the way there writes, so no two names share a node.

use std::borrow::Cow;

use lock_core::{LockName, Nonce};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

const ESCAPED: &AsciiSet = &CONTROLS.add(b'/').add(b'%');

/// The lock's name as the name of a node.
pub(crate) fn escape(name: &str) -> Cow<'_, str> {
    match name {
        "." => "%2E".into(),
        ".." => "%2E%2E".into(),
        // Reserved by ZooKeeper.
        "zookeeper" => "%7Aookeeper".into(),
        _ => utf8_percent_encode(name, ESCAPED).into(),
    }
}

/// The lock whose node this is, if it is one's.
pub(crate) fn unescape(node: &str) -> Option<LockName> {
    let name = percent_decode_str(node).decode_utf8().ok()?;
    let name = LockName::new(&name).ok()?;
    (escape(name.as_str()) == node).then_some(name)
}

/// What the node of a request is called before the server adds its sequence number.
pub(crate) fn stem(tag: Nonce) -> String {
    format!("{tag}-")
}

/// A node in a queue: whose request it is, and its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Member {
    /// The name of the node, without its parent's path.
    pub(crate) node: String,
    /// What the request was sent under.
    pub(crate) tag: Nonce,
    /// What the server counted.
    pub(crate) sequence: Sequence,
}

impl Member {
    /// Reads the name of a node; `None` when it is nobody's request.
    pub(crate) fn parse(node: &str) -> Option<Self> {
        // The number may be negative: only the first dash separates.
        let (tag, sequence) = node.split_once('-')?;
        let read: Nonce = tag.parse().ok()?;
        if stem(read).strip_suffix('-') != Some(tag) {
            return None;
        }
        Some(Self {
            node: node.to_owned(),
            tag: read,
            sequence: Sequence::new(sequence.parse().ok()?),
        })
    }
}

/// The number that the server adds to the name of a sequential node.
///
/// It counts in 32 signed bits and wraps, so only a distance says which of two came first: a parent
/// whose children lie 2^31 apart has other troubles. Servers that count in 64 bits are compared as
/// they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sequence(i64);

impl Sequence {
    pub(crate) const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Whether this one was counted before `other`.
    pub(crate) fn is_before(self, other: Self) -> bool {
        match (i32::try_from(self.0), i32::try_from(other.0)) {
            (Ok(one), Ok(other)) => one.wrapping_sub(other) < 0,
            _ => self.0 < other.0,
        }
    }
}

/// The members among `nodes`, in the order of the queue; `None` when something else is among them.
pub(crate) fn queue<'a>(nodes: impl IntoIterator<Item = &'a String>) -> Option<Vec<Member>> {
    let mut members: Vec<Member> = nodes
        .into_iter()
        .map(|node| Member::parse(node))
        .collect::<Option<_>>()?;
    members.sort_unstable_by(|one, other| {
        use std::cmp::Ordering;
        match (
            one.sequence == other.sequence,
            one.sequence.is_before(other.sequence),
        ) {
            (true, _) => Ordering::Equal,
            (_, true) => Ordering::Less,
            _ => Ordering::Greater,
        }
    });
    Some(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_comes_back_exactly(name in "[^\\pC]{1,64}|[./%a-z]{1,8}") {
            let name = LockName::new(&name).expect("a good name");
            let node = escape(name.as_str()).into_owned();
            prop_assert!(!node.contains('/') && node != "." && node != ".." && node.is_ascii());
            prop_assert_eq!(unescape(&node), Some(name));
        }

        #[test]
        fn order_is_that_of_counting_across_the_wrap(start in any::<i32>(), steps in 1_i32..1_000_000) {
            let first = Sequence::new(start.into());
            let later = Sequence::new(start.wrapping_add(steps).into());
            prop_assert!(first.is_before(later) && !later.is_before(first));
        }
    }

    #[test]
    fn longest_name_is_a_node_of_bounded_length() {
        assert_eq!(escape(&"\u{e9}".repeat(512)).len(), 3 * 1024);
    }

    #[test]
    fn what_no_name_is_written_as_is_nobodys_node() {
        for node in [
            "a/b",
            "%2f",
            "%61",
            "%",
            "%zz",
            "%FF",
            ".",
            "..",
            "",
            "\u{e9}",
            "zookeeper",
        ] {
            assert_eq!(unescape(node), None, "{node:?}");
        }
    }

    #[test]
    fn members_are_told_from_everything_else() {
        let tag = Nonce::new();
        for sequence in [0, 7, i64::from(i32::MAX), i64::from(i32::MIN), 1 << 40] {
            let member = Member::parse(&format!("{tag}-{sequence:010}")).expect("a member");
            assert_eq!(
                (member.tag, member.sequence),
                (tag, Sequence::new(sequence))
            );
        }
        for node in ["", "-", "x-0000000001", "lock-0000000001", "0000000001"] {
            assert_eq!(Member::parse(node), None, "{node:?}");
        }
        let shouted = format!("{tag}-1").to_uppercase();
        assert!(Member::parse(&shouted).is_none() || shouted == format!("{tag}-1"));
    }

    #[test]
    fn queue_wraps_with_the_counter() {
        let numbers = [
            i64::from(i32::MIN) + 1,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
        ];
        let nodes = numbers.map(|number| format!("{}-{number:010}", Nonce::new()));
        let order: Vec<_> = queue(&nodes)
            .expect("members")
            .into_iter()
            .map(|m| m.node)
            .collect();
        assert_eq!(
            order,
            [nodes[1].clone(), nodes[2].clone(), nodes[0].clone()]
        );
        assert_eq!(queue(&["something".to_owned()]), None);
    }
}
