//! The command's process group: what is promised about it, is promised about all of it.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Sends `signal` to every process of the group. Whoever has gone, or may not be signalled by this
/// user, is seen by [`is_gone`].
pub(crate) fn signal(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

/// Asks every process of the group to end, the stopped ones too.
pub(crate) fn terminate(group: Pid) {
    signal(group, Signal::SIGTERM);
    signal(group, Signal::SIGCONT);
}

/// Whether nothing of the group runs any more. Dead processes that nobody has waited for are gone.
pub(crate) fn is_gone(group: Pid) -> bool {
    match killpg(group, None) {
        Err(Errno::ESRCH) => true,
        // Some process answers to the group's number: it may be dead and not yet waited for.
        _ => !lives_in_proc(group),
    }
}

/// Whether `/proc` shows a process of the group that is not dead. When in doubt it lives.
fn lives_in_proc(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    let group = group.to_string();
    processes
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .filter_map(|entry| fs::read(entry.path().join("stat")).ok())
        .any(|stat| is_alive_in(&String::from_utf8_lossy(&stat), &group))
}

/// Reads one line of `/proc/PID/stat`: `pid (name) state parent group …`.
fn is_alive_in(stat: &str, group: &str) -> bool {
    // The name may itself contain blanks and brackets.
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = rest.split(' ');
    let state = fields.next();
    let of_the_group = fields.nth(1) == Some(group);
    of_the_group && !matches!(state, Some("Z" | "X" | "x"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_name() {
        assert!(is_alive_in("7 (a) b (c)) S 1 42 42 0 -1", "42"));
        assert!(!is_alive_in("7 (sh) Z 1 42 42 0 -1", "42"));
        assert!(!is_alive_in("7 (42) S 42 41 42 0 -1", "42"));
        assert!(!is_alive_in("", "42"));
    }

    #[test]
    fn own_group_lives() {
        assert!(!is_gone(nix::unistd::getpgrp()));
    }
}
