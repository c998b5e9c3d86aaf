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
mod document;
mod exclusion;
mod leaks;
mod lease;
mod loss;
mod mutant;
mod names;
mod ownership;
mod prelude;
mod report;
mod table;
mod tokens;
mod validity;
mod waiting;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use lock_conformance::{Ending, Report, run};

use crate::bend::Honest;
use crate::mutant::{BentHarness, Mutant};

/// How many run side by side unless the command line says otherwise: nearly all of them only wait.
const THREADS: usize = 24;

#[expect(clippy::print_stdout, reason = "the end of a test program's report")]
fn main() -> ExitCode {
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
    trials.extend(report::trials());
    for mutant in table::mutants() {
        for case in mutant.killed_by {
            let title = format!("{}::is_killed_by_{case}", mutant.name);
            trials.push(Trial::test(title, move || killed(mutant, case)));
        }
    }
    for case in table::used_cases() {
        let title = format!("Honest::passes_{case}");
        trials.push(Trial::test(title, move || passed(case)));
    }
    trials
}

fn run_case(harness: BentHarness, case: &str) -> Result<(Report, Ending), Failed> {
    let report = run(harness, &format!("{case}::"));
    let [result] = &report.results[..] else {
        return Err(Failed::from(format!("{case} is not one case: {report}")));
    };
    let ending = result.ending.clone();
    Ok((report, ending))
}

fn passed(case: &str) -> Result<(), Failed> {
    let honest = BentHarness(|| std::sync::Arc::new(Honest));
    match run_case(honest, case)? {
        (_, Ending::Passed) => Ok(()),
        (report, _) => Err(Failed::from(format!("on the honest backend:\n{report}"))),
    }
}

fn killed(mutant: &Mutant, case: &str) -> Result<(), Failed> {
    let (report, ending) = run_case(BentHarness(mutant.bend), case)?;
    match ending {
        Ending::Failed(why) if why.contains("it hangs") => Err(Failed::from(format!(
            "{case} only hangs on {}, which the runner has to end:\n{report}",
            mutant.name
        ))),
        Ending::Failed(_) => Ok(()),
        _ => Err(Failed::from(format!(
            "{case} does not see that the backend {}:\n{report}",
            mutant.wrong
        ))),
    }
}
