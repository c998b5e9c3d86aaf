//! Waiting for a condition with a deadline: the only way these tools wait for anything.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short against a server's start (15-30 ms), long enough not to take a core
/// from the server it waits for.
const PAUSE: Duration = Duration::from_millis(1);

/// Looks at `probe` until it gives something, at most for `within`. It is looked at at least once.
#[expect(
    clippy::disallowed_methods,
    reason = "a deadline of the test tools themselves; an injected clock cannot move a real server"
)]
pub(crate) fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(PAUSE);
    }
}
