//! What is written into a lock's file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

/// Every record begins with this.
const MAGIC: &[u8] = b"{\"distlock\":1,";
/// The version of this format.
pub(crate) const VERSION: u32 = 1;
/// No record is longer.
const LONGEST: usize = 8 * 1024;

/// The content of a lock's file: one line of JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Record {
    /// [`VERSION`]; first, so that a record is known by its beginning.
    pub(crate) distlock: u32,
    pub(crate) name: String,
    /// The last token that was handed out.
    pub(crate) token: u64,
    /// Who has it; only to be believed while the file is locked.
    pub(crate) holder: Option<Holder>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Holder {
    pub(crate) nonce: String,
    /// As `pid host label`.
    pub(crate) identity: String,
    /// Wall clock, µs since 1970.
    pub(crate) since: u64,
}

/// What was found in a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Record(Record),
    /// Nothing yet, or a record that a crash of the machine cut short: its token is not known.
    Nothing,
    /// Something that this crate has not written.
    Foreign,
}

pub(crate) fn read(file: &File) -> io::Result<Found> {
    content(file).map(|bytes| parse(&bytes))
}

/// The content of a file, as far as it can have been written by [`write`].
pub(crate) fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LONGEST];
    let mut filled = 0;
    loop {
        match file.read_at(
            &mut bytes[filled..],
            u64::try_from(filled).unwrap_or(u64::MAX),
        ) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Found {
    // What a shorter record left of a longer one, should the end not have been cut off, is behind the line.
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    match serde_json::from_slice(line) {
        Ok(Record { distlock, .. }) if distlock != VERSION => Found::Foreign,
        Ok(record) => Found::Record(record),
        // Blocks that were allocated but not written before the machine went down read as zeros.
        Err(_) if bytes.iter().all(|byte| *byte == 0) => Found::Nothing,
        // A full disk may have cut it anywhere.
        Err(_) if line.starts_with(MAGIC) || MAGIC.starts_with(bytes) => Found::Nothing,
        Err(_) => Found::Foreign,
    }
}

/// Replaces the content in one write within one page, so that a process that is killed leaves the old
/// record or the new one.
pub(crate) fn write(file: &File, record: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    file.write_all_at(&line, 0)?;
    file.set_len(u64::try_from(line.len()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(label: &str) -> Record {
        Record {
            distlock: VERSION,
            name: "a\"b".into(),
            token: 7,
            holder: Some(Holder {
                nonce: "n".into(),
                identity: format!("1 host {label}"),
                since: 9,
            }),
        }
    }

    #[test]
    fn record_survives_its_file_also_when_it_gets_shorter() {
        let file = tempfile::tempfile().expect("a file");
        for label in ["a long label, longer than the next", "short"] {
            write(&file, &record(label)).expect("writes");
            assert_eq!(read(&file).expect("reads"), Found::Record(record(label)));
        }
    }

    #[test]
    fn torn_record_is_nothing_and_foreign_text_is_not_taken_for_a_lock() {
        let whole = serde_json::to_string(&record("x")).expect("serialises");
        assert!(whole.as_bytes().starts_with(MAGIC));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..length]), Found::Nothing);
        }
        assert_eq!(parse(b""), Found::Nothing);
        assert_eq!(parse(&[0; 64]), Found::Nothing);
        assert_eq!(parse(b"#!/bin/sh\n"), Found::Foreign);
        assert_eq!(parse(b"\n#!/bin/sh\n"), Found::Foreign);
        assert_eq!(parse(b"{}"), Found::Foreign);
        let later = whole.replacen('1', "2", 1);
        assert_eq!(parse(later.as_bytes()), Found::Foreign, "another format");
    }
}
