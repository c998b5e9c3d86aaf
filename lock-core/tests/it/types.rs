//! What the types promise to the compiler.

use lock_core::{Backend, Claim, Connect, Error, FenceGate, Grant, Guard, LockName, Locks, Mutex};

fn is_send_sync_static<T: Send + Sync + 'static>() {}
fn is_send<T: Send>(_: T) {}

#[test]
fn types_can_be_shared_and_sent() {
    is_send_sync_static::<Locks>();
    is_send_sync_static::<Mutex>();
    is_send_sync_static::<Guard>();
    is_send_sync_static::<Claim>();
    is_send_sync_static::<Grant>();
    is_send_sync_static::<Error>();
    is_send_sync_static::<LockName>();
    is_send_sync_static::<Box<dyn Backend>>();
    is_send_sync_static::<Box<dyn Connect>>();
    is_send_sync_static::<Box<dyn FenceGate>>();
}

#[test]
fn futures_can_be_spawned() {
    fn check(locks: &Locks, guard: Guard) {
        let mutex = locks.mutex("a");
        is_send(mutex.acquire());
        is_send(mutex.try_acquire());
        is_send(locks.inspect("a"));
        is_send(guard.lost());
        is_send(guard.run(async {}));
        is_send(guard.renew());
        is_send(guard.release());
    }
    let _ = check;
}
