//! Locks that are files: the guardian keeps the lock until nothing of the command runs.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{
    Job, Place, eventually, finish, is_alive, is_gone_within, lockctl, signal_to, within,
};

#[test]
fn nothing_has_to_be_installed_or_said() {
    let state = TempDir::new().expect("a directory");
    let mut run = lockctl("run a -- sh -c");
    run.arg("echo $LOCK_URL $LOCK_TOKEN")
        .env("XDG_STATE_HOME", state.path())
        .env("LOCK_URL", "");
    let done = finish(&mut run);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(done.stdout.starts_with("file:// "), "{done:?}");
    assert!(state.path().join("distlock").is_dir());
}

#[test]
fn lock_is_free_as_soon_as_the_group_is_dead_when_lockctl_is_killed() {
    let place = Place::file();
    let script = "trap '' TERM; sleep 300 & echo $! > inner; echo $$ > outer; wait";
    let job = Job::start(&mut place.script("a", script));
    let (inner, outer) = (place.pid("inner"), place.pid("outer"));
    job.signal(Signal::SIGKILL);
    // Whoever gets it next looks at once.
    let next = format!(
        "grep -qs '^State:.[^ZX]' /proc/{inner}/status /proc/{outer}/status && echo alive > seen \
         || echo dead > seen"
    );
    let done = finish(&mut place.script("--wait 30s a", &next));
    assert_eq!((done.code, place.content("seen").as_str()), (0, "dead"));
    is_gone_within(Duration::from_secs(1), outer);
}

#[test]
fn guardian_holds_the_lock_when_lockctl_cannot() {
    let place = Place::file();
    let job = Job::start(&mut place.script("a", "echo $$ > pid; exec sleep 300"));
    let pid = place.pid("pid");
    let guardian = job.guardian();
    // Both at once, as far as that can be: the guardian is kept from its work for a while.
    signal_to(guardian, Signal::SIGSTOP);
    job.signal(Signal::SIGKILL);
    job.finish();
    assert!(is_alive(pid), "nobody was there to kill it");
    finish(&mut place.script("--try a", "exit 0")).failed_with(75, "is not free");
    signal_to(guardian, Signal::SIGCONT);
    is_gone_within(Duration::from_secs(1), pid);
    within(Duration::from_secs(1), "the lock is free", || {
        (finish(&mut place.script("--try a", "exit 0")).code == 0).then_some(())
    });
}

#[test]
fn lock_without_an_end_needs_no_renewal_and_survives_a_stopped_lockctl() {
    let place = Place::file();
    let script = "echo $$ > pid; while ! [ -e go ]; do sleep 0.02; done; exit 7";
    let job = Job::start(&mut place.script("--ttl 100ms --kill-after 10ms a", script));
    let pid = place.pid("pid");
    job.signal(Signal::SIGSTOP);
    let busy = finish(&mut place.script("--wait 500ms a", "exit 0"));
    busy.failed_with(75, "was not free");
    assert!(is_alive(pid));
    job.signal(Signal::SIGCONT);
    fs::write(place.path("go"), "").expect("written");
    let done = job.finish();
    assert_eq!((done.code, done.stderr.as_str()), (7, ""));
}

#[test]
fn command_dies_with_its_guardian() {
    let place = Place::file();
    let job = Job::start(&mut place.script("a", "echo $$ > pid; exec sleep 300"));
    let pid = place.pid("pid");
    signal_to(job.guardian(), Signal::SIGKILL);
    job.finish().failed_with(137, "nobody guards");
    assert!(!is_alive(pid));
    assert_eq!(finish(&mut place.script("--try a", "exit 0")).code, 0);
}

#[test]
fn lock_whose_file_is_removed_is_lost() {
    let place = Place::file();
    let script = "trap 'echo yes > asked; exit 0' TERM; echo up > up; \
                  while :; do sleep 0.02; done 2> /dev/null";
    let job = Job::start(&mut place.script("a", script));
    place.content("up");
    fs::remove_file(place.path("locks/a.lock")).expect("it is there");
    let done = job.finish();
    assert_eq!(done.code, 79, "{done:?}");
    assert_eq!(place.content("asked"), "yes");
}

#[test]
fn status_shows_holder_and_waiters() {
    let place = Place::file();
    let holder = Job::start(&mut place.script("a", "echo up > up; exec sleep 300"));
    place.content("up");
    let waiter = Job::start(&mut place.script("a", "exit 0"));
    let status = eventually("somebody waits", || {
        let status = place.status("a");
        (status["queue_length"] == json!(1)).then_some(status)
    });
    assert_eq!(status["holders"][0]["pid"], holder.pid());
    assert_eq!(status["holders"][0]["left_ms"], json!(null));
    assert_eq!(status["waiters"][0]["pid"], waiter.pid());
    let breaking = finish(&mut place.lockctl("release a --token 5 --force"));
    breaking.failed_with(64, "not supported");
}

#[test]
fn wait_that_ends_leaves_no_waiter() {
    let place = Place::file();
    let holder = Job::start(&mut place.script("a", "echo up > up; exec sleep 300"));
    place.content("up");
    finish(&mut place.script("--wait 300ms a", "exit 0")).failed_with(75, "was not free");
    assert_eq!(place.status("a")["queue_length"], 0);
    drop(holder);
}
