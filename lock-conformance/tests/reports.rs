//! What a test program leaves when it is told where: the program is this one, started again.

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::Duration;
use std::{env, fs, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use lock_conformance::{Arena, Case, Deviation, Harness, Missing, Pace, Report, run_as_test};
use lock_core::MemoryStore;

/// Tells this program to be the one under test.
const KIND: &str = "LOCK_CONFORMANCE_REPORTS_OF";

/// Memory that keeps the contract, memory that every client has for itself, no memory at all, and memory
/// beside which something panics: a task of the case's runtime, or a thread. Two of them declare deviations: one
/// that panics instead, and one of a case that does not exist.
struct Memory(String);

const OF_A_PANIC: &[Deviation] = &[Deviation {
    case: "R2.01",
    reason: "tokens are not its business",
}];
const OF_NO_CASE: &[Deviation] = &[Deviation {
    case: "R2.99",
    reason: "nobody knows",
}];

impl Harness for Memory {
    fn name(&self) -> &str {
        &self.0
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(300))
    }

    fn deviations(&self) -> &[Deviation] {
        match self.0.as_str() {
            "panicking-deviation" => OF_A_PANIC,
            "misdeclared" => OF_NO_CASE,
            _ => &[],
        }
    }

    fn arena(&self, _: &Case) -> Result<Arena, Missing> {
        match self.0.as_str() {
            "absent" => Err(Missing {
                what: "no server".to_owned(),
                allowed: true,
            }),
            "broken" => Ok(Arena::new(|| Box::new(MemoryStore::new()))),
            kind => {
                let panics: fn() = match kind {
                    "panicking-task" | "panicking-deviation" => {
                        || drop(tokio::spawn(async { panic!("on purpose") }))
                    }
                    "panicking-thread" => || drop(thread::spawn(|| panic!("on purpose")).join()),
                    _ => || {},
                };
                let store = MemoryStore::new();
                Ok(Arena::new(move || {
                    panics();
                    Box::new(store.clone())
                }))
            }
        }
    }
}

fn main() -> ExitCode {
    if let Ok(kind) = env::var(KIND) {
        return run_as_test(Memory(kind));
    }
    let tests: [(&str, fn()); 8] = [
        ("failures_are_reported_too", failures_are_reported_too),
        ("part_is_reported_as_a_part", part_is_reported_as_a_part),
        ("absent_server_is_reported", absent_server_is_reported),
        ("lost_report_is_a_failure", lost_report_is_a_failure),
        (
            "panic_that_nobody_waits_for_is_a_failure",
            panic_that_nobody_waits_for_is_a_failure,
        ),
        (
            "declared_deviation_excuses_no_panic",
            declared_deviation_excuses_no_panic,
        ),
        (
            "declared_deviation_of_no_case_is_a_failure",
            declared_deviation_of_no_case_is_a_failure,
        ),
        (
            "option_that_is_not_understood_is_a_failure",
            option_that_is_not_understood_is_a_failure,
        ),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok::<_, Failed>(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn failures_are_reported_too() {
    let (output, report) = reported("broken", "R1.0");
    assert!(!output.status.success(), "{output:?}");
    assert!(!report.is_success());
    let failed = report.failures().map(|result| result.id.as_str());
    assert!(failed.collect::<Vec<_>>().contains(&"R1.01"), "{report}");
}

fn part_is_reported_as_a_part() {
    let (output, report) = reported("whole", "R2.01");
    assert!(output.status.success(), "{output:?}");
    assert!(report.is_success() && !report.complete);
    assert_eq!(report.results.len(), 1);
    assert!(report.capabilities.is_some_and(|caps| caps.break_hold));
}

fn absent_server_is_reported() {
    let (output, report) = reported("absent", "");
    assert!(output.status.success(), "{output:?}");
    assert!(report.complete && !report.is_success());
    assert_eq!(report.totals().passed + report.totals().failed, 0);
    assert!(report.totals().missing > 0);
}

fn lost_report_is_a_failure() {
    let output = run("whole", "R2.01", Path::new("/dev/null/reports"));
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the report cannot be written"), "{said}");
}

fn panic_that_nobody_waits_for_is_a_failure() {
    for kind in ["panicking-task", "panicking-thread"] {
        let (output, _) = reported(kind, "R2.01");
        assert!(!output.status.success(), "{kind}: {output:?}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("on purpose"), "{kind}: {said}");
    }
}

fn declared_deviation_excuses_no_panic() {
    let (output, report) = reported("panicking-deviation", "R2.01");
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(report.totals().failed, 1, "{report}");
}

fn declared_deviation_of_no_case_is_a_failure() {
    let (output, report) = reported("misdeclared", "R2.");
    assert!(!output.status.success(), "{output:?}");
    assert!(!report.is_success());
    let failed: Vec<_> = report.failures().map(|result| result.id.as_str()).collect();
    assert_eq!(failed, ["R2.99"], "{report}");
}

fn option_that_is_not_understood_is_a_failure() {
    for (option, value, wanted) in [
        ("LOCK_TEST_TIER", "ful", "fast or full"),
        ("LOCK_TEST_SEED", "0x7", "a whole number"),
        ("LOCK_TORTURE_MINUTES", "-1", "a number of minutes"),
        ("LOCK_TORTURE_ROUNDS", "1.5", "a whole number"),
    ] {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.env(KIND, "whole").env(option, value).arg("R2.01");
        let output = command.output().expect("it runs");
        assert!(!output.status.success(), "{option}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let line = format!("{option}={value:?}: wanted {wanted}");
        assert!(said.contains(&line), "{said}");
    }
}

/// Runs the cases that fit, and reads the report.
fn reported(kind: &str, filter: &str) -> (Output, Report) {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(kind, filter, dir.path());
    let json = dir.path().join(format!("{kind}.json"));
    let json = fs::read_to_string(json).expect("a report");
    (output, serde_json::from_str(&json).expect("its own form"))
}

fn run(kind: &str, filter: &str, reports: &Path) -> Output {
    let program = env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.env(KIND, kind).env("LOCK_TEST_REPORT", reports);
    if !filter.is_empty() {
        command.arg(filter);
    }
    command.output().expect("it runs")
}
