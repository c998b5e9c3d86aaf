//! lockctl, its guardian or both are killed: no command is left that nobody guards.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::fixture::{
    FAMILY, Job, Place, SHORT, STUBBORN, children, eventually, is_alive, running, signal_to, timed,
    within,
};

#[test]
fn command_dies_with_its_guardian() {
    let place = Place::redis();
    let job = Job::start(&mut place.script("a", FAMILY));
    let (inner, outer) = (place.pid("inner"), place.pid("outer"));
    signal_to(job.guardian(), Signal::SIGKILL);
    job.finish().failed_with(137, "nobody guards");
    assert!(!is_alive(inner) && !is_alive(outer));
    assert_eq!(place.status("a")["holders"], json!([]));
}

#[test]
fn guardian_is_out_of_reach_of_what_ends_a_session() {
    let place = Place::redis();
    let job = Job::start(&mut place.script("a", "echo up > up; exec sleep 300"));
    place.content("up");
    let guardian = job.guardian();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGTSTP,
    ] {
        signal_to(guardian, signal);
    }
    job.signal(Signal::SIGTERM);
    let done = job.finish();
    assert_eq!((done.code, done.stderr.as_str()), (143, ""));
    assert!(!is_alive(guardian));
}

#[test]
fn stopped_guardian_keeps_nobody_from_the_end() {
    let place = Place::redis();
    let script = "echo up > up; while ! [ -e go ]; do sleep 0.02; done; exit 7";
    let job = Job::start(&mut place.script("a", script));
    place.content("up");
    signal_to(job.guardian(), Signal::SIGSTOP);
    std::fs::write(place.path("go"), "").expect("written");
    assert_eq!(job.finish().code, 7);
}

#[test]
fn stopped_guardian_does_not_keep_a_command_alive_past_the_lock() {
    let place = Place::redis();
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), STUBBORN));
    let pid = place.pid("pid");
    signal_to(job.guardian(), Signal::SIGSTOP);
    place.kill_server();
    let ((), took) = timed(|| eventually("it is dead", || (!is_alive(pid)).then_some(())));
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    assert_eq!(job.finish().code, 79);
}

/// Whoever is killed at whatever moment of its start: no command stays behind.
#[test]
fn no_moment_of_the_start_is_unguarded() {
    let place = Place::redis();
    // Its own argument makes the command known among all processes of the machine.
    let mark = format!("31{}", std::process::id());
    let full_start = start_takes(&place, &mark);
    const ROUNDS: u32 = 60;
    for round in 0..ROUNDS {
        let command = format!("run --ttl 1s --kill-after 100ms a{round} -- sleep {mark}");
        let job = Job::start(&mut place.lockctl(&command));
        // Not a wait for something: the moment to strike, another one each time.
        std::thread::sleep(full_start * round / ROUNDS);
        let victim = match round % 2 {
            0 => job.pid(),
            _ => guardian_or(&job),
        };
        signal_to(victim, Signal::SIGKILL);
        within(Duration::from_secs(2), "no command is left", || {
            let ours = job.pid();
            let gone = running(&mark).into_iter().all(|pid| pid == ours);
            gone.then_some(())
        });
        job.finish();
        assert!(running(&mark).is_empty());
    }
}

/// How long it takes from nothing to a command that runs.
fn start_takes(place: &Place, mark: &str) -> Duration {
    let clock = distlock::Clock::system();
    let began = clock.now();
    let job = Job::start(&mut place.lockctl(&format!("run first -- sleep {mark}")));
    eventually("the command runs", || {
        let of_job = children(job.pid());
        let is_sleep = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\0")
        };
        of_job.iter().any(is_sleep).then_some(())
    });
    let took = clock.now().saturating_since(began);
    job.signal(Signal::SIGTERM);
    job.finish();
    took * 3 / 2
}

/// The guardian if there is one already, else lockctl.
fn guardian_or(job: &Job) -> u32 {
    let is_guardian = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("__guardian")
    };
    let guardian = children(job.pid()).into_iter().find(is_guardian);
    guardian.unwrap_or(job.pid())
}
