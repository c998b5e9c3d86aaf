//! The command's process group, and what has left it: what is promised, is promised about all of it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::process::{self, Process};

/// The command's process group, and its strays.
///
/// A program such as `timeout`, or a lockctl within the command, puts what it starts into a group of its
/// own. Such strays are found through their parents, and these die of the very signal that is to end
/// all: so they are looked for before one is sent, and remembered. What has no parent in the command any
/// more, as a daemon has not, is not found.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
    strays: Vec<Process>,
}

impl Group {
    pub(crate) const fn new(leader: Pid) -> Self {
        Self {
            leader,
            strays: Vec::new(),
        }
    }

    /// The leader of the group, and its number.
    pub(crate) const fn leader(&self) -> Pid {
        self.leader
    }

    /// Sends `signal` to every process of the group, and to nobody else: who stands in between passes it
    /// on to his own. Whoever has gone, or may not be signalled by this user, is seen by
    /// [`is_gone`](Self::is_gone).
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.follow();
        let _ = killpg(self.leader, signal);
    }

    /// Asks every process to end, the stopped ones too.
    pub(crate) fn terminate(&mut self) {
        self.follow();
        self.send(Signal::SIGTERM);
        self.send(Signal::SIGCONT);
    }

    /// Ends every process.
    pub(crate) fn kill(&mut self) {
        self.follow();
        self.send(Signal::SIGKILL);
    }

    /// Whether nothing of it runs any more. Dead processes that nobody has waited for are gone.
    pub(crate) fn is_gone(&self) -> bool {
        let group_is_gone = match killpg(self.leader, None) {
            Err(Errno::ESRCH) => true,
            // Some process answers to the group's number: it may be dead and not yet waited for. When in
            // doubt it lives.
            _ => process::all().is_ok_and(|all| !all.iter().any(|process| self.has(process))),
        };
        group_is_gone && !self.strays.iter().any(Process::runs)
    }

    fn has(&self, process: &Process) -> bool {
        process.group == self.leader && process.alive
    }

    /// Remembers who has a parent in the group, or among the strays, and is in neither.
    fn follow(&mut self) {
        let all = process::all().unwrap_or_default();
        self.strays.retain(Process::runs);
        follow(self.leader, &mut self.strays, &all);
    }

    fn send(&self, signal: Signal) {
        let _ = killpg(self.leader, signal);
        for stray in self.strays.iter().filter(|stray| stray.runs()) {
            let _ = kill(stray.pid, signal);
        }
    }
}

fn follow(leader: Pid, strays: &mut Vec<Process>, all: &[Process]) {
    let mut family: Vec<Pid> = strays.iter().map(|stray| stray.pid).collect();
    family.extend(all.iter().filter(|p| p.group == leader).map(|p| p.pid));
    let mut next = 0;
    // Grows while it is walked through: a stray's children are strays, too.
    while let Some(&parent) = family.get(next) {
        next += 1;
        for child in all.iter().filter(|p| p.parent == parent && p.alive) {
            if !family.contains(&child.pid) {
                family.push(child.pid);
                strays.push(*child);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, group: i32) -> Process {
        Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(parent),
            group: Pid::from_raw(group),
            alive: true,
            started: 1,
        }
    }

    #[test]
    fn own_group_lives() {
        assert!(!Group::new(nix::unistd::getpgrp()).is_gone());
    }

    #[test]
    fn strays_are_found_through_their_parents() {
        // A command, its child, what that has started in another group, and a child of this; and others.
        let all = [
            process(40, 1, 40),
            process(41, 40, 40),
            process(42, 41, 42),
            process(43, 42, 42),
            process(50, 1, 50),
            process(51, 50, 50),
        ];
        let pids = |strays: &[Process]| strays.iter().map(|p| p.pid.as_raw()).collect::<Vec<_>>();
        let mut strays = Vec::new();
        follow(Pid::from_raw(40), &mut strays, &all);
        assert_eq!(pids(&strays), [42, 43]);
        // The group is dead, and a stray has had another child.
        let later = [all[2], all[3], all[4], process(44, 43, 44)];
        follow(Pid::from_raw(40), &mut strays, &later);
        assert_eq!(pids(&strays), [42, 43, 44]);
    }
}
