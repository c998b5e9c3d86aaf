//! What the command puts into groups of its own, as `timeout` does, ends with it all the same.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fixture::{
    Job, Place, SHORT, eventually, finish, is_alive, is_gone_within, running, signal_to, timed,
};

/// Has left the group, and does not listen to SIGTERM.
const STRAY: &str =
    "timeout 300 sh -c 'trap \"\" TERM; echo $$ > stray; while :; do sleep 0.05; done'; exit 3";

#[test]
fn stray_ends_before_the_lock_is_given_back_when_lockctl_is_told_to_end() {
    let place = Place::file();
    let job = Job::start(&mut place.script("--kill-after 300ms a", STRAY));
    let stray = place.pid("stray");
    job.signal(Signal::SIGTERM);
    let done = job.finish();
    assert_eq!((done.code, done.stderr.as_str()), (143, ""));
    assert!(!is_alive(stray));
}

#[test]
fn stray_dies_with_lockctl() {
    let place = Place::file();
    let job = Job::start(&mut place.script("a", STRAY));
    let stray = place.pid("stray");
    job.signal(Signal::SIGKILL);
    // The guardian holds the lock until the stray is gone, too.
    let next = format!(
        "grep -qs '^State:.[^ZX]' /proc/{stray}/status && echo alive > seen || echo dead > seen"
    );
    let done = finish(&mut place.script("--wait 30s a", &next));
    assert_eq!((done.code, place.content("seen").as_str()), (0, "dead"));
}

#[test]
fn stray_dies_with_the_guardian() {
    let place = Place::file();
    let job = Job::start(&mut place.script("a", STRAY));
    let stray = place.pid("stray");
    signal_to(job.guardian(), Signal::SIGKILL);
    job.finish().failed_with(137, "nobody guards");
    assert!(!is_alive(stray));
}

#[test]
fn stray_is_dead_before_the_validity_ends_when_the_lock_cannot_be_renewed() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), STRAY));
    let stray = place.pid("stray");
    place.kill_server();
    let ((), took) = timed(|| eventually("it is dead", || (!is_alive(stray)).then_some(())));
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    assert_eq!(job.finish().code, 79);
}

#[test]
fn stray_is_dead_before_the_validity_ends_when_nobody_is_asked() {
    let place = Place::redis();
    let words = format!("{SHORT} --on-lost kill a");
    let job = Job::start(&mut place.script(&words, STRAY));
    let stray = place.pid("stray");
    place.kill_server();
    let ((), took) = timed(|| eventually("it is dead", || (!is_alive(stray)).then_some(())));
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    assert_eq!(job.finish().code, 79);
}

#[test]
fn stray_that_listens_has_its_grace_although_the_group_is_gone() {
    let place = Place::redis();
    let script = "timeout 300 sh -c 'trap \"sleep 0.2; echo yes > asked; exit\" TERM; echo $$ > stray; \
                  while :; do sleep 0.02; done'; exit 3";
    let job = Job::start(&mut place.script("--ttl 4s --kill-after 1s a", script));
    let stray = place.pid("stray");
    place.kill_server();
    assert_eq!(job.finish().code, 79);
    assert!(!is_alive(stray));
    assert_eq!(place.content("asked"), "yes");
}

#[test]
fn leader_that_has_left_its_group_is_ended_like_any_other() {
    let place = Place::file();
    place.compile("truant");
    let start = |script: &str| {
        let job = Job::start(&mut place.script("a", script));
        let pid = place.pid("pid");
        fs::remove_file(place.path("pid")).expect("it is there");
        (job, pid)
    };
    let (job, pid) = start("exec ./truant");
    job.signal(Signal::SIGTERM);
    assert_eq!(job.finish().code, 143);
    assert!(!is_alive(pid));
    let (job, pid) = start("trap '' TERM; exec ./truant");
    job.signal(Signal::SIGKILL);
    is_gone_within(Duration::from_secs(1), pid);
    let (job, pid) = start("trap '' TERM; exec ./truant");
    signal_to(job.guardian(), Signal::SIGKILL);
    job.finish().failed_with(137, "nobody guards");
    assert!(!is_alive(pid));
}

#[test]
fn stray_that_starts_others_all_the_time_is_ended_with_all_of_them() {
    let place = Place::file();
    // Each has its number for a moment only, and soon has no parent.
    let hop = format!("sh {}", place.path("hop.sh").display());
    fs::write(
        place.path("hop.sh"),
        format!("echo >> hops; sleep 0.05; {hop} &\n"),
    )
    .expect("written");
    let script = format!("timeout 300 sh -c '{hop} & sleep 300'; exit 3");
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let job = Job::start(&mut place.script("--kill-after 100ms a", &script));
        let hops = || fs::read(place.path("hops")).map_or(0, |hops| hops.len());
        eventually("it has begun", || (hops() > 3).then_some(()));
        job.signal(end);
        job.finish();
        let next = finish(&mut place.script("--wait 30s a", "exit 0"));
        assert_eq!(next.code, 0, "{next:?}");
        fs::remove_file(place.path("hops")).expect("it is there");
        let left = running(&hop.replace(' ', "\0"));
        assert_eq!(left, [0; 0], "after {end}");
    }
}

#[test]
fn command_of_a_lockctl_within_the_command_dies_with_the_outer_one() {
    let place = Place::file();
    let inner = format!(
        "{} run inner -- sh -c 'echo $$ > pid; exec sleep 300'; exit 3",
        env!("CARGO_BIN_EXE_lockctl")
    );
    let job = Job::start(&mut place.script("outer", &inner));
    let pid = place.pid("pid");
    job.signal(Signal::SIGKILL);
    is_gone_within(Duration::from_secs(1), pid);
    for name in ["outer", "inner"] {
        let free = finish(&mut place.script(&format!("--wait 30s {name}"), "exit 0"));
        assert_eq!(free.code, 0, "{free:?}");
    }
}

#[test]
fn daemon_that_detached_itself_is_left_alone() {
    let place = Place::file();
    let script = "setsid sh -c 'echo $$ > daemon; exec sleep 300' & while ! [ -s daemon ]; do sleep 0.01; done";
    let done = finish(&mut place.script("a", script));
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let daemon = place.pid("daemon");
    assert!(is_alive(daemon));
    signal_to(daemon, Signal::SIGKILL);
}
