//! The suite, run by the tool.

use std::fs;

use lock_conformance::{Report, SUITE_VERSION};
use serde_json::Value;

use crate::fixture::{Place, finish, lockctl};

#[test]
fn cases_can_be_listed() {
    let text = finish(&mut lockctl("conformance --list"));
    assert!(text.stdout.contains("R1.01"), "{text:?}");
    let json = finish(&mut lockctl(
        "--format json conformance --list --filter R2.",
    ));
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let cases = json.as_array().expect("a list");
    assert!(cases.len() >= 4);
    assert!(cases.iter().all(|case| case["rule"] == "R2"), "{cases:?}");
}

#[test]
fn one_rule_passes_on_memory_in_every_form() {
    let words = "--url memory:// conformance --filter R2.0";
    let text = finish(&mut lockctl(words));
    assert_eq!(text.code, 0, "{text:?}");
    assert!(
        text.stdout.contains("memory: suite ") && text.stdout.contains(" 0 failed"),
        "{text:?}"
    );
    let json = finish(&mut lockctl(&format!("--format json {words}")));
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(
        (&json["success"], &json["failed"]),
        (&true.into(), &0.into())
    );
    assert!(json["passed"].as_u64() >= Some(5), "{json}");
    let markdown = finish(&mut lockctl(&format!("{words} --markdown")));
    assert!(markdown.stdout.contains("\n| R2.01 | "), "{markdown:?}");
}

#[test]
fn report_is_written_in_every_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = lockctl("--url memory:// conformance --filter R2.01 --report");
    let done = finish(command.arg(dir.path().join("reports")));
    assert_eq!(done.code, 0, "{done:?}");
    let file = |name: &str| fs::read_to_string(dir.path().join("reports").join(name)).expect(name);
    let report: Report = serde_json::from_str(&file("memory.json")).expect("a report");
    assert_eq!((report.suite, report.complete), (SUITE_VERSION, false));
    assert_eq!(report.totals().passed, 1);
    assert!(file("memory.md").contains("\n| R2.01 | "));
    assert!(file("memory.svg").contains("1 passed of a part"));
    assert!(file("memory.badge.json").contains("schemaVersion"));
}

#[test]
fn cases_with_processes_run_on_redis_and_leave_the_locks_there_alone() {
    let place = Place::redis();
    for case in ["R1.01", "R1.05", "R10.10"] {
        let done =
            finish(&mut place.lockctl(&format!("--format json conformance --filter {case}")));
        let json: Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!((done.code, &json["passed"]), (0, &1.into()), "{done:?}");
    }
    let keys = place.redis_server().keys().expect("it answers");
    let own = keys.iter().filter(|key| key.starts_with("distlock:"));
    // The namespace record of the client that asked what the backend declares.
    assert!(own.count() <= 1, "{keys:?}");
}

#[test]
fn files_of_the_cases_are_removed() {
    let place = Place::file();
    let done = finish(&mut place.lockctl("--format json conformance --filter R1.0"));
    let json: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!((done.code, &json["failed"]), (0, &0.into()), "{done:?}");
    let left = fs::read_dir(place.dir.path()).expect("it is there");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["locks"]);
}

#[test]
fn filter_that_fits_nothing_is_a_mistake() {
    let done = finish(&mut lockctl("--url memory:// conformance --filter R99"));
    done.failed_with(64, "R99");
}

#[test]
fn report_that_cannot_be_written_is_a_mistake_before_anything_runs() {
    let done = finish(&mut lockctl(
        "--url memory:// conformance --filter R1 --report /dev/null/reports",
    ));
    done.failed_with(71, "/dev/null/reports");
    assert_eq!(done.stdout, "");
}
