//! A server's transaction log: what the ensemble has decided, in its own order.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::fault::jute::Reader;

/// A node that came or went, as a server has logged it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ZooKeeperChange {
    /// The transaction.
    pub zxid: u64,
    /// The node.
    pub path: String,
    /// Whether it came: then `zxid` is what its stat calls czxid. Else it went, by a request or with its session.
    pub created: bool,
}

/// Magic, version, database.
const HEADER: usize = 4 + 4 + 8;
const MAGIC: &[u8] = b"ZKLG";

/// Kinds of transactions.
const CREATE: [i32; 4] = [1, 15, 19, 21];
const DELETE: [i32; 2] = [2, 20];
const MULTI: i32 = 14;
const CLOSE_SESSION: i32 = -11;

/// Those of them that have an `ephemeral` field: containers and nodes with a TTL belong to no session.
const CREATE_WITH_OWNER: [i32; 2] = [1, 15];

/// Everything that stands in the log of one server.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The last transaction, whatever it was about.
    pub(super) last: u64,
    pub(super) changes: Vec<ZooKeeperChange>,
    /// Of the ephemeral nodes that are there, whose they are: the end of a session is one entry, and names none.
    owners: BTreeMap<String, i64>,
}

impl Log {
    /// Reads the log below a server's data directory, up to where it is being written.
    pub(super) fn read(data: &Path) -> io::Result<Log> {
        let mut log = Log::default();
        for file in files(&data.join("version-2"))? {
            let bytes = std::fs::read(file)?;
            let entries = bytes
                .get(HEADER..)
                .filter(|_| bytes.starts_with(MAGIC))
                .ok_or_else(|| invalid("no transaction log"))?;
            log.file(entries)?;
        }
        Ok(log)
    }

    fn file(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut reader = Reader(bytes);
        // The end is not written yet: nothing, or the zeros that the file is made with.
        while let (Some(_checksum), Some(entry)) = (reader.long(), reader.buffer())
            && !entry.is_empty()
            && reader.skip(1).is_some()
        {
            self.entry(entry)
                .ok_or_else(|| invalid("an entry of the transaction log ends early"))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &[u8]) -> Option<()> {
        let mut reader = Reader(entry);
        let session = reader.long()?;
        let _cxid = reader.int()?;
        let zxid = u64::try_from(reader.long()?).ok()?;
        let _time = reader.long()?;
        let kind = reader.int()?;
        // A server that is started again may have logged its last entries twice.
        if zxid > self.last {
            self.last = zxid;
            self.transaction(zxid, session, kind, &mut reader)?;
        }
        Some(())
    }

    fn transaction(
        &mut self,
        zxid: u64,
        session: i64,
        kind: i32,
        reader: &mut Reader<'_>,
    ) -> Option<()> {
        if CREATE.contains(&kind) {
            let path = reader.string()?;
            reader.buffer()?;
            for _ in 0..reader.int()? {
                let _rights = reader.int()?;
                reader.string()?;
                reader.string()?;
            }
            if CREATE_WITH_OWNER.contains(&kind) && reader.bool()? {
                self.owners.insert(path.clone(), session);
            }
            self.change(zxid, path, true);
        } else if DELETE.contains(&kind) {
            let path = reader.string()?;
            self.owners.remove(&path);
            self.change(zxid, path, false);
        } else if kind == MULTI {
            for _ in 0..reader.int()? {
                let kind = reader.int()?;
                let part = reader.buffer()?;
                self.transaction(zxid, session, kind, &mut Reader(part))?;
            }
        } else if kind == CLOSE_SESSION {
            let mut gone = Vec::new();
            self.owners.retain(|path, owner| {
                let stays = *owner != session;
                if !stays {
                    gone.push(path.clone());
                }
                stays
            });
            for path in gone {
                self.change(zxid, path, false);
            }
        }
        Some(())
    }

    fn change(&mut self, zxid: u64, path: String, created: bool) {
        self.changes.push(ZooKeeperChange {
            zxid,
            path,
            created,
        });
    }
}

/// The files of the log, the oldest first: each is named after its first transaction, in hexadecimal.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(first) = name.and_then(|name| name.strip_prefix("log.")) {
            let first = u64::from_str_radix(first, 16).map_err(io::Error::other)?;
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::jute::Writer;

    fn create(path: &str, ephemeral: bool) -> Writer {
        let mut txn = Writer::default();
        txn.string(path).buffer(b"data").int(1).int(31);
        txn.string("world").string("anyone").bool(ephemeral).int(1);
        txn
    }

    fn entry(session: i64, zxid: i64, kind: i32, txn: &Writer) -> Vec<u8> {
        let mut head = Writer::default();
        head.long(session).int(0).long(zxid).long(0).int(kind);
        head.0.extend_from_slice(&txn.0);
        let mut entry = Writer::default();
        entry.long(1).buffer(&head.0);
        entry.0.push(b'B');
        entry.0
    }

    fn read(entries: &[Vec<u8>]) -> Log {
        let mut log = Log::default();
        // With the zeros at the end of a file that is being written.
        log.file(&[&entries.concat()[..], &[0; 64]].concat())
            .unwrap();
        log
    }

    fn changes(log: &Log) -> Vec<(u64, &str, bool)> {
        let changes = log.changes.iter();
        changes
            .map(|change| (change.zxid, &*change.path, change.created))
            .collect()
    }

    #[test]
    fn nodes_come_and_go_by_request_and_with_their_session() {
        let mut delete = Writer::default();
        delete.string("/a");
        let log = read(&[
            entry(1, 1, -10, Writer::default().int(1000)),
            entry(1, 2, 1, &create("/a", true)),
            entry(1, 3, 15, &create("/b", true)),
            entry(2, 4, 15, &create("/of another", true)),
            entry(1, 5, 15, &create("/stays", false)),
            entry(1, 6, 2, &delete),
            entry(1, 7, -11, &Writer::default()),
        ]);
        let expected = [
            (2, "/a", true),
            (3, "/b", true),
            (4, "/of another", true),
            (5, "/stays", true),
            (6, "/a", false),
            (7, "/b", false),
        ];
        assert_eq!((changes(&log), log.last), (expected.to_vec(), 7));
    }

    #[test]
    fn parts_of_a_multi_are_changes_of_one_transaction() {
        let mut delete = Writer::default();
        delete.string("/a");
        let mut multi = Writer::default();
        multi.int(2).int(1).buffer(&create("/a", false).0);
        multi.int(2).buffer(&delete.0);
        let log = read(&[entry(1, 9, 14, &multi)]);
        assert_eq!(changes(&log), [(9, "/a", true), (9, "/a", false)]);
    }

    #[test]
    fn entry_that_is_being_written_is_not_read_and_none_is_read_twice() {
        let whole = entry(1, 2, 1, &create("/a", false));
        let log = read(&[whole.clone(), whole.clone()]);
        assert_eq!(changes(&log), [(2, "/a", true)]);
        for len in 0..whole.len() {
            let mut log = Log::default();
            log.file(&whole[..len]).unwrap();
            assert_eq!(changes(&log), [], "{len} bytes");
        }
    }
}
