//! The suite has teeth: backends that are broken in one way each, and the cases that find them.
//!
//! `bend.rs` says what a mutant is, the files beside it are the mutants, rule by rule, and `table.rs`
//! is the kill table that this program goes through: each case of it has to pass on the honest backend
//! and to fail on the mutant. `docs/mutants.md` is that table, for reading.

mod bend;
mod bounds;
mod cancel;
mod capability;
mod clock;
mod compaction;
mod core;
mod document;
mod exclusion;
mod far;
mod hand_off;
mod late;
mod leaks;
mod lease;
mod loss;
mod mutant;
mod names;
mod outage;
mod ownership;
mod prelude;
mod report;
mod sessions;
mod table;
mod thrift;
mod tokens;
mod validity;
mod waiting;
mod wall_clock;
mod worker;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_conformance::worker::worker_entry;
use lock_conformance::{Case, CaseResult, Ending, Report, missing_is_allowed};

use crate::mutant::{Mutant, run_case};

/// How many run side by side unless the command line says otherwise: nearly all of them only wait.
const THREADS: usize = 24;
/// How often a case is given the chance to find a defect. Two threads race for it in some, and on a busy machine
/// the wrong one wins several times in a row.
const ATTEMPTS: usize = 10;

#[expect(clippy::print_stdout, reason = "the end of a test program's report")]
fn main() -> ExitCode {
    if let Some(code) = worker_entry(&worker::Worker) {
        return code;
    }
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(THREADS);
    let whole = args.filter.is_none() && args.skip.is_empty() && !args.list;
    let conclusion = libtest_mimic::run(&args, trials());
    if whole && !conclusion.has_failed() {
        print!("{}", table::summary());
    }
    conclusion.exit_code()
}

fn trials() -> Vec<Trial> {
    let mut trials = table::trials();
    trials.extend(document::trials());
    trials.extend(core::trials());
    trials.extend(report::trials());
    for case in table::used_cases() {
        let title = format!("Honest::passes_{}", case.id);
        trials.push(Trial::ignorable_test(title, move || passed(case)));
        for mutant in table::killed_by(case) {
            let title = format!("{}::is_killed_by_{}", mutant.name, case.id);
            trials.push(Trial::ignorable_test(title, move || killed(mutant, case)));
        }
    }
    trials
}

fn passed(case: &Case) -> Result<Completion, Failed> {
    let report = run_case(case, None);
    if report.is_success() {
        return Ok(Completion::Completed);
    }
    match lacks_a_tool(&report) {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => Err(Failed::from(format!("on the honest backend:\n{report}"))),
    }
}

/// Why the case was not tried, if that is for a tool that may be missing: the one that sets wall clocks.
fn lacks_a_tool(report: &Report) -> Option<&str> {
    match &report.results[..] {
        [
            CaseResult {
                ending: Ending::Skipped(why),
                ..
            },
        ] if missing_is_allowed("faketime") && why.contains("is not installed") => Some(why),
        _ => None,
    }
}

/// A defect that shows in a race may be missed once; one that is missed again and again is not found.
fn killed(mutant: &Mutant, case: &Case) -> Result<Completion, Failed> {
    let mut survived = None;
    for _ in 0..ATTEMPTS {
        let report = run_case(case, Some(mutant));
        if let Some(why) = lacks_a_tool(&report) {
            return Ok(Completion::ignored_with(why));
        }
        let fails = match &report.results[..] {
            [result] => match &result.ending {
                Ending::Failed(why) if why.contains("it hangs") => "only hangs when",
                Ending::Failed(why) if why.contains("did not start") => {
                    "has no processes, so nobody sees that"
                }
                Ending::Failed(_) => return Ok(Completion::Completed),
                _ => "does not see that",
            },
            _ => "is not one case, so nobody sees that",
        };
        survived = Some((fails, report));
    }
    let (fails, report) = survived.expect("it was attempted");
    let (case, wrong) = (case.id, mutant.wrong);
    Err(Failed::from(format!(
        "{case} {fails} the backend {wrong}:\n{report}"
    )))
}
