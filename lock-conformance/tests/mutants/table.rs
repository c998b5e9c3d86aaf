//! The kill table: every mutant, and what has to be true of all of them together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use lock_conformance::{CASES, Case, Need};
use lock_core::{Capabilities, Connect, Context, Identity, MemoryStore};

use crate::mutant::Mutant;
use crate::{
    bounds, cancel, capability, clock, exclusion, leaks, lease, loss, names, ownership, tokens,
    validity, waiting,
};

/// In the order of the rules.
const GROUPS: [&[Mutant]; 13] = [
    exclusion::MUTANTS,
    tokens::MUTANTS,
    validity::MUTANTS,
    clock::MUTANTS,
    loss::MUTANTS,
    ownership::MUTANTS,
    lease::MUTANTS,
    waiting::MUTANTS,
    cancel::MUTANTS,
    bounds::MUTANTS,
    names::MUTANTS,
    capability::MUTANTS,
    leaks::MUTANTS,
];

pub(crate) fn mutants() -> impl Iterator<Item = &'static Mutant> {
    GROUPS.into_iter().flatten()
}

/// The cases that kill something, in the order of the suite.
pub(crate) fn used_cases() -> Vec<&'static str> {
    let kills = kills();
    CASES
        .iter()
        .map(|case| case.id)
        .filter(|id| kills.contains_key(id))
        .collect()
}

/// What each case kills.
pub(crate) fn kills() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut kills: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for mutant in mutants() {
        for case in mutant.killed_by {
            kills.entry(*case).or_default().push(mutant.name);
        }
    }
    kills
}

/// The cases that the memory backend runs, with and without capabilities of its own.
pub(crate) fn cases_in_reach() -> Result<Vec<&'static Case>, Failed> {
    let capabilities = declared_by_memory()?;
    let met = |need: &Need| matches!(need, Need::Capability(_, has) if has(&capabilities));
    let in_reach = |case: &&Case| case.needs.iter().all(met);
    Ok(CASES.iter().filter(in_reach).collect())
}

fn declared_by_memory() -> Result<Capabilities, Failed> {
    let context = Context::new(Identity::of_this_process("kill table"));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let backend: Arc<_> = runtime.block_on(MemoryStore::new().connect(context))?;
    Ok(backend.capabilities())
}

/// The table as the test prints it.
pub(crate) fn summary() -> String {
    let mut text = String::from("\nkill table\n");
    for mutant in mutants() {
        let by = mutant.killed_by.join(" ");
        // Cannot fail: it is a string.
        let _ = writeln!(text, "  {:<28} {by:<40} {}", mutant.name, mutant.wrong);
    }
    let (mutants, cases) = (mutants().count(), used_cases().len());
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
        trial("has_a_mutant_for_every_case_in_reach", every_case_kills),
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
    let unknown: Vec<_> = kills()
        .into_keys()
        .filter(|case| !there.contains(case))
        .collect();
    ensure(unknown.is_empty(), || format!("there are no {unknown:?}"))
}

fn every_case_kills() -> Result<(), Failed> {
    let kills = kills();
    let toothless: Vec<_> = cases_in_reach()?
        .into_iter()
        .filter(|case| !kills.contains_key(case.id))
        .collect();
    ensure(toothless.is_empty(), || {
        format!("these kill nothing: {toothless:?}")
    })
}
