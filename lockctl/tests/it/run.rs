//! What `run` does when nothing goes wrong.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fixture::{Job, Place, SHORT, eventually, finish, is_alive};

#[test]
fn command_has_the_terminals_files_and_the_lock_in_its_environment() {
    let place = Place::redis();
    let script = "cat; echo oops >&2; echo $LOCK_NAME $LOCK_TOKEN $LOCK_URL; exit 7";
    let mut job = place.script("a", script);
    let mut child = job
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"from outside\n").expect("it reads");
    drop(stdin);
    let done = child.wait_with_output().expect("it ends");
    assert_eq!(done.status.code(), Some(7));
    assert_eq!(done.stderr, b"oops\n");
    let said = String::from_utf8(done.stdout).expect("text");
    let (input, rest) = said.split_once('\n').expect("two lines");
    assert_eq!(input, "from outside");
    let words: Vec<_> = rest.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("a", place.url.as_str()));
    assert!(words[1].parse::<u64>().expect("a token") > 0);
}

#[test]
fn exit_code_is_the_commands_own_or_a_shells() {
    let place = Place::redis();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        // A real-time signal, which has no name.
        ("kill -40 $$", 168),
    ] {
        let done = finish(&mut place.script("a", script));
        assert_eq!((done.code, done.stderr.as_str()), (code, ""), "{script}");
    }
    let missing = finish(&mut place.lockctl("run a -- ./no-such-program"));
    missing.failed_with(127, "no-such-program");
    fs::write(place.path("plain"), "not a program").expect("written");
    finish(&mut place.lockctl("run a -- ./plain")).failed_with(126, "plain");
}

#[test]
fn command_inherits_no_descriptor_of_lockctl() {
    for place in [Place::redis(), Place::file()] {
        let bare = finish(std::process::Command::new("ls").arg("/proc/self/fd"));
        let held = finish(&mut place.lockctl("run a -- ls /proc/self/fd"));
        assert_eq!(held.stdout, bare.stdout);
    }
}

#[test]
fn lock_is_free_after_the_command_and_no_helper_is_left() {
    let place = Place::redis();
    let job = Job::start(&mut place.script("a", "echo up > up; exec cat fifo"));
    nix::unistd::mkfifo(&place.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    place.content("up");
    let guardian = job.guardian();
    assert_eq!(place.status("a")["holders"][0]["pid"], job.pid());
    fs::write(place.path("fifo"), "").expect("it reads");
    assert_eq!(job.finish().code, 0);
    assert!(!is_alive(guardian));
    assert_eq!(place.status("a")["holders"], serde_json::json!([]));
}

#[test]
fn what_the_command_leaves_in_its_group_ends_before_the_lock_is_free() {
    let place = Place::redis();
    let script = "(trap '' TERM; echo $$ > started; exec sleep 300) & echo $! > left";
    let done = finish(&mut place.script("--kill-after 100ms a", script));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!is_alive(place.pid("left")));
}

#[test]
fn signals_are_passed_on_and_the_lock_is_free_afterwards() {
    for (signal, code) in [
        (Signal::SIGINT, 41),
        (Signal::SIGTERM, 42),
        (Signal::SIGHUP, 43),
        (Signal::SIGQUIT, 44),
        (Signal::SIGUSR1, 45),
    ] {
        let place = Place::redis();
        let script = "exec 2> /dev/null; trap 'exit 41' INT; trap 'exit 42' TERM; trap 'exit 43' HUP; \
                      trap 'exit 44' QUIT; trap 'exit 45' USR1; echo up > up; \
                      while :; do sleep 0.02; done";
        let job = Job::start(&mut place.script("a", script));
        place.content("up");
        job.signal(signal);
        let done = job.finish();
        assert_eq!((done.code, done.stderr.as_str()), (code, ""), "{signal}");
        assert_eq!(place.status("a")["holders"], serde_json::json!([]));
    }
}

#[test]
fn signal_reaches_the_grandchildren_too() {
    let place = Place::redis();
    let script = "sh -c 'echo $$ > inner; exec sleep 300' & echo $$ > outer; wait";
    let job = Job::start(&mut place.script("a", script));
    let (inner, outer) = (place.pid("inner"), place.pid("outer"));
    job.signal(Signal::SIGTERM);
    assert_eq!(job.finish().code, 143);
    assert!(!is_alive(inner) && !is_alive(outer));
}

#[test]
fn hangup_that_was_ignored_at_the_start_stays_ignored() {
    let place = Place::redis();
    let script = "echo up > up; while ! [ -e go ]; do sleep 0.02; done; exit 7";
    let mut under_nohup = std::process::Command::new("env");
    let run = place.script("a", script);
    under_nohup
        .arg("--ignore-signal=HUP")
        // Without the word that takes such a thing back.
        .args(run.get_args().skip(1))
        .env("LOCK_URL", &place.url)
        .current_dir(&place.dir)
        .stdin(Stdio::null());
    let job = Job::start(&mut under_nohup);
    place.content("up");
    job.signal(Signal::SIGHUP);
    // A signal after it shows that the first one has been dealt with.
    job.signal(Signal::SIGUSR2);
    fs::write(place.path("go"), "").expect("written");
    // SIGUSR2 was passed on and has ended the command; SIGHUP would have, with 129.
    assert_eq!(job.finish().code, 128 + Signal::SIGUSR2 as i32);
}

#[test]
fn orphans_are_reaped_by_the_first_process_of_a_container() {
    let place = Place::redis();
    let container = ["--map-root-user", "--pid", "--fork", "--mount-proc"];
    let mut probe = std::process::Command::new("unshare");
    if finish(probe.args(container).arg("true")).code != 0 {
        println!("SKIPPED: this user may not make a PID namespace");
        return;
    }
    // The orphans have to be dead and gone, not just dead. The first dies of a signal without a name.
    let script = "for end in 40 15; do (sleep 300 & echo $! > orphan); read orphan < orphan; \
                  kill -$end $orphan; while [ -e /proc/$orphan ]; do sleep 0.02; done; done; exit 7";
    let run = place.script("a", script);
    let mut inside = std::process::Command::new("unshare");
    inside
        .args(container)
        .arg(run.get_program())
        .args(run.get_args())
        .env("LOCK_URL", &place.url)
        .current_dir(&place.dir)
        .stdin(Stdio::null());
    let done = finish(&mut inside);
    assert_eq!((done.code, done.stderr.as_str()), (7, ""));
}

#[test]
fn slow_end_of_what_is_left_does_not_look_like_a_loss() {
    let place = Place::redis();
    // All that is left has to be killed, after a grace that is longer than to the next deadline.
    let script = "(trap '' TERM; exec sleep 300) & sleep 0.1; exit 7";
    let done = finish(&mut place.script("--ttl 2s --kill-after 990ms a", script));
    assert_eq!((done.code, done.stderr.as_str()), (7, ""));
}

#[test]
fn signals_that_keep_coming_do_not_keep_the_guardian_from_its_deadlines() {
    let place = Place::redis();
    let script = "exec 2> /dev/null; trap : USR1; echo up > up; while ! [ -e go ]; do sleep 0.02; done; exit 7";
    let job = Job::start(&mut place.script(&format!("{SHORT} a"), script));
    place.content("up");
    let clock = distlock::Clock::system();
    let two_ttls = clock.now() + Duration::from_secs(4);
    eventually("two TTLs have passed", || {
        job.signal(Signal::SIGUSR1);
        (clock.now() >= two_ttls).then_some(())
    });
    fs::write(place.path("go"), "").expect("written");
    let done = job.finish();
    assert_eq!((done.code, done.stderr.as_str()), (7, ""));
}

#[test]
fn limit_on_the_size_of_files_does_not_end_lockctl_by_a_signal() {
    let place = Place::file();
    let run = place.script("a", "exit 7");
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -f 0; exec \"$@\"", "sh", "env"])
        .args(run.get_args())
        .env("LOCK_URL", &place.url)
        .current_dir(&place.dir)
        .stdin(Stdio::null());
    // Nothing can be written, neither the lock's token nor why.
    assert_eq!(finish(&mut limited).code, 69);
}
