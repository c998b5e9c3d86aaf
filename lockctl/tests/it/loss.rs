//! The lock is lost while the command runs.

use std::fs;
use std::io::Write;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use crate::fixture::{
    Job, OBEDIENT, Place, SHORT, STUBBORN, eventually, finish, is_alive, is_gone_within,
    is_written, timed,
};

#[test]
fn command_that_does_not_listen_is_killed_before_its_validity_ends() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), STUBBORN));
    let pid = place.pid("pid");
    place.kill_server();
    let ((), took) = timed(|| eventually("it is dead", || (!is_alive(pid)).then_some(())));
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    assert!(is_written(&place.path("asked")));
    assert_eq!(job.finish().code, 79);
}

#[test]
fn command_is_ended_although_nobody_reads_what_is_said_about_it() {
    let place = Place::redis();
    let (unread, mut full) = std::io::pipe().expect("a pipe");
    let room = fcntl(&full, FcntlArg::F_SETPIPE_SZ(4096)).expect("resized");
    full.write_all(&vec![b'x'; room.try_into().expect("a size")])
        .expect("that much fits");
    let words = "--ttl 60s --kill-after 300ms a";
    let job = Job::start_with(&mut place.script(words, STUBBORN), Some(full.into()));
    let (pid, token) = (place.pid("pid"), place.number("token"));
    let broken = finish(&mut place.lockctl(&format!("release a --token {token} --force")));
    assert_eq!(broken.code, 0, "{broken:?}");
    is_gone_within(Duration::from_secs(5), pid);
    assert_eq!(job.finish().code, 79);
    assert_eq!(place.content("asked"), "yes");
    drop(unread);
}

#[test]
fn lockctl_ends_soon_after_a_command_whose_lock_could_not_be_renewed() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), OBEDIENT));
    let pid = place.pid("pid");
    place.kill_server();
    eventually("it is dead", || (!is_alive(pid)).then_some(()));
    let (done, took) = timed(|| job.finish());
    done.failed_with(79, "could not be renewed in time");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn on_lost_kill_does_not_ask() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} --on-lost kill a"), OBEDIENT));
    let pid = place.pid("pid");
    place.kill_server();
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
    place.kill_server();
    // It is continued, so that it can do as it is asked.
    assert_eq!(place.content("asked"), "yes");
    assert_eq!(job.finish().code, 79);
}
