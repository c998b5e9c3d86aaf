//! What goes to standard output: text in columns, JSON, and durations as people read them.

use std::io::{self, ErrorKind, Write as _};
use std::time::Duration;

use crate::exit::{self, Failure};

/// Writes `text` to standard output.
///
/// # Errors
/// When it cannot be written. A reader that has gone, as in `lockctl list | head -1`, has read what
/// it wanted.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::system("standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document on one line.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// A duration to a tenth of a second, or the two largest units: `0.3s`, `12.3s`, `2m 05s`, `3h 00m`, `4d 01h`.
pub(crate) fn age(length: Duration) -> String {
    let seconds = length.as_secs();
    let two = |large: u64, large_unit: char, small: u64, small_unit: char| {
        format!("{large}{large_unit} {small:02}{small_unit}")
    };
    match seconds {
        0..60 => format!("{seconds}.{}s", length.subsec_millis() / 100),
        60..3_600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3_600..86_400 => two(seconds / 3_600, 'h', seconds % 3_600 / 60, 'm'),
        _ => two(seconds / 86_400, 'd', seconds % 86_400 / 3_600, 'h'),
    }
}

/// A duration for machines: whole milliseconds.
pub(crate) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Rows under each other, every column as wide as its widest cell, nothing behind the last.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A name or a label as it is shown: without what would move a terminal's cursor.
pub(crate) fn shown(text: &str) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect(),
    }
}

/// The exit code for an answer that is yes or no.
pub(crate) const fn verdict(good: bool) -> u8 {
    match good {
        true => exit::OK,
        false => exit::NO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_or_two_units() {
        let shown = |millis| age(Duration::from_millis(millis));
        assert_eq!(shown(0), "0.0s");
        assert_eq!(shown(12_399), "12.3s");
        assert_eq!(shown(125_000), "2m 05s");
        assert_eq!(shown(3 * 3_600_000), "3h 00m");
        assert_eq!(shown((4 * 24 + 1) * 3_600_000), "4d 01h");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("ä", "1"), row("bcd", "")]), "ä    1\nbcd\n");
    }
}
