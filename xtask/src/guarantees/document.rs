//! The document's tables: which backend keeps which claim, and which deviations are declared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::reports::{RUNS, Reports};

/// How the table of a rule begins and ends; between them stands a letter for each backend.
const CLAIM: &str = "claim";
const CASES: &str = "cases";
/// The table of deviations.
const DEVIATIONS: &str = "| case | backends | what is not promised |";

/// A case, as a row names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Named {
    pub(super) id: String,
    /// Marked †: in the full tier only.
    pub(super) full: bool,
}

/// The document with the marks and the deviations that the reports say. All else stays as it is, and so does what no
/// report speaks of.
pub(super) fn from_reports(text: &str, reports: &Reports) -> Result<String> {
    let mut lines = text.lines().peekable();
    let mut right = Vec::new();
    let mut tables = 0;
    while let Some(line) = lines.next() {
        right.push(line.to_owned());
        let columns = cells(line);
        let mut rows = Vec::new();
        if columns.first() == Some(&CLAIM) || line == DEVIATIONS {
            tables += 1;
            right.extend(
                lines
                    .next_if(|line| line.starts_with("|---"))
                    .map(str::to_owned),
            );
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(row);
            }
        }
        if columns.first() == Some(&CLAIM) {
            for row in rows {
                right.push(claim(row, &columns, reports).with_context(|| row.to_owned())?);
            }
        } else if line == DEVIATIONS {
            right.extend(deviations(&rows, reports)?);
        }
    }
    ensure!(
        tables > 1,
        "the tables of claims and deviations are not there"
    );
    Ok(right.join("\n") + "\n")
}

/// A row of a rule's table, with the marks that the reports say.
fn claim(row: &str, columns: &[&str], reports: &Reports) -> Result<String> {
    let mut row = cells(row);
    ensure!(
        row.len() == columns.len(),
        "a row has {} cells",
        columns.len()
    );
    ensure!(
        columns.last() == Some(&CASES),
        "the last column is of cases"
    );
    let cases = named(row[row.len() - 1]);
    ensure!(!cases.is_empty(), "a claim names its cases");
    for (cell, column) in row.iter_mut().zip(columns).skip(1) {
        if *column == CASES {
            continue;
        }
        let run = RUNS.iter().find(|run| run.column == Some(*column));
        let run = run.with_context(|| format!("no backend has the letter {column}"))?;
        let Some(report) = reports.of(run.backend) else {
            continue;
        };
        let mark = report.mark(&cases).context(run.backend)?;
        *cell = mark.unwrap_or(cell);
    }
    Ok(line(&row))
}

/// The rows of the table of deviations.
fn deviations(rows: &[&str], reports: &Reports) -> Result<Vec<String>> {
    let mut declared: BTreeMap<(Order, String), BTreeSet<usize>> = BTreeMap::new();
    let mut declare = |case: &str, reason: &str, run: usize| {
        let key = (Order::of(case), reason.to_owned());
        declared.entry(key).or_default().insert(run);
    };
    for (number, run) in RUNS.iter().enumerate() {
        if let Some(report) = reports.of(run.backend) {
            for (case, reason) in &report.deviations {
                declare(case, reason, number);
            }
            continue;
        }
        // Nobody can tell: what is written stays.
        for row in rows {
            let row = cells(row);
            ensure!(row.len() == 3, "a deviation has 3 cells: {row:?}");
            if row[1].split(", ").any(|backend| backend == run.backend) {
                declare(row[0], row[2], number);
            }
        }
    }
    let rows = declared.iter().map(|((case, reason), runs)| {
        let backends: Vec<_> = runs.iter().map(|run| RUNS[*run].backend).collect();
        line(&[&case.id, &backends.join(", "), reason])
    });
    Ok(rows.collect())
}

/// A case's number, ordered as numbers are.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Order {
    numbers: Vec<u32>,
    id: String,
}

impl Order {
    fn of(id: &str) -> Order {
        let numbers = id.split(|c: char| !c.is_ascii_digit());
        Order {
            numbers: numbers.filter_map(|digits| digits.parse().ok()).collect(),
            id: id.to_owned(),
        }
    }
}

/// The cases in the last cell of a row, such as `R1.04, for long R1.11†`.
fn named(cell: &str) -> Vec<Named> {
    let words = cell.split([' ', ',']);
    words
        .filter_map(|word| {
            let id = word.trim_end_matches('†');
            let (rule, number) = id.strip_prefix('R')?.split_once('.')?;
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            (digits(rule) && digits(number)).then(|| Named {
                id: id.to_owned(),
                full: id != word,
            })
        })
        .collect()
}

fn cells(line: &str) -> Vec<&str> {
    let inside = line
        .strip_prefix('|')
        .and_then(|line| line.strip_suffix('|'));
    let inside = inside.into_iter().flat_map(|line| line.split('|'));
    inside.map(str::trim).collect()
}

fn line(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}
