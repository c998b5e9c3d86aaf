//! A command whose first thread has ended looks dead, and runs on in the others.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fixture::{
    Job, Place, SHORT, eventually, finish, is_alive, is_gone_within, state, timed,
};

/// Starts it under the lock `a`, and gives its number too.
fn start(place: &Place, words: &str) -> (Job, u32) {
    place.compile("headless");
    let job = Job::start(&mut place.script(words, "trap '' TERM; exec ./headless"));
    let pid = place.pid("pid");
    eventually("its first thread has ended", || {
        (state(pid) == Some('Z')).then_some(())
    });
    assert!(is_alive(pid));
    (job, pid)
}

#[test]
fn command_without_its_first_thread_dies_with_lockctl() {
    let place = Place::file();
    let (job, pid) = start(&place, "a");
    job.signal(Signal::SIGKILL);
    is_gone_within(Duration::from_secs(1), pid);
    let next = finish(&mut place.script("--wait 30s a", "exit 0"));
    assert_eq!(next.code, 0, "{next:?}");
}

#[test]
fn command_without_its_first_thread_is_dead_before_its_validity_ends() {
    let place = Place::redis();
    let (job, pid) = start(&place, &format!("{SHORT} a"));
    place.kill_server();
    let ((), took) = timed(|| eventually("it is dead", || (!is_alive(pid)).then_some(())));
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    assert_eq!(job.finish().code, 79);
}
