//! Many processes, one counter that only the lock keeps exact.

use std::fs;
use std::thread;

use crate::fixture::{Place, finish};

const PROCESSES: usize = 8;
const RUNS: usize = 25;

/// Reads, thinks, writes; and says with which token, in the order in which it came to pass.
const SECTION: &str = "n=$(cat counter); sleep 0.002; echo $((n + 1)) > counter; \
                       echo $LOCK_TOKEN >> tokens";

#[test]
fn counter_is_exact_and_tokens_grow_on_redis() {
    check(&Place::redis());
}

#[cfg(feature = "etcd")]
#[test]
fn counter_is_exact_and_tokens_grow_on_etcd() {
    Place::etcd().iter().for_each(check);
}

#[test]
fn counter_is_exact_and_tokens_grow_on_zookeeper() {
    Place::zookeeper("").iter().for_each(check);
}

#[test]
fn counter_is_exact_and_tokens_grow_on_files() {
    check(&Place::file());
}

fn check(place: &Place) {
    fs::write(place.path("counter"), "0\n").expect("written");
    thread::scope(|scope| {
        for _ in 0..PROCESSES {
            scope.spawn(|| {
                for _ in 0..RUNS {
                    let done = finish(&mut place.script("counter", SECTION));
                    assert_eq!(done.code, 0, "{done:?}");
                }
            });
        }
    });
    let counted = place.number("counter");
    assert_eq!(counted, u64::try_from(PROCESSES * RUNS).expect("small"));
    let tokens: Vec<u64> = place
        .content("tokens")
        .lines()
        .map(|line| line.parse().expect("a token"))
        .collect();
    assert_eq!(tokens.len(), PROCESSES * RUNS);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}
