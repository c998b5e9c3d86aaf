//! What the backend itself says about who held what.

use std::io;

use async_trait::async_trait;

use crate::history::{Record, Stood};

/// A look behind the backend's back, at what it has decided and in which order: a log, a watch from
/// the beginning, a trace of the commands it has executed. No client has a say in it.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Every hold that began or ended since this witness was called, in the backend's own order.
    /// Nothing that was answered to a client before this call is missing.
    ///
    /// # Errors
    /// When the backend does not tell.
    async fn records(&self) -> io::Result<Vec<Record>>;
}

/// Turns who stands first of a lock, as the backend shows it step by step, into records.
#[derive(Debug, Default)]
pub struct Standing {
    holders: std::collections::BTreeMap<String, u64>,
    records: Vec<Record>,
}

impl Standing {
    /// From here on the lock `name` is held with `token`, or by nobody. Being told of the same holder
    /// again changes nothing.
    pub fn set(&mut self, name: &str, token: Option<u64>) {
        let before = match token {
            Some(token) => self.holders.insert(name.to_owned(), token),
            None => self.holders.remove(name),
        };
        if before == token {
            return;
        }
        let ends = [(before, Stood::Ended), (token, Stood::Began)];
        for (token, what) in ends {
            self.records.extend(token.map(|token| Record {
                name: name.to_owned(),
                token,
                what,
            }));
        }
    }

    /// The records so far.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(steps: &[(&str, Option<u64>)]) -> Vec<(String, u64, Stood)> {
        let mut standing = Standing::default();
        for (name, token) in steps {
            standing.set(name, *token);
        }
        let records = standing.into_records().into_iter();
        records
            .map(|record| (record.name, record.token, record.what))
            .collect()
    }

    #[test]
    fn hold_ends_before_the_next_one_begins() {
        let seen = told(&[("a", Some(3)), ("a", Some(3)), ("a", Some(5)), ("a", None)]);
        let expected = [
            (3, Stood::Began),
            (3, Stood::Ended),
            (5, Stood::Began),
            (5, Stood::Ended),
        ];
        assert_eq!(
            seen,
            expected.map(|(token, what)| ("a".into(), token, what))
        );
    }

    #[test]
    fn locks_do_not_end_each_other() {
        let seen = told(&[("a", Some(1)), ("b", Some(2)), ("b", None), ("b", None)]);
        let names: Vec<_> = seen.iter().map(|(name, ..)| &**name).collect();
        assert_eq!(names, ["a", "b", "b"]);
    }
}
