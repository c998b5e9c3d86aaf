//! The lock is lost while the command runs.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::fixture::{Job, Place, eventually, finish, is_alive, is_written, timed};

const SHORT: &str = "--ttl 2s --kill-after 500ms";

/// Says who it is, ends itself on SIGTERM and leaves a note.
const OBEDIENT: &str = "exec 2> /dev/null; trap 'echo yes > asked; exit 0' TERM; echo $LOCK_TOKEN > token; \
                        echo $$ > pid; while :; do sleep 0.02; done";
/// Has to be killed.
const STUBBORN: &str = "exec 2> /dev/null; trap 'echo yes > asked' TERM; echo $LOCK_TOKEN > token; echo $$ > pid; \
                        while :; do sleep 0.02; done";

#[test]
fn command_is_dead_before_another_has_the_lock_while_lockctl_is_stopped() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), STUBBORN));
    let (pid, token) = (place.pid("pid"), place.number("token"));
    job.signal(Signal::SIGSTOP);
    // The next holder looks at the first thing it can do whether the last one's command still runs.
    // Nobody has waited for it yet: whoever would is stopped.
    let next = format!(
        "grep -qs '^State:.[^ZX]' /proc/{pid}/status && echo alive > seen || echo dead > seen; \
         echo $LOCK_TOKEN > next"
    );
    assert_eq!(finish(&mut place.script("--wait 60s a", &next)).code, 0);
    assert_eq!(place.content("seen"), "dead");
    assert!(place.number("next") > token);
    assert_eq!(place.content("asked"), "yes", "SIGTERM came before SIGKILL");
    job.signal(Signal::SIGCONT);
    let done = job.finish();
    assert_eq!(done.code, 79, "{done:?}");
}

#[test]
fn command_is_asked_to_end_before_its_validity_does_when_redis_is_killed() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), OBEDIENT));
    let pid = place.pid("pid");
    place.server().kill();
    let (asked, took) = timed(|| place.content("asked"));
    assert_eq!(asked, "yes");
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    let done = job.finish();
    assert_eq!(done.code, 79, "{done:?}");
    assert!(done.stderr.contains("could not be renewed"), "{done:?}");
    assert!(!is_alive(pid));
}

#[test]
fn command_that_does_not_listen_is_killed_before_its_validity_ends() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), STUBBORN));
    let pid = place.pid("pid");
    place.server().kill();
    let ((), took) = timed(|| eventually("it is dead", || (!is_alive(pid)).then_some(())));
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    assert!(is_written(&place.path("asked")));
    assert_eq!(job.finish().code, 79);
}

#[test]
fn broken_lock_stops_its_command_and_the_next_token_is_larger() {
    let place = Place::redis();
    let job = Job::start(&mut place.script("a", OBEDIENT));
    let token = place.number("token");
    let wrong = finish(&mut place.lockctl(&format!("release a --token {} --force", token + 1)));
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let unforced = finish(&mut place.lockctl(&format!("release a --token {token}")));
    unforced.failed_with(64, "--force");
    let broken = finish(&mut place.lockctl(&format!("release a --token {token} --force")));
    assert_eq!(broken.code, 0, "{broken:?}");
    job.finish().failed_with(79, "broken by an operator");
    assert_eq!(place.content("asked"), "yes");
    let next = finish(&mut place.script("a", "echo $LOCK_TOKEN"));
    assert!(next.stdout.trim().parse::<u64>().expect("a token") > token);
}

#[test]
fn on_lost_kill_does_not_ask() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} --on-lost kill a"), OBEDIENT));
    let pid = place.pid("pid");
    place.server().kill();
    assert_eq!(job.finish().code, 79);
    assert!(!is_alive(pid));
    assert!(!place.path("asked").exists());
}

#[test]
fn on_lost_ignore_lets_the_command_run_on() {
    let place = Place::redis();
    let script = "echo $LOCK_TOKEN > token; while ! [ -e go ]; do sleep 0.02; done; exit 7";
    let job = Job::start(&mut place.script("--on-lost ignore a", script));
    let token = place.number("token");
    let broken = finish(&mut place.lockctl(&format!("release a --token {token} --force")));
    assert_eq!(broken.code, 0);
    // The lock is the next one's, and the command runs.
    assert_eq!(finish(&mut place.script("a", "exit 0")).code, 0);
    fs::write(place.path("go"), "").expect("written");
    job.finish().failed_with(7, "the command runs on");
}

#[test]
fn stopped_command_is_ended_like_any_other() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), OBEDIENT));
    let pid = place.pid("pid");
    crate::fixture::signal_to(pid, Signal::SIGSTOP);
    place.server().kill();
    // It is continued, so that it can do as it is asked.
    assert_eq!(place.content("asked"), "yes");
    assert_eq!(job.finish().code, 79);
}

#[test]
fn status_shows_holder_and_queue() {
    let place = Place::redis();
    let holder = Job::start(&mut place.script("a", "echo up > up; exec sleep 300"));
    place.content("up");
    let waiter = Job::start(&mut place.script("a", "exit 0"));
    let status = eventually("somebody waits", || {
        let status = place.status("a");
        (status["queue_length"] == json!(1)).then_some(status)
    });
    assert_eq!(status["name"], "a");
    assert_eq!(status["holders"][0]["pid"], holder.pid());
    assert_eq!(status["holders"][0]["owner"], "sh");
    assert_eq!(status["waiters"][0]["pid"], waiter.pid());
    assert_eq!(status["last_token"], status["holders"][0]["token"]);
    let text = finish(&mut place.lockctl("status a"));
    assert!(text.stdout.starts_with("a: held, 1 waiting"), "{text:?}");
    let list = finish(&mut place.lockctl("--format json list --prefix a"));
    let list: serde_json::Value = serde_json::from_str(&list.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let none = finish(&mut place.lockctl("list --prefix b"));
    assert_eq!(none.stdout.lines().count(), 1, "only the heading: {none:?}");
}
