//! docs/guarantees.md against the reports of the suite: what it claims of a backend is what the cases have shown.
//!
//! The document is computed from itself and the reports ([`document::from_reports`]), and has to come out as it is.

mod document;
mod reports;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use self::reports::Reports;
use crate::workspace::Workspace;

const DOCUMENT: &str = "docs/guarantees.md";

/// Fails when the document says something else than the reports in `dir`.
pub(crate) fn check(workspace: &Workspace, dir: &Path) -> Result<()> {
    let reports = Reports::read(dir)?;
    let text = read(workspace)?;
    let right = document::from_reports(&text, &reports)?;
    let wrong: Vec<String> = differences(&text, &right).collect();
    if wrong.is_empty() {
        println!("    {DOCUMENT} says what {} reports say", reports.count());
        return Ok(());
    }
    bail!(
        "{DOCUMENT} does not say what the reports in {} say (`cargo xtask guarantees --write` changes it):\n{}",
        dir.display(),
        wrong.join("\n")
    )
}

/// Makes the document say what the reports in `dir` say.
pub(crate) fn write(workspace: &Workspace, dir: &Path) -> Result<()> {
    let text = read(workspace)?;
    let right = document::from_reports(&text, &Reports::read(dir)?)?;
    for line in differences(&text, &right) {
        println!("{line}");
    }
    fs::write(workspace.file(DOCUMENT), right).context(DOCUMENT)
}

fn read(workspace: &Workspace) -> Result<String> {
    fs::read_to_string(workspace.file(DOCUMENT)).context(DOCUMENT)
}

/// The lines that only one of the two has, as a diff shows them.
fn differences<'a>(text: &'a str, right: &'a str) -> impl Iterator<Item = String> + 'a {
    let only_in = |one: &'a str, other: &'a str, sign: char| {
        one.lines()
            .filter(move |line| !other.lines().any(|other| other == *line))
            .map(move |line| format!("{sign} {line}"))
    };
    only_in(text, right, '-').chain(only_in(right, text, '+'))
}

#[cfg(test)]
mod tests;
