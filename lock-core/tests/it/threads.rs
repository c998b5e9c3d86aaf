//! Runtimes that are blocked, gone, or not there.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::faulty::{Faulty, at_rest, until};

fn single_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn guard_is_kept_while_the_users_only_thread_is_blocked_for_longer_than_its_ttl() {
    let faulty = Faulty::new();
    single_thread().block_on(async {
        let locks = faulty.open().await;
        let ttl = Duration::from_millis(300);
        let guard = locks.mutex("a").ttl(ttl).acquire().await.expect("free");
        // The point of the test is a thread that does nothing else: no runtime polls in here.
        while faulty.plan.calls("renew") < 6 {
            std::thread::yield_now();
        }
        guard.check().expect("still held");
    });
}

#[test]
fn guard_dropped_outside_of_a_runtime_is_given_back() {
    let faulty = Faulty::new();
    let (locks, observer, guard) = single_thread().block_on(async {
        let locks = faulty.open().await;
        let guard = locks.mutex("a").acquire().await.expect("free");
        (locks, faulty.open_plain().await, guard)
    });
    drop(guard);
    single_thread().block_on(at_rest(&locks, &observer, "a"));
}

#[test]
fn guard_dropped_with_its_runtime_is_given_back() {
    let faulty = Faulty::new();
    let runtime = single_thread();
    let locks = runtime.block_on(faulty.open());
    let observer = runtime.block_on(faulty.open_plain());
    let guard = runtime.block_on(locks.mutex("a").acquire()).expect("free");
    runtime.spawn(async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    });
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    single_thread().block_on(at_rest(&locks, &observer, "a"));
}

#[test]
fn guard_dropped_while_unwinding_is_given_back() {
    let faulty = Faulty::new();
    let runtime = single_thread();
    let (locks, observer) =
        runtime.block_on(async { (faulty.open().await, faulty.open_plain().await) });
    let guard = runtime.block_on(locks.mutex("a").acquire()).expect("free");
    let unwound = std::thread::spawn(move || {
        let _guard = guard;
        panic!("a panic that the test planned");
    });
    assert!(unwound.join().is_err());
    runtime.block_on(at_rest(&locks, &observer, "a"));
}

#[test]
fn one_client_serves_several_runtimes() {
    let faulty = Faulty::new();
    let first = single_thread();
    let locks = first.block_on(faulty.open());
    let guard = first.block_on(locks.mutex("a").acquire()).expect("free");
    drop(first);
    let waiting = std::thread::spawn({
        let locks = locks.clone();
        move || {
            single_thread().block_on(async { locks.mutex("a").acquire().await.map(|g| g.token()) })
        }
    });
    single_thread().block_on(until("the other thread waits", || async {
        locks.stats().waiting == 1
    }));
    let token = guard.token();
    drop(guard);
    assert!(waiting.join().expect("no panic").expect("granted") > token);
}
