//! Tests of the test tools themselves.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod etcd;
mod guarantees;
mod proxy;
mod servers;
mod zookeeper;

use std::thread;
use std::time::Duration;

/// Looks at `condition` until it holds, at most for 10 s; says whether it did.
fn poll(mut condition: impl FnMut() -> bool) -> bool {
    (0..10_000).any(|_| {
        let holds = condition();
        if !holds {
            thread::sleep(Duration::from_millis(1));
        }
        holds
    })
}
