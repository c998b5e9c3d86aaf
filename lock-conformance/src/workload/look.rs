//! Looking at locks from outside: who stands in the queue, and whether all is at rest in the end.

use std::collections::HashSet;
use std::time::Duration;

use lock_core::Locks;

use crate::history::{Event, Left, Recorder, What};

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How often a lock is looked at that is not at rest yet.
const REST: Duration = Duration::from_millis(20);
/// What the suite itself is called in histories.
pub(super) const SUITE: &str = "suite";

/// Writes down each waiter when it is first seen in the queue. Does not end.
pub(super) async fn watch_queue(locks: Locks, names: Vec<String>, recorder: Recorder) {
    let mut seen = HashSet::new();
    loop {
        for name in &names {
            let looked = recorder.now();
            // While something is broken there is nothing to be seen.
            let Ok(state) = locks.inspect(name).await else {
                continue;
            };
            for waiter in state.waiters {
                if seen.insert(waiter.nonce) {
                    recorder.record(waiter.identity.label(), name, What::Queued { looked });
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks at the lock until nobody holds it and nobody waits, for `within` at most, and writes down
/// what was seen in the end and whether the lock can be had then.
pub(super) async fn look_at_rest(locks: &Locks, name: &str, within: Duration, recorder: &Recorder) {
    let until = recorder.now() + within;
    let (holders, waiters) = loop {
        let seen = locks.inspect(name).await;
        let seen = seen.map(|state| (state.holders.len(), state.waiters.len()));
        match seen {
            Ok((0, 0)) => break (0, 0),
            Ok(seen) if recorder.now() >= until => break seen,
            Err(error) if recorder.now() >= until => {
                recorder.record(SUITE, name, What::Note(format!("{error:?}")));
                break (usize::MAX, usize::MAX);
            }
            _ => tokio::time::sleep(REST).await,
        }
    };
    let free = loop {
        if holders > 0 || waiters > 0 {
            break false;
        }
        match can_be_had(locks, name, recorder).await {
            Some(free) => break free,
            // No answer on a busy machine is none about the lock.
            None if recorder.now() < until => tokio::time::sleep(REST).await,
            None => break false,
        }
    };
    let rest = What::Rest {
        holders,
        waiters,
        free,
    };
    recorder.record(SUITE, name, rest);
}

/// Whether the lock could be had; `None` without an answer.
async fn can_be_had(locks: &Locks, name: &str, recorder: &Recorder) -> Option<bool> {
    let asked = recorder.now();
    recorder.add(Event {
        at: asked,
        who: SUITE.to_owned(),
        name: name.to_owned(),
        what: What::Asked { waits: false },
    });
    let saw = |what| recorder.record(SUITE, name, what);
    match locks.mutex(name).try_acquire().await {
        Ok(Some(guard)) => {
            let token = guard.token().get();
            saw(What::Granted { asked, token });
            saw(What::Releasing { token });
            let how = Left::from(&guard.release().await);
            saw(What::Released { token, how });
            Some(true)
        }
        Ok(None) => Some(false),
        Err(error) => {
            saw(What::Note(format!("{error:?}")));
            None
        }
    }
}
