//! `docs/mutants.md`: the kill table for reading, which must say what this program does.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

use crate::{core, table};

/// Set it to have the document written instead of compared.
const WRITE: &str = "LOCK_TEST_WRITE_DOCS";

const PREFACE: &str = "\
# Mutants

A suite that lets a broken backend pass is worth nothing. So the suite is tested too: these backends are
broken in one way each, and each case named beside one passes without the defect and fails with it. Every case
kills at least one. They are the memory backend with one operation bent, or a clock; where a case breaks
something, behind a network that holds, drops and cuts, at a server that is killed, moved, replaced and made to
forget; and where it takes processes, with these as that server's clients.
`cargo test -p lock-conformance --test mutants` runs them.

Core is broken too, line by line, in a copy of its source: `cargo xtask mutants` runs those.

The mutants are in `lock-conformance/tests/mutants`, a file for each group. This page is written by that
test (`LOCK_TEST_WRITE_DOCS=1`), which fails when it is not what was run.
";

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("document::is_the_kill_table", is_true)]
}

fn is_true() -> Result<(), Failed> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/mutants.md");
    let wanted = text();
    if std::env::var_os(WRITE).is_some() {
        return Ok(fs::write(path, wanted)?);
    }
    if fs::read_to_string(path)? == wanted {
        return Ok(());
    }
    Err(Failed::from(format!(
        "docs/mutants.md is not the kill table any more: run this test with {WRITE}=1"
    )))
}

fn text() -> String {
    let mut text = String::from(PREFACE);
    text.push_str("\n## What is broken, and what finds it\n\n");
    text.push_str("| mutant | the backend … | killed by |\n|---|---|---|\n");
    for mutant in table::mutants() {
        let by = mutant.killed_by.join(" ");
        // Cannot fail: it is a string.
        let _ = writeln!(text, "| `{}` | {} | {by} |", mutant.name, mutant.wrong);
    }
    text.push_str("\n## The same for core\n\n");
    text.push_str("| mutant | core … | killed by |\n|---|---|---|\n");
    for mutant in core::mutants() {
        let by = mutant.killed_by.join(" ");
        let _ = writeln!(text, "| {} | {} | {by} |", mutant.name, mutant.wrong);
    }
    text.push_str("\n## What each case kills\n\n| case | must hold | kills |\n|---|---|---|\n");
    for case in table::used_cases() {
        let sentence = case.name.replace('_', " ");
        let killed: Vec<_> = table::killed_by(case)
            .map(|mutant| format!("`{}`", mutant.name))
            .chain(core::mutants().into_iter().filter_map(|mutant| {
                let kills = mutant.killed_by.iter().any(|id| id == case.id);
                kills.then_some(mutant.name)
            }))
            .collect();
        let _ = writeln!(text, "| {} | {sentence} | {} |", case.id, killed.join(" "));
    }
    text
}
