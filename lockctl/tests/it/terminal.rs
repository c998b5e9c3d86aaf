//! A command at a terminal.

use std::process::Command;

use crate::fixture::{Place, finish};

/// Runs `line` in a terminal of its own, as `script` makes them.
fn at_a_terminal(place: &Place, line: &str) -> String {
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", line, "/dev/null"])
        .env("LOCK_URL", &place.url)
        .env("SHELL", "/bin/sh")
        .current_dir(&place.dir);
    let done = finish(&mut script);
    done.stdout.replace('\r', "")
}

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_lockctl")
}

#[test]
fn interactive_command_is_the_foreground_job_and_gives_the_terminal_back() {
    let place = Place::redis();
    // `+` marks the foreground group.
    let show = "ps -o stat= -p";
    let said = at_a_terminal(
        &place,
        &format!(
            "{} run a -- sh -c 'echo inside $({show} $$)'; echo after $({show} $$)",
            binary()
        ),
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].starts_with("inside") && lines[0].contains('+'),
        "{said}"
    );
    assert!(
        lines[1].starts_with("after") && lines[1].contains('+'),
        "{said}"
    );
}

#[test]
fn terminal_is_set_as_before_after_a_command_that_was_killed() {
    let place = Place::redis();
    let lockctl = binary();
    // It turns the echo off, and then takes its own lock from itself.
    let script = format!("stty -echo; {lockctl} release a --token $LOCK_TOKEN --force; sleep 300");
    let said = at_a_terminal(
        &place,
        &format!(
            "{lockctl} run --on-lost kill a -- sh -c '{script}'; echo code $?; \
             stty -a | grep -wo -e '-*echo'"
        ),
    );
    assert!(said.contains("code 79\n"), "{said}");
    assert!(said.ends_with("\necho\n"), "{said}");
}

#[test]
fn command_that_is_suspended_gives_the_shell_its_terminal() {
    let place = Place::redis();
    let lockctl = binary();
    // A shell with job control sees lockctl stop when its command does, and both go on with `fg`.
    let job = format!("{lockctl} run a -- sh -c 'kill -STOP $$; ps -o stat= -p $$'");
    let said = at_a_terminal(
        &place,
        &format!(
            "bash -mc '{}; echo between; fg > fg.log; echo code $?'",
            job.replace('\'', "'\\''")
        ),
    );
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.starts_with("lockctl:"))
        .collect();
    let between = lines.iter().position(|line| *line == "between");
    let foreground = lines.iter().position(|line| line.ends_with('+'));
    let code = lines.iter().position(|line| *line == "code 0");
    assert!(
        between.is_some() && between < foreground && foreground < code,
        "{said}"
    );
}
