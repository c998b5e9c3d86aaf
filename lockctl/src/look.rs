//! A lock's state as people and machines are shown it: what `status`, `list` and `watch` share.

use distlock::{HolderState, Identity, LockState, WaiterState};
use serde_json::{Value, json};

use crate::output::{age, millis, shown, table};

/// What stands where a lock without an end would say how much is left of it.
const NO_END: &str = "no end";

/// `name: held, 2 waiting`.
pub(crate) fn headline(lock: &LockState) -> String {
    let state = match lock.holders.len() {
        0 => "free".to_owned(),
        1 => "held".to_owned(),
        many => format!("held by {many}"),
    };
    let queue = match lock.waiters.len() {
        0 => String::new(),
        waiting => format!(", {waiting} waiting"),
    };
    format!("{}: {state}{queue}", shown(lock.name.as_str()))
}

/// Holders and waiters, one a line, in the order of the queue; empty when there are none.
pub(crate) fn people(lock: &LockState) -> String {
    match people_rows(lock).as_slice() {
        [_heading] => String::new(),
        rows => table(rows),
    }
}

/// A heading, then holders and waiters in the order of the queue.
pub(crate) fn people_rows(lock: &LockState) -> Vec<[String; 7]> {
    let heading = ["", "OWNER", "HOST", "PID", "FOR", "LEFT", "TOKEN"].map(str::to_owned);
    let holders = lock.holders.iter().map(|holder| {
        let [owner, host, pid] = identity(&holder.identity);
        let token = holder.token.to_string();
        let role = "holder".to_owned();
        [role, owner, host, pid, age(holder.age), left(holder), token]
    });
    let waiters = lock.waiters.iter().zip(1_u32..).map(|(waiter, place)| {
        let [owner, host, pid] = identity(&waiter.identity);
        let (place, since) = (place.to_string(), age(waiter.age));
        [place, owner, host, pid, since, String::new(), String::new()]
    });
    std::iter::once(heading)
        .chain(holders)
        .chain(waiters)
        .collect()
}

/// The columns of [`row`].
pub(crate) const COLUMNS: [&str; 8] = [
    "NAME", "OWNER", "HOST", "PID", "FOR", "LEFT", "TOKEN", "WAITING",
];

/// One lock on one line.
pub(crate) fn row(lock: &LockState) -> [String; 8] {
    let name = shown(lock.name.as_str());
    let waiting = lock.waiters.len().to_string();
    let Some(holder) = lock.holders.first() else {
        let nobody = || "-".to_owned();
        return [
            name,
            nobody(),
            nobody(),
            nobody(),
            nobody(),
            nobody(),
            nobody(),
            waiting,
        ];
    };
    let [owner, host, pid] = identity(&holder.identity);
    let token = holder.token.to_string();
    [
        name,
        owner,
        host,
        pid,
        age(holder.age),
        left(holder),
        token,
        waiting,
    ]
}

/// One lock as JSON. The keys are documented in the README.
pub(crate) fn json(lock: &LockState) -> Value {
    json!({
        "name": lock.name.as_str(),
        "holders": lock.holders.iter().map(holder_json).collect::<Vec<_>>(),
        "queue_length": lock.waiters.len(),
        "waiters": lock.waiters.iter().map(waiter_json).collect::<Vec<_>>(),
        "last_token": lock.last_token.map(|token| token.get()),
    })
}

fn holder_json(holder: &HolderState) -> Value {
    json!({
        "owner": holder.identity.label(),
        "host": holder.identity.host(),
        "pid": holder.identity.pid(),
        "held_ms": millis(holder.age),
        "left_ms": holder.remaining.map(millis),
        "token": holder.token.get(),
        "provisional": holder.provisional,
    })
}

fn waiter_json(waiter: &WaiterState) -> Value {
    json!({
        "owner": waiter.identity.label(),
        "host": waiter.identity.host(),
        "pid": waiter.identity.pid(),
        "waited_ms": millis(waiter.age),
    })
}

fn identity(identity: &Identity) -> [String; 3] {
    [
        shown(identity.label()),
        shown(identity.host()),
        identity.pid().to_string(),
    ]
}

fn left(holder: &HolderState) -> String {
    holder.remaining.map_or_else(|| NO_END.to_owned(), age)
}
