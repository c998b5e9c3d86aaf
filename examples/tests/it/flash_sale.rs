//! `flash_sale` on the memory backend: exit codes, and what it prints where.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Where cargo puts examples: beside the directory of this test.
fn program() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/it");
    let program = profile.join("examples").join("flash_sale");
    assert!(
        program.exists(),
        "the example is not built: run `cargo test -p distlock-examples`, which builds it"
    );
    program
}

fn flash_sale(args: &[&str]) -> Output {
    Command::new(program())
        .args(args)
        .output()
        .expect("the example runs")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("UTF-8")
}

/// The command line is refused with this exit code and one line that has `words` in it.
fn check_refused(args: &[&str], code: i32, words: &[&str]) {
    let output = flash_sale(args);
    let stderr = str::from_utf8(&output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", stdout(&output));
    for word in words {
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    }
}

#[test]
fn locked_sale_is_exact_and_the_stale_write_refused() {
    let output = flash_sale(&["--buyers", "20,40", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_str(stdout(&output)).expect("one JSON object");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["error_rate"], 0.0, "{row}");
        assert!(row["sections_per_second"].as_f64() > Some(0.0), "{row}");
        if row["locked"] == true {
            assert_eq!(row["sold"], row["stock"], "{row}");
            assert_eq!(row["oversold"], 0, "{row}");
            let wait = |figure: &str| row["wait_ms"][figure].as_f64().expect("a figure");
            assert!(wait("p50") <= wait("p99") && wait("p99") <= wait("max"));
            assert!(wait("mean") > 0.0);
        } else {
            assert!(row["oversold"].as_u64() > Some(0), "{row}");
            assert!(row["wait_ms"].is_null(), "{row}");
        }
    }
    let paused = &report["paused_buyer"];
    assert_eq!(paused["refused"], true, "{paused}");
    assert_eq!(paused["guard_knows_it_is_lost"], true, "{paused}");
    assert!(paused["stale_token"].as_u64() < paused["next_token"].as_u64());
    assert_eq!(report["exact"], true);
    assert_eq!(report["stale_write_refused"], true);
}

#[test]
fn text_tells_three_acts_and_has_a_line_for_each_sale() {
    let output = flash_sale(&["--buyers", "10", "--stock", "4"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    for act in ["1. Without", "2. With", "3. A buyer", "oversold", "refused"] {
        assert!(text.contains(act), "{act} is missing in:\n{text}");
    }
    assert!(text.contains("10 buyers, 4 in stock: 4 sold"), "{text}");
}

#[test]
fn more_items_than_buyers_are_not_all_sold() {
    let output = flash_sale(&["--buyers", "3", "--stock", "5"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    assert!(text.contains("3 sold, 2 left on paper: exact"), "{text}");
}

#[test]
fn wrong_input_is_refused_in_one_line() {
    let usage = 2;
    check_refused(&["--buyers", "0"], usage, &["--buyers"]);
    check_refused(&["--buyers", "many"], usage, &["--buyers"]);
    check_refused(&["--processes", "0"], usage, &["--processes"]);
    check_refused(&["--nonsense"], usage, &["--nonsense"]);
    check_refused(&["--url", "redis"], usage, &["scheme://"]);
    check_refused(&["--url", "carrier-pigeon://"], usage, &["memory://"]);
    check_refused(&["--url", "memory://?x=1"], usage, &["x"]);
    check_refused(&["--processes", "4"], usage, &["--processes", "memory"]);
}

#[test]
fn server_that_is_not_there_is_a_failure_in_one_line() {
    // Nothing listens on the discard port of the loopback device.
    let url = "redis://127.0.0.1:9/?op_timeout=500ms";
    check_refused(&["--url", url], 1, &["unavailable"]);
    check_refused(&["--url", url, "--processes", "4"], 1, &["unavailable"]);
}
