//! Waiting for the lock, and not getting it.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::fixture::{Job, Place, eventually, finish, running, timed};

fn held(place: &Place) -> Job {
    let job = Job::start(&mut place.script("a", "echo up > up; exec sleep 300"));
    place.content("up");
    job
}

fn waits(place: &Place, count: usize) {
    eventually("so many wait", || {
        (place.status("a")["queue_length"] == json!(count)).then_some(())
    });
}

#[test]
fn wait_ends_in_time_and_leaves_nothing_in_the_queue() {
    let place = Place::redis();
    let holder = held(&place);
    // The fastest of three: what is measured is lockctl, not a machine that is busy.
    let took = (0..3).map(|_| {
        let (done, took) = timed(|| finish(&mut place.script("--wait 1s a", "echo never > never")));
        done.failed_with(75, "was not free within 1s");
        assert_eq!(place.status("a")["queue_length"], 0);
        took
    });
    let took: Vec<Duration> = took.collect();
    let (least, most) = (Duration::from_secs(1), Duration::from_millis(1_300));
    assert!(took.iter().all(|took| *took >= least), "{took:?}");
    assert!(took.iter().any(|took| *took <= most), "{took:?}");
    assert!(!place.path("never").exists());
    drop(holder);
}

#[test]
fn backend_that_has_gone_meanwhile_is_not_taken_for_a_lock_that_is_held() {
    let place = Place::redis();
    let holder = held(&place);
    let waiter = Job::start(&mut place.script("--wait 2s a", "exit 0"));
    waits(&place, 1);
    place.kill_server();
    let (done, took) = timed(|| waiter.finish());
    done.failed_with(69, "cannot be reached");
    let most = Duration::from_secs(3);
    assert!(took < most, "{took:?}");
    drop(holder);
}

#[test]
fn try_does_not_wait() {
    let place = Place::redis();
    let holder = held(&place);
    finish(&mut place.script("--try a", "exit 0")).failed_with(75, "is not free");
    assert_eq!(place.status("a")["queue_length"], 0);
    drop(holder);
}

#[test]
fn waiter_gets_the_lock_when_it_is_free() {
    let place = Place::redis();
    let holder = held(&place);
    // A hand-off is granted for 2 s at first: too short for the grace that the command is to have, so
    // it would be told to end at once.
    let script = "trap 'exit 9' TERM; sleep 0.3; exit 0";
    let waiter = Job::start(&mut place.script("--wait 60s a", script));
    waits(&place, 1);
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.finish().code, 143);
    let done = waiter.finish();
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn waiters_run_whatever_is_left_of_their_session_when_they_are_granted() {
    let Some(place) = Place::zookeeper("?session_timeout=4s") else {
        return;
    };
    // One after another, at another moment of its session each.
    let script = "echo up > up; sleep 0.7";
    let jobs: Vec<Job> = (0..5)
        .map(|_| Job::start(&mut place.script("--kill-after 1400ms a", script)))
        .collect();
    for job in jobs {
        let done = job.finish();
        assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    }
}

#[test]
fn grace_that_is_too_long_for_a_session_is_refused_before_the_wait() {
    let Some(place) = Place::zookeeper("?session_timeout=2s") else {
        return;
    };
    let script = "echo up > up; exec sleep 300";
    let holder = Job::start(&mut place.script("--kill-after 500ms a", script));
    place.content("up");
    finish(&mut place.script("--kill-after 2s a", "exit 0")).failed_with(64, "session_timeout");
    assert_eq!(place.status("a")["queue_length"], 0);
    drop(holder);
}

#[test]
fn waiter_that_is_told_to_end_leaves_the_queue() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let place = Place::redis();
        let holder = held(&place);
        let waiter = Job::start(&mut place.script("a", "exit 0"));
        waits(&place, 1);
        waiter.signal(signal);
        assert_eq!(waiter.finish().code, 128 + signal as i32);
        assert_eq!(place.status("a")["queue_length"], 0);
        drop(holder);
    }
}

#[test]
fn waiter_that_is_killed_blocks_nobody_and_its_command_never_runs() {
    let place = Place::redis();
    let holder = held(&place);
    let killed = Job::start(&mut place.lockctl("run a -- touch never-4711"));
    waits(&place, 1);
    let next = Job::start(&mut place.script("a", "exit 7"));
    waits(&place, 2);
    killed.signal(Signal::SIGKILL);
    killed.finish();
    holder.signal(Signal::SIGTERM);
    assert_eq!(next.finish().code, 7);
    assert!(!place.path("never-4711").exists());
    assert!(running("never-4711").is_empty());
}
