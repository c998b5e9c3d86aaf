//! The load test: what it counts, not how fast it is.

use serde_json::Value;

use crate::fixture::{Finished, Job, Place, eventually, finish, lockctl};

fn lines(done: &Finished) -> Vec<Value> {
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    done.stdout.lines().map(parse).collect()
}

/// Of this level: exact, without errors, and with everything that is promised.
fn check(level: &Value, tasks: u64, processes: u64) {
    assert_eq!(level["exact"], true, "{level}");
    assert_eq!(level["errors"], 0, "{level}");
    assert_eq!(level["counted"], level["sections"], "{level}");
    assert!(level["counted"].as_u64() > Some(0), "{level}");
    assert_eq!(
        (&level["tasks"], &level["processes"]),
        (&tasks.into(), &processes.into())
    );
    for key in ["sections_per_second", "hand_offs_per_second", "seconds"] {
        assert!(level[key].is_number(), "{key} in {level}");
    }
    for key in ["mean", "p50", "p99", "max"] {
        assert!(level["wait_ms"][key].is_number(), "{key} in {level}");
    }
}

#[test]
fn every_level_is_exact_in_one_process() {
    let done = finish(&mut lockctl(
        "--url memory:// bench --seconds 300ms --tasks 2,10 --json",
    ));
    let levels = lines(&done);
    assert_eq!(levels.len(), 2);
    check(&levels[0], 2, 1);
    check(&levels[1], 10, 1);
    assert_eq!(levels[0]["commands_per_section"], Value::Null);
}

#[test]
fn counter_is_exact_across_processes_and_the_server_tells_what_it_cost() {
    let place = Place::redis();
    let words = "--format json bench --seconds 1 --tasks 9 --processes 3 --hold 1ms";
    let levels = lines(&finish(&mut place.lockctl(words)));
    check(&levels[0], 9, 3);
    let owner_changed = levels[0]["hand_offs_per_second"].as_f64();
    assert!(owner_changed > Some(0.0), "{levels:?}");
    let commands = levels[0]["commands_per_section"]
        .as_f64()
        .expect("Redis tells");
    assert!((0.5..4.0).contains(&commands), "{commands}");
    assert!(levels[0]["fairness"].as_f64() >= Some(1.0));
    let left = finish(&mut place.lockctl("--format json list"));
    assert_eq!(left.stdout, "[]\n");
}

#[test]
fn tasks_with_locks_of_their_own_hand_nothing_off() {
    let words = "--url memory:// bench --seconds 300ms --tasks 4 --keys distinct --json";
    let levels = lines(&finish(&mut lockctl(words)));
    check(&levels[0], 4, 1);
    assert_eq!(levels[0]["hand_offs_per_second"], 0.0);
}

#[test]
fn people_get_a_table_a_chart_and_a_verdict() {
    let done = finish(&mut lockctl(
        "--url memory:// bench --seconds 200ms --tasks 2,4",
    ));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.starts_with("TASKS "), "{done:?}");
    assert!(done.stdout.contains('█'), "{done:?}");
    assert!(done.stdout.contains("Every counter is exact"), "{done:?}");
}

#[test]
fn memory_is_not_shared_by_processes() {
    let done = finish(&mut lockctl("--url memory:// bench --processes 2"));
    done.failed_with(64, "private to its process");
}

#[test]
fn server_that_is_away_is_said_at_once() {
    let words = "--url redis://127.0.0.1:1 bench --processes 2";
    finish(&mut lockctl(words)).failed_with(69, "127.0.0.1:1");
}

#[test]
fn server_that_dies_meanwhile_is_a_failure_with_what_was_measured() {
    let place = Place::redis();
    let words = "bench --seconds 3 --tasks 4 --hold 1ms";
    let job = Job::start(&mut place.lockctl(words));
    eventually("it holds a lock", || {
        let locks = finish(&mut place.lockctl("--format json list --prefix lockctl-bench/"));
        (locks.stdout.trim_end() != "[]").then_some(())
    });
    place.kill_server();
    let done = job.finish();
    assert!(done.stdout.starts_with("TASKS "), "{done:?}");
    done.failed_with(69, "backend unavailable");
}
