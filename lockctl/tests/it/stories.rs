//! What has to hold on every backend with a server, told on each of them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::{
    FAMILY, Job, OBEDIENT, Place, SHORT, STUBBORN, eventually, finish, is_alive, is_gone_within,
    timed, within,
};

/// One test for each story on each backend.
macro_rules! stories {
    ($($story:ident)*) => {
        mod redis {
            $(#[test] fn $story() {
                super::$story(&crate::fixture::Place::redis());
            })*
        }
        #[cfg(feature = "etcd")]
        mod etcd {
            $(#[test] fn $story() {
                crate::fixture::Place::etcd().iter().for_each(super::$story);
            })*
        }
        mod zookeeper {
            $(#[test] fn $story() {
                let place = crate::fixture::Place::zookeeper("?session_timeout=2s");
                place.iter().for_each(super::$story);
            })*
        }
    };
}

stories! {
    command_runs_under_a_lock_that_is_free_afterwards
    wait_that_ends_in_vain_leaves_nothing_in_the_queue
    lock_is_kept_alive_for_as_long_as_the_command_runs
    command_dies_with_lockctl_and_the_lock_is_free_after_its_ttl
    command_is_dead_before_another_has_the_lock_while_lockctl_is_stopped
    command_is_asked_to_end_before_its_validity_does_when_the_server_is_killed
    broken_lock_stops_its_command_and_the_next_token_is_larger
    holder_and_queue_are_shown
    view_shows_the_holder_follows_changes_and_ends_with_q
    load_is_exact_across_processes
    cases_pass_beside_the_locks_of_others
}

fn command_runs_under_a_lock_that_is_free_afterwards(place: &Place) {
    let words = format!("{SHORT} a");
    let done = finish(&mut place.script(&words, "echo $LOCK_NAME $LOCK_TOKEN $LOCK_URL; exit 7"));
    assert_eq!((done.code, done.stderr.as_str()), (7, ""));
    let words: Vec<_> = done.stdout.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("a", place.url.as_str()));
    assert!(words[1].parse::<u64>().expect("a token") > 0);
    let again = finish(&mut place.script(&format!("{SHORT} --try a"), "exit 0"));
    assert_eq!((again.code, again.stderr.as_str()), (0, ""));
    assert_eq!(place.status("a")["holders"], json!([]));
}

fn wait_that_ends_in_vain_leaves_nothing_in_the_queue(place: &Place) {
    let holder =
        Job::start(&mut place.script(&format!("{SHORT} a"), "echo up > up; exec sleep 300"));
    place.content("up");
    let words = format!("{SHORT} --wait 300ms a");
    finish(&mut place.script(&words, "exit 0")).failed_with(75, "was not free within 300ms");
    let words = format!("{SHORT} --try a");
    finish(&mut place.script(&words, "exit 0")).failed_with(75, "is not free");
    let status = place.status("a");
    assert_eq!(status["queue_length"], 0);
    assert_eq!(status["holders"][0]["pid"], holder.pid());
}

fn lock_is_kept_alive_for_as_long_as_the_command_runs(place: &Place) {
    let script = "echo $LOCK_TOKEN > token; while ! [ -e go ]; do sleep 0.02; done";
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), script));
    let token = place.number("token");
    let clock = distlock::Clock::system();
    let two_ttls = clock.now() + Duration::from_secs(4);
    eventually("two TTLs have passed", || {
        assert_eq!(place.status("a")["holders"][0]["token"], token);
        (clock.now() >= two_ttls).then_some(())
    });
    fs::write(place.path("go"), "").expect("written");
    let done = job.finish();
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
}

fn command_dies_with_lockctl_and_the_lock_is_free_after_its_ttl(place: &Place) {
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), FAMILY));
    let (inner, outer) = (place.pid("inner"), place.pid("outer"));
    let guardian = job.guardian();
    job.signal(Signal::SIGKILL);
    is_gone_within(Duration::from_secs(1), outer);
    is_gone_within(Duration::from_secs(1), inner);
    is_gone_within(Duration::from_secs(1), guardian);
    within(Duration::from_secs(3), "the lock is free", || {
        (place.status("a")["holders"] == json!([])).then_some(())
    });
}

fn command_is_dead_before_another_has_the_lock_while_lockctl_is_stopped(place: &Place) {
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), STUBBORN));
    let (pid, token) = (place.pid("pid"), place.number("token"));
    job.signal(Signal::SIGSTOP);
    // The next holder looks at the first thing it can do whether the last one's command still runs.
    // Nobody has waited for it yet: whoever would is stopped.
    let next = format!(
        "grep -qs '^State:.[^ZX]' /proc/{pid}/status && echo alive > seen || echo dead > seen; \
         echo $LOCK_TOKEN > next"
    );
    assert_eq!(
        finish(&mut place.script(&format!("{SHORT} --wait 60s a"), &next)).code,
        0
    );
    assert_eq!(place.content("seen"), "dead");
    assert!(place.number("next") > token);
    assert_eq!(place.content("asked"), "yes", "SIGTERM came before SIGKILL");
    job.signal(Signal::SIGCONT);
    let done = job.finish();
    assert_eq!(done.code, 79, "{done:?}");
}

fn command_is_asked_to_end_before_its_validity_does_when_the_server_is_killed(place: &Place) {
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), OBEDIENT));
    let pid = place.pid("pid");
    place.kill_server();
    let (asked, took) = timed(|| place.content("asked"));
    assert_eq!(asked, "yes");
    assert!(took < Duration::from_secs(2), "the TTL was over: {took:?}");
    let done = job.finish();
    assert_eq!(done.code, 79, "{done:?}");
    assert!(done.stderr.contains("could not be renewed"), "{done:?}");
    assert!(!is_alive(pid));
}

fn broken_lock_stops_its_command_and_the_next_token_is_larger(place: &Place) {
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), OBEDIENT));
    let token = place.number("token");
    let wrong = finish(&mut place.lockctl(&format!("release a --token {} --force", token + 1)));
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let unforced = finish(&mut place.lockctl(&format!("release a --token {token}")));
    unforced.failed_with(64, "--force");
    let broken = finish(&mut place.lockctl(&format!("release a --token {token} --force")));
    assert_eq!(broken.code, 0, "{broken:?}");
    job.finish().failed_with(79, "broken by an operator");
    assert_eq!(place.content("asked"), "yes");
    let next = finish(&mut place.script(&format!("{SHORT} --wait 60s a"), "echo $LOCK_TOKEN"));
    assert!(next.stdout.trim().parse::<u64>().expect("a token") > token);
}

fn holder_and_queue_are_shown(place: &Place) {
    let holder =
        Job::start(&mut place.script(&format!("{SHORT} a"), "echo up > up; exec sleep 300"));
    place.content("up");
    let waiter = Job::start(&mut place.script(&format!("{SHORT} a"), "exit 0"));
    let status = eventually("somebody waits", || {
        let status = place.status("a");
        (status["queue_length"] == json!(1)).then_some(status)
    });
    assert_eq!(status["name"], "a");
    assert_eq!(status["holders"][0]["pid"], holder.pid());
    assert_eq!(status["holders"][0]["owner"], "sh");
    assert_eq!(status["waiters"][0]["pid"], waiter.pid());
    assert_eq!(status["last_token"], status["holders"][0]["token"]);
    eventually("the ages grow", || {
        let status = place.status("a");
        let of = |who: &str, age: &str| status[who][0][age].as_u64();
        (of("holders", "held_ms") > Some(50) && of("waiters", "waited_ms") > Some(50)).then_some(())
    });
    let text = finish(&mut place.lockctl("status a"));
    assert!(text.stdout.starts_with("a: held, 1 waiting"), "{text:?}");
    let list = finish(&mut place.lockctl("--format json list --prefix a"));
    let list: Value = serde_json::from_str(&list.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let none = finish(&mut place.lockctl("list --prefix b"));
    assert_eq!(none.stdout.lines().count(), 1, "only the heading: {none:?}");
}

fn view_shows_the_holder_follows_changes_and_ends_with_q(place: &Place) {
    let holder =
        Job::start(&mut place.script(&format!("{SHORT} nightly"), "echo up > up; exec sleep 300"));
    place.content("up");
    // A terminal that nobody looks at has no size.
    let line = format!(
        "stty rows 24 cols 80; exec {} watch --every 50ms",
        env!("CARGO_BIN_EXE_lockctl")
    );
    let mut watch = Job::start(
        Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--flush",
                "--command",
                &line,
                "screen",
            ])
            .env("LOCK_URL", &place.url)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .current_dir(&place.dir)
            .stdin(Stdio::piped()),
    );
    let screen = || fs::read(place.path("screen")).unwrap_or_default();
    let shows = |text: &str| {
        eventually(&format!("the screen shows {text}"), || {
            String::from_utf8_lossy(&screen())
                .contains(text)
                .then_some(())
        });
    };
    shows("nightly");
    shows("1 in use");
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.finish().code, 143);
    let _next = Job::start(&mut place.script(&format!("{SHORT} morning"), "exec sleep 300"));
    shows("morning");
    watch.type_in("q");
    assert_eq!(watch.finish().code, 0);
    // The screen is as it was before.
    shows("\u{1b}[?1049l");
}

fn load_is_exact_across_processes(place: &Place) {
    let words = "--format json bench --seconds 1 --tasks 6 --processes 2";
    let done = finish(&mut place.lockctl(words));
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    let level: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(
        (&level["exact"], &level["errors"]),
        (&true.into(), &0.into()),
        "{level}"
    );
    assert!(level["sections"].as_u64() > Some(0), "{level}");
    assert!(level["fairness"].as_f64() >= Some(1.0), "{level}");
    let left = finish(&mut place.lockctl("--format json list"));
    assert_eq!(left.stdout, "[]\n");
}

fn cases_pass_beside_the_locks_of_others(place: &Place) {
    let own = Job::start(&mut place.script(&format!("{SHORT} a"), "echo up > up; exec sleep 300"));
    place.content("up");
    for case in ["R1.01", "R1.05", "R10.10"] {
        let done =
            finish(&mut place.lockctl(&format!("--format json conformance --filter {case}")));
        let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!((done.code, &report["passed"]), (0, &1.into()), "{done:?}");
    }
    assert_eq!(place.status("a")["holders"][0]["pid"], own.pid());
    let left = finish(&mut place.lockctl("--format json list"));
    let left: Value = serde_json::from_str(&left.stdout).expect("JSON");
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
}
