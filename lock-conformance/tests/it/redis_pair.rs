//! The launcher of a Redis with a replica.

use lock_conformance::servers::RedisPair;

use crate::cleanup::is_alive;

#[test]
fn replica_takes_over_with_everything_that_was_written() {
    let Some(pair) = RedisPair::start_or_skip() else {
        return;
    };
    let before = (pair.port(), pair.replica().port());
    assert_ne!(before.0, before.1);
    for n in 0..1000 {
        pair.cli(&["SET", &format!("k{n}"), "v"]).unwrap();
    }
    pair.fail_over().unwrap();
    assert_eq!(pair.port(), before.1);
    assert_eq!(pair.keys().unwrap().len(), 1000);
    pair.cli(&["SET", "after", "v"]).unwrap();
    assert!(pair.fail_over().is_err());
}

#[test]
fn what_is_written_after_replication_has_stopped_is_lost() {
    let Some(pair) = RedisPair::start_or_skip() else {
        return;
    };
    pair.cli(&["SET", "kept", "v"]).unwrap();
    // As it arrives there by itself.
    assert!(crate::poll(|| pair.replica().keys().unwrap() == ["kept"]));
    pair.stop_replication().unwrap();
    pair.cli(&["SET", "lost", "v"]).unwrap();
    assert_eq!(pair.keys().unwrap(), ["kept", "lost"]);
    pair.fail_over().unwrap();
    assert_eq!(pair.keys().unwrap(), ["kept"]);
}

#[test]
fn both_are_gone_after_drop() {
    let Some(pair) = RedisPair::start_or_skip() else {
        return;
    };
    let pids = [pair.pid().unwrap(), pair.replica().pid().unwrap()];
    drop(pair);
    assert!(!pids.into_iter().any(is_alive));
}
