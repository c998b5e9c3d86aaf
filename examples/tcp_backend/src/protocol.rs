//! What client and server say to each other: JSON documents, one on a line.

use serde::{Deserialize, Serialize};

/// Answers carry the number of their request, and come in any order.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Txn(Txn),
    /// Answered when this key is gone, or another of its name has come, or after so long.
    UntilGone {
        key: String,
        created: u64,
        at_most_ms: u64,
    },
}

/// In one step: looks, and makes the changes of the first branch whose conditions hold.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Txn {
    /// Answers what stood under this prefix *before* the changes, the oldest first.
    pub(crate) list: Option<String>,
    pub(crate) branches: Vec<Branch>,
    /// Revisions are to be larger than this.
    pub(crate) above: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Branch {
    pub(crate) when: Vec<When>,
    pub(crate) then: Vec<Change>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    Present(String),
    Absent(String),
    /// No key begins with this.
    Vacant(String),
    /// The key's value was put at this revision.
    At(String, u64),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A new revision of the key; it keeps its place among the others.
    Put {
        key: String,
        value: String,
        ttl_ms: u64,
    },
    /// The same revision, for so long from now at least.
    Touch {
        key: String,
        ttl_ms: u64,
    },
    Delete(String),
    /// The new name takes the old one's place.
    Rename {
        from: String,
        to: String,
    },
}

#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    /// Which branch was taken.
    pub(crate) branch: Option<usize>,
    /// The last one given out.
    pub(crate) revision: u64,
    pub(crate) listed: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: String,
    /// The revision that made the key: the order of keys.
    pub(crate) created: u64,
    /// The revision that put its value.
    pub(crate) modified: u64,
    /// Since then.
    pub(crate) age_ms: u64,
    pub(crate) left_ms: u64,
}
