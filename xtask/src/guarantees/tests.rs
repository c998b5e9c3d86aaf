use serde_json::json;

use super::*;

const TEXT: &str = "\
# Guarantees

| claim | M | R | cases |
|---|---|---|---|
| First. | ● | ● | R1.01 R1.02 |
| Second. | ◐ | — | R2.01, for long R2.02† |
| Only long. | ● | ◐ | R2.03† |

| case | backends | what is not promised |
|---|---|---|
| R9.10 | redis | reads first |

The end.
";

/// A report with these results, in the fast tier.
fn report(results: &[(&str, &str)], deviations: &[(&str, &str)]) -> String {
    let results = results.iter();
    let results = results.map(|(case, result)| json!({ "case": case, "result": result }));
    let deviations = deviations.iter();
    let deviations = deviations.map(|(case, reason)| json!({ "case": case, "reason": reason }));
    json!({
        "complete": true,
        "tier": "fast",
        "results": results.collect::<Vec<_>>(),
        "deviations": deviations.collect::<Vec<_>>(),
    })
    .to_string()
}

fn reports(memory: &[(&str, &str)], redis: &[(&str, &str)]) -> Reports {
    let mut reports = Reports::default();
    let memory = report(memory, &[]);
    let redis = report(redis, &[("R9.10", "reads first")]);
    reports.add("memory", &memory).expect("a report");
    reports.add("redis", &redis).expect("a report");
    reports
}

#[test]
fn document_that_is_right_stays_as_it_is() {
    let reports = reports(
        &[
            ("R1.01", "passed"),
            ("R1.02", "passed"),
            ("R2.01", "passed"),
        ],
        &[
            ("R1.01", "passed"),
            ("R1.02", "passed"),
            ("R2.01", "skipped"),
        ],
    );
    let text = TEXT.replace("◐ | — | R2.01", "● | — | R2.01");
    assert_eq!(
        document::from_reports(&text, &reports).expect("right"),
        text
    );
}

#[test]
fn marks_follow_the_reports_in_both_directions() {
    let reports = reports(
        &[
            ("R1.01", "passed"),
            ("R1.02", "skipped"),
            ("R2.01", "passed"),
        ],
        &[
            ("R1.01", "skipped"),
            ("R1.02", "deviating"),
            ("R2.01", "passed"),
        ],
    );
    let right = document::from_reports(TEXT, &reports).expect("a document");
    assert!(
        right.contains("| First. | ◐ | — | R1.01 R1.02 |"),
        "{right}"
    );
    assert!(
        right.contains("| Second. | ● | ● | R2.01, for long R2.02† |"),
        "{right}"
    );
    assert!(right.contains("| Only long. | ● | ◐ | R2.03† |"), "{right}");
    let lines: Vec<_> = differences(TEXT, &right).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
}

#[test]
fn failed_or_absent_case_is_no_mark_but_an_error() {
    let failed = report(&[("R1.01", "passed"), ("R1.02", "failed")], &[]);
    let error = Reports::default().add("etcd cluster", &failed);
    let error = format!("{:#}", error.expect_err("a failure"));
    assert!(error.contains("etcd cluster: failed: R1.02"), "{error}");

    let all = [
        ("R1.01", "passed"),
        ("R1.02", "passed"),
        ("R2.01", "passed"),
    ];
    let absent = document::from_reports(TEXT, &reports(&all[..2], &all));
    let error = format!("{:#}", absent.expect_err("a case is not there"));
    assert!(error.contains("memory: R2.01 did not run"), "{error}");
}

#[test]
fn server_that_may_be_missing_leaves_its_column_and_its_deviations() {
    let mut reports = Reports::default();
    let memory = [
        ("R1.01", "passed"),
        ("R1.02", "missing"),
        ("R2.01", "skipped"),
    ];
    reports
        .add("memory", &report(&memory, &[]))
        .expect("a report");
    let right = document::from_reports(TEXT, &reports).expect("a document");
    assert_eq!(right, TEXT.replace("| ◐ | — | R2.01", "| — | — | R2.01"));
}

#[test]
fn deviations_are_those_of_the_reports() {
    let all = [
        ("R1.01", "passed"),
        ("R1.02", "passed"),
        ("R2.01", "passed"),
    ];
    let mut reports = reports(&all, &all);
    let more = [("R9.10", "reads first"), ("R9.9", "no order")];
    for backend in ["zookeeper", "etcd cluster"] {
        reports
            .add(backend, &report(&all, &more))
            .expect("a report");
    }
    let right = document::from_reports(TEXT, &reports).expect("a document");
    let rows: Vec<_> = right
        .lines()
        .filter(|line| line.starts_with("| R9"))
        .collect();
    let both = "etcd cluster, zookeeper";
    let first = format!("| R9.9 | {both} | no order |");
    let second = format!("| R9.10 | redis, {both} | reads first |");
    assert_eq!(rows, [first, second]);

    let mut none = Reports::default();
    none.add("redis", &report(&all, &[])).expect("a report");
    let right = document::from_reports(TEXT, &none).expect("a document");
    assert!(!right.contains("R9.10"), "{right}");
}

#[test]
fn partial_report_proves_nothing() {
    let partial = report(&[], &[]).replace("true", "false");
    let error = Reports::default().add("redis", &partial);
    let error = format!("{:#}", error.expect_err("partial"));
    assert!(error.contains("only some of the cases"), "{error}");
}
