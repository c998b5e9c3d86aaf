//! What the runner says of broken backends, and of runs that prove nothing.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use lock_conformance::{CASES, Report, run};

use crate::bend::Honest;
use crate::mutant::{BentHarness, run_case};
use crate::table;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, check: fn() -> Result<(), Failed>| {
        Trial::test(format!("report::{name}"), check)
    };
    vec![
        trial("of_no_case_is_no_success", of_no_case),
        trial("of_nothing_but_skipped_cases_is_no_success", of_skipped),
        trial("of_a_failure_shows_what_was_seen", of_a_failure),
    ]
}

fn honest(filter: &str) -> Report {
    run(BentHarness(|| Arc::new(Honest)), filter)
}

fn of_no_case() -> Result<(), Failed> {
    let report = honest("no case is called this");
    assert!(report.results.is_empty());
    assert!(!report.is_success());
    Ok(())
}

fn of_skipped() -> Result<(), Failed> {
    let report = honest("R1.05::");
    assert_eq!(report.results.len(), 1);
    assert!(!report.is_success(), "{report}");
    assert!(report.to_string().contains("another process"), "{report}");
    Ok(())
}

/// What was seen, and how to see it again.
fn of_a_failure() -> Result<(), Failed> {
    let mutant = table::mutants().find(|mutant| mutant.name == "ReusesTokens");
    let mutant = mutant.ok_or("there is no such mutant")?;
    let case = CASES.iter().find(|case| case.id == "R2.01");
    let text = run_case(case.ok_or("there is no such case")?, Some(mutant)).to_string();
    for part in [
        "tokens grow: seen",
        "granted 7",
        "--exact R2.01::tokens_grow",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    Ok(())
}
