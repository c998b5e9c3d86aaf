//! Mutants of core itself. A bend cannot reach into core, so `core.json` says which line of its source is
//! replaced by which; `cargo xtask mutants` builds a copy of core with all of them, each behind a switch,
//! and runs the cases. Here the table is only kept in order.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};
use lock_conformance::CASES;
use serde::Deserialize;

/// One line of the kill table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoreMutant {
    pub(crate) name: String,
    /// What is wrong with it, as the end of a sentence that begins with "core".
    pub(crate) wrong: String,
    /// In `lock-core/src`.
    file: String,
    /// What is there once.
    find: String,
    /// What is there instead. `$BROKEN` is whether the mutant was asked for.
    replace: String,
    pub(crate) killed_by: Vec<String>,
}

pub(crate) fn mutants() -> Vec<CoreMutant> {
    serde_json::from_str(include_str!("core.json")).expect("core.json is a list of mutants")
}

pub(crate) fn trials() -> Vec<Trial> {
    mutants()
        .into_iter()
        .map(|mutant| {
            let title = format!("core::{}_fits_the_source", mutant.name);
            Trial::test(title, move || fits(&mutant))
        })
        .collect()
}

/// The line that it replaces is there, and so are the cases that find it.
fn fits(mutant: &CoreMutant) -> Result<(), Failed> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../lock-core/src");
    let source = fs::read_to_string(source.join(&mutant.file))?;
    let (found, file) = (source.matches(&mutant.find).count(), &mutant.file);
    if found != 1 {
        return Err(Failed::from(format!(
            "what it replaces is {found} times in {file}: {}",
            mutant.find
        )));
    }
    let exists = |id: &String| CASES.iter().any(|case| case.id == id.as_str());
    if mutant.killed_by.is_empty() || !mutant.killed_by.iter().all(exists) {
        return Err(Failed::from(format!("no cases: {:?}", mutant.killed_by)));
    }
    if !mutant.replace.contains("$BROKEN") {
        return Err(Failed::from("it is broken whether it is asked for or not"));
    }
    Ok(())
}
