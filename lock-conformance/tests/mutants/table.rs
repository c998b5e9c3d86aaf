//! The kill table: every mutant, and what has to be true of all of them together.

use std::collections::BTreeSet;
use std::fmt::Write;

use libtest_mimic::{Failed, Trial};
use lock_conformance::{CASES, Case};

use crate::mutant::Mutant;
use crate::{
    bounds, cancel, capability, clock, compaction, exclusion, hand_off, late, leaks, lease, loss,
    names, outage, ownership, sessions, thrift, tokens, validity, waiting, wall_clock,
};

/// In the order of the rules.
const GROUPS: [&[Mutant]; 20] = [
    exclusion::MUTANTS,
    tokens::MUTANTS,
    validity::MUTANTS,
    clock::MUTANTS,
    wall_clock::MUTANTS,
    loss::MUTANTS,
    ownership::MUTANTS,
    late::MUTANTS,
    lease::MUTANTS,
    waiting::MUTANTS,
    hand_off::MUTANTS,
    cancel::MUTANTS,
    bounds::MUTANTS,
    outage::MUTANTS,
    sessions::MUTANTS,
    compaction::MUTANTS,
    names::MUTANTS,
    capability::MUTANTS,
    leaks::MUTANTS,
    thrift::MUTANTS,
];

pub(crate) fn mutants() -> impl Iterator<Item = &'static Mutant> {
    GROUPS.into_iter().flatten()
}

/// What the case was written to find, among others.
pub(crate) fn killed_by(case: &Case) -> impl Iterator<Item = &'static Mutant> {
    let id = case.id;
    mutants().filter(move |mutant| mutant.killed_by.contains(&id))
}

/// The cases that kill something, in the order of the suite.
pub(crate) fn used_cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| killed_by(case).next().is_some())
}

/// The table as the test prints it.
pub(crate) fn summary() -> String {
    let mut text = String::from("\nkill table\n");
    for mutant in mutants() {
        let by = mutant.killed_by.join(" ");
        // Cannot fail: it is a string.
        let _ = writeln!(text, "  {:<28} {by:<40} {}", mutant.name, mutant.wrong);
    }
    let (mutants, cases) = (mutants().count(), used_cases().count());
    let _ = writeln!(text, "{mutants} mutants, killed by {cases} cases");
    text
}

/// What has to be true of the table as a whole.
pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, check: fn() -> Result<(), Failed>| {
        Trial::test(format!("table::{name}"), check)
    };
    vec![
        trial("has_at_least_25_mutants", has_enough),
        trial("names_every_mutant_once", names_are_unique),
        trial("names_only_cases_there_are", cases_exist),
        trial("has_a_mutant_for_every_case", every_case_kills),
    ]
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds {
        Ok(())
    } else {
        Err(Failed::from(what()))
    }
}

fn has_enough() -> Result<(), Failed> {
    let count = mutants().count();
    ensure(count >= 25, || format!("there are {count}"))
}

fn names_are_unique() -> Result<(), Failed> {
    let names: BTreeSet<_> = mutants().map(|mutant| mutant.name).collect();
    let sentences: BTreeSet<_> = mutants().map(|mutant| mutant.wrong).collect();
    let count = mutants().count();
    ensure((names.len(), sentences.len()) == (count, count), || {
        "two mutants have one name, or one sentence".into()
    })
}

fn cases_exist() -> Result<(), Failed> {
    let there: BTreeSet<_> = CASES.iter().map(|case| case.id).collect();
    let named: BTreeSet<_> = mutants()
        .flat_map(|mutant| mutant.killed_by)
        .copied()
        .collect();
    let unknown: Vec<_> = named.difference(&there).collect();
    ensure(unknown.is_empty(), || format!("there are no {unknown:?}"))
}

fn every_case_kills() -> Result<(), Failed> {
    let toothless: Vec<_> = CASES
        .iter()
        .filter(|case| killed_by(case).next().is_none())
        .collect();
    ensure(toothless.is_empty(), || {
        format!("these kill nothing: {toothless:?}")
    })
}
