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

/// Shows the group of a shell, and the one in the foreground of its terminal.
const GROUPS: &str = "cut -d \" \" -f 5,8 /proc/$$/stat";

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_lockctl")
}

#[test]
fn interactive_command_is_the_foreground_job_and_gives_the_terminal_back() {
    let place = Place::redis();
    let said = at_a_terminal(
        &place,
        &format!(
            "{} run a -- sh -c 'echo inside; {GROUPS}'; echo after; {GROUPS}",
            binary()
        ),
    );
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words.len(), 6, "{said}");
    assert_eq!((words[0], words[3]), ("inside", "after"), "{said}");
    assert_eq!(
        words[1], words[2],
        "the command is in the foreground: {said}"
    );
    assert_eq!(words[4], words[5], "the shell is in the foreground: {said}");
    assert_ne!(words[1], words[4], "two jobs: {said}");
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
fn lockctl_is_not_stopped_by_what_it_says_at_a_terminal_that_it_has_lent() {
    let place = Place::redis();
    let lockctl = binary();
    let script = format!("{lockctl} release a --token $LOCK_TOKEN --force; sleep 300");
    let said = at_a_terminal(
        &place,
        &format!(
            "stty tostop; {lockctl} run --on-lost kill a -- sh -c '{script}'; echo code $?; exit"
        ),
    );
    assert!(said.contains("the command is stopped"), "{said}");
    assert!(said.ends_with("code 79\n"), "{said}");
}

#[test]
fn command_that_is_suspended_gives_the_shell_its_terminal() {
    let place = Place::redis();
    let lockctl = binary();
    // A shell with job control sees lockctl stop when its command does, and both go on with `fg`.
    let job = format!("{lockctl} run a -- sh -c 'kill -STOP $$; echo groups; {GROUPS}'");
    let job = job.replace('\'', "'\\''");
    let said = at_a_terminal(
        &place,
        &format!("bash -mc '{job}; echo between; fg > fg.log; echo code $?'"),
    );
    let lines: Vec<_> = said.lines().collect();
    let line = |wanted: &str| lines.iter().position(|line| *line == wanted);
    let (between, groups, code) = (line("between"), line("groups"), line("code 0"));
    assert!(
        between.is_some() && between < groups && groups < code,
        "{said}"
    );
    let groups = groups.and_then(|at| lines[at + 1].split_once(' '));
    let (own, foreground) = groups.expect("two groups");
    assert_eq!(own, foreground, "{said}");
}

#[test]
fn terminal_stays_with_the_pager_that_reads_what_the_command_says() {
    let place = Place::redis();
    // The pager looks while the command runs.
    let command = "echo up > up; while ! [ -e seen ]; do sleep 0.02; done";
    let pager = format!("while ! [ -s up ]; do sleep 0.02; done; {GROUPS}; echo > seen");
    let said = at_a_terminal(
        &place,
        &format!("{} run a -- sh -c '{command}' | sh -c '{pager}'", binary()),
    );
    let (own, foreground) = said.trim().split_once(' ').expect("two groups");
    assert_eq!(own, foreground, "{said}");
}

#[test]
fn command_gets_the_terminal_when_it_wants_it_though_its_input_is_none() {
    let place = Place::redis();
    // Whoever sets a terminal from the background is stopped.
    let command = format!("stty echo < /dev/tty; {GROUPS}");
    let said = at_a_terminal(
        &place,
        &format!(
            "{} run a -- sh -c '{command}' < /dev/null; echo code $?; {GROUPS}",
            binary()
        ),
    );
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words.len(), 6, "{said}");
    assert_eq!(words[0], words[1], "the command has it: {said}");
    assert_eq!((words[2], words[3]), ("code", "0"), "{said}");
    assert_eq!(words[4], words[5], "the shell has it again: {said}");
}
