use serde_json::Value;

use super::*;

fn result(id: &str, ending: Ending) -> CaseResult {
    CaseResult {
        id: id.to_owned(),
        name: format!("what_{}_says", id.replace('.', "_")),
        rule: id.split('.').next().unwrap().to_owned(),
        tier: Tier::Fast,
        ending,
        took: Duration::from_millis(1250),
    }
}

/// A report with every way to end in it.
fn report() -> Report {
    let capabilities = lock_core::Capabilities::least("toy");
    Report {
        suite: SUITE_VERSION,
        version: "0.1.0".to_owned(),
        backend: "toy <cluster>".to_owned(),
        tier: Tier::Full,
        complete: true,
        capabilities: Some(Declared::from(&capabilities)),
        faults: vec!["kill".to_owned(), "hold-request".to_owned()],
        processes: true,
        deviations: vec![DeclaredDeviation {
            case: "R9.10".to_owned(),
            reason: "reads | first".to_owned(),
            seen: true,
        }],
        results: vec![
            result("R1.01", Ending::Passed),
            result("R1.02", Ending::Failed("two holders\nat once".to_owned())),
            result("R2.01", Ending::Skipped("not declared".to_owned())),
            result("R3.01", Ending::Missing("no server".to_owned())),
            result("R9.10", Ending::Deviates("reads | first".to_owned())),
        ],
    }
}

fn without_failure() -> Report {
    let mut report = report();
    report.results.retain(|result| result.id != "R1.02");
    report
}

#[test]
fn document_is_read_back_as_the_same_report() {
    for report in [report(), without_failure()] {
        let read: Report = serde_json::from_str(&report.to_json()).expect("its own document");
        assert_eq!(read, report);
    }
}

#[test]
fn document_says_what_follows_from_the_results_in_a_fixed_order() {
    let text = report().to_json();
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["success"], false);
    let counts = ["passed", "failed", "deviating", "skipped", "missing"];
    assert_eq!(counts.map(|count| &json[count]), [1; 5]);
    let fields = [
        "suite",
        "backend",
        "success",
        "passed",
        "capabilities",
        "results",
    ];
    let at = fields.map(|field| text.find(&format!("\n  \"{field}\":")).expect(field));
    assert!(at.is_sorted(), "{text}");
    assert_eq!(json["results"][1]["reason"], "two holders\nat once");
    assert_eq!(json["results"][0].get("reason"), None);
}

#[test]
fn nothing_executed_is_no_success() {
    let mut report = without_failure();
    assert!(report.is_success());
    report
        .results
        .retain(|result| result.ending != Ending::Passed);
    assert!(!report.is_success());
    assert!(report.to_svg().contains("nothing was tried"));
}

#[test]
fn markdown_keeps_its_tables_whatever_a_reason_says() {
    let text = report().to_markdown();
    assert!(text.contains("does **not** conform"), "{text}");
    assert!(
        text.contains("**failed**: two holders<br>at once |"),
        "{text}"
    );
    assert!(
        text.contains("| R9.10 | reads \\| first | seen in this run |"),
        "{text}"
    );
    assert!(
        without_failure()
            .to_markdown()
            .contains("The backend conforms:")
    );
}

#[test]
fn badge_tells_failures_deviations_and_parts_apart() {
    let says = |report: &Report| {
        let json: Value = serde_json::from_str(&report.to_shields_endpoint()).expect("JSON");
        let word = |field: &str| json[field].as_str().expect(field).to_owned();
        assert!(report.to_svg().contains(&word("message")));
        (word("message"), word("color"))
    };
    let pair = |message: &str, color: &str| (message.to_owned(), color.to_owned());
    assert_eq!(says(&report()), pair("1 failed", "red"));
    let mut report = without_failure();
    assert_eq!(says(&report), pair("1 passed, 1 deviating", "yellowgreen"));
    report.complete = false;
    assert_eq!(
        says(&report),
        pair("1 passed, 1 deviating of a part", "lightgrey")
    );
    report.complete = true;
    report.results.truncate(1);
    assert_eq!(says(&report), pair("1 passed", "brightgreen"));
}

#[test]
fn files_are_named_after_the_backend_and_replaced_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("reports");
    for _ in 0..2 {
        report().write(&dir).expect("written");
    }
    let entries = fs::read_dir(&dir).expect("it is there").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    let stem = "toy--cluster-";
    let all = ["badge.json", "json", "md", "svg"].map(|end| format!("{stem}.{end}"));
    assert_eq!(names, all.map(std::ffi::OsString::from));
    let json = fs::read_to_string(dir.join(format!("{stem}.json"))).expect("readable");
    assert_eq!(json, report().to_json());
}
