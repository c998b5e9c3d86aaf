//! Tests of the test tools themselves.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod cleanup;
mod etcd;
mod guarantees;
mod proxy;
mod proxy_http2;
mod proxy_jute;
mod proxy_scope;
mod redis_pair;
mod servers;
mod zookeeper;
mod zookeeper_client;

use std::thread;
use std::time::{Duration, Instant};

/// Looks at `condition` until it holds, at most for 10 s; says whether it did.
#[expect(clippy::disallowed_methods, reason = "a deadline in real time")]
fn poll(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
