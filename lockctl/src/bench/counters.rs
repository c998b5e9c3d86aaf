//! Counters that only a lock keeps exact: read, think, write, in a file that all processes share.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A count, and the number of the task that wrote it, plus one.
const RECORD: usize = 16;

/// The file.
#[derive(Debug)]
pub(crate) struct Counters(File);

/// What a task found under its lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) count: u64,
    /// Who was there before; `None` for the first.
    pub(crate) last: Option<u32>,
}

impl Counters {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(file))
    }

    /// Sets the counters of so many keys to zero.
    pub(crate) fn reset(&self, keys: u32) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.set_len(offset(keys))
    }

    pub(crate) fn read(&self, key: u32) -> io::Result<Found> {
        let mut record = [0; RECORD];
        self.0.read_exact_at(&mut record, offset(key))?;
        let (count, last) = record.split_at(RECORD / 2);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rfold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let last = number(last).checked_sub(1);
        Ok(Found {
            count: number(count),
            last: last.and_then(|task| u32::try_from(task).ok()),
        })
    }

    pub(crate) fn write(&self, key: u32, count: u64, task: u32) -> io::Result<()> {
        let mut record = [0; RECORD];
        record[..RECORD / 2].copy_from_slice(&count.to_le_bytes());
        record[RECORD / 2..].copy_from_slice(&(u64::from(task) + 1).to_le_bytes());
        self.0.write_all_at(&record, offset(key))
    }

    /// What was counted under all of so many keys.
    pub(crate) fn total(&self, keys: u32) -> io::Result<u64> {
        (0..keys).map(|key| Ok(self.read(key)?.count)).sum()
    }
}

fn offset(key: u32) -> u64 {
    u64::from(key) * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_counted() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let counters = Counters::open(file.path()).expect("opens");
        counters.reset(3).expect("grows");
        let none = Found {
            count: 0,
            last: None,
        };
        assert_eq!(counters.read(2).expect("there"), none);
        counters.write(2, 1 << 40, 0).expect("writes");
        counters.write(1, 7, u32::MAX).expect("writes");
        let last = Some(0);
        let count = 1 << 40;
        assert_eq!(counters.read(2).expect("there"), Found { count, last });
        assert_eq!(counters.read(1).expect("there").last, Some(u32::MAX));
        assert_eq!(counters.total(3).expect("there"), (1 << 40) + 7);
    }
}
