//! The command's process group, and what has left it: what is promised, is promised about all of it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::process::{self, Process};

/// How often it is looked for more of a command that starts processes while it is being ended.
const ROUNDS: u32 = 8;

/// The command's process group, its leader, and its strays.
///
/// A program such as `timeout`, or a lockctl within the command, puts what it starts into a group of its
/// own. Such strays are found through their parents, and these die of the very signal that is to end
/// all: so they are looked for before one is sent, and remembered. Where a stray leads a group, the group
/// is remembered, too: a signal to it also reaches whom its members start at that moment. What has no
/// parent in the command any more, as a daemon has not, is not found.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
    /// The command's own group, and those that its strays lead.
    groups: Vec<Pid>,
    /// The leader, which may leave its group, and the strays.
    known: Vec<Process>,
    /// Whether somebody ran when it was last looked.
    lived: bool,
}

impl Group {
    /// The group of this leader, which has not been waited for.
    pub(crate) fn new(leader: Pid) -> Self {
        Self {
            leader,
            groups: vec![leader],
            known: process::look(leader).into_iter().collect(),
            lived: true,
        }
    }

    /// The leader of the group, and its number.
    pub(crate) const fn leader(&self) -> Pid {
        self.leader
    }

    /// Sends `signal` to every process of the group, its leader included, and to nobody else: who stands
    /// in between passes it on to his own. Whoever has gone, or may not be signalled by this user, is seen
    /// by [`is_gone`](Self::is_gone).
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.follow();
        let _ = killpg(self.leader, signal);
        let leader = self.known.iter().filter(|known| known.pid == self.leader);
        send_one_by_one(leader, &[self.leader], signal);
    }

    /// Asks every known process to end, the stopped ones too.
    pub(crate) fn terminate(&mut self) {
        self.send(Signal::SIGTERM);
        self.send(Signal::SIGCONT);
    }

    /// Ends every process: the known ones at once, then those that are found.
    pub(crate) fn kill(&mut self) {
        for _ in 0..ROUNDS {
            self.send(Signal::SIGKILL);
            if !self.follow() {
                return;
            }
        }
    }

    /// Stops every process, so that nobody can do anything more, or lose a parent through whom he would be
    /// found: where it has not been looked for strays just before they are killed.
    pub(crate) fn freeze(&mut self) {
        for _ in 0..ROUNDS {
            self.send(Signal::SIGSTOP);
            if !self.follow() {
                return;
            }
        }
    }

    /// Whether the leader runs. Asks for one process only, and is quick.
    pub(crate) fn is_led(&self) -> bool {
        let mut known = self.known.iter();
        known.any(|known| known.pid == self.leader && known.runs())
    }

    /// Whether somebody ran when it was last looked, which may be before the last signal.
    pub(crate) const fn lived(&self) -> bool {
        self.lived
    }

    /// Whether nothing of it runs any more. Dead processes that nobody has waited for are gone.
    pub(crate) fn is_gone(&mut self) -> bool {
        let answers = |group: &Pid| killpg(*group, None) != Err(Errno::ESRCH);
        if !self.groups.iter().any(answers) && !self.known.iter().any(Process::runs) {
            return true;
        }
        // Some process answers to a group's number: it may be dead and not yet waited for. When in doubt
        // it lives.
        match process::all() {
            Ok(all) => {
                self.follow_in(&all);
                let hidden = answers(&self.leader) && is_hidden(self.leader, &all);
                !self.lived && !hidden
            }
            Err(_) => false,
        }
    }

    fn lives_in(&self, all: &[Process]) -> bool {
        let known = |process: &Process| self.known.iter().any(|known| known.is(process));
        let mut alive = all.iter().filter(|process| process.alive);
        alive.any(|process| self.groups.contains(&process.group) || known(process))
    }

    /// Remembers who has a parent among those who are known, or in their groups, and is in neither. Says
    /// whether there was anybody. On a machine with thousands of processes it takes a tenth of a second.
    pub(crate) fn follow(&mut self) -> bool {
        process::all().is_ok_and(|all| self.follow_in(&all))
    }

    fn follow_in(&mut self, all: &[Process]) -> bool {
        self.forget_in(all);
        let known = self.known.len();
        let member = |groups: &[Pid], p: &Process| groups.contains(&p.group);
        let mut family: Vec<Pid> = self.known.iter().map(|known| known.pid).collect();
        let members = all.iter().filter(|p| member(&self.groups, p));
        family.extend(members.map(|p| p.pid));
        let mut next = 0;
        // Grows while it is walked through: a stray's children are strays, too.
        while let Some(&parent) = family.get(next) {
            next += 1;
            for child in all.iter().filter(|p| p.parent == parent && p.alive) {
                if family.contains(&child.pid) {
                    continue;
                }
                family.push(child.pid);
                self.known.push(*child);
                // A group that somebody else leads may be anybody's.
                if child.pid == child.group {
                    self.groups.push(child.group);
                    let members = all.iter().filter(|p| p.group == child.group);
                    family.extend(members.map(|p| p.pid));
                }
            }
        }
        self.lived = self.lives_in(all);
        self.known.len() > known
    }

    /// Forgets who is gone, before the numbers are given to others.
    fn forget_in(&mut self, all: &[Process]) {
        let Self {
            leader,
            groups,
            known,
            ..
        } = self;
        // A group's number is not used again while the group has members. If it was empty in between,
        // it has a leader that nobody knows.
        let is_other = |p: &Process| !known.iter().any(|known| known.is(p));
        groups.retain(|&group| {
            let mut members = all.iter().filter(|p| p.group == group);
            let reused = || all.iter().any(|p| p.pid == group && is_other(p));
            group == *leader || members.next().is_some() && !reused()
        });
        known.retain(|known| all.iter().any(|p| p.is(known)));
    }

    fn send(&self, signal: Signal) {
        for &group in &self.groups {
            let _ = killpg(group, signal);
        }
        send_one_by_one(self.known.iter(), &self.groups, signal);
    }
}

/// Whether nobody is shown of a group that answers: `/proc` may hide what another user runs. The dead
/// are shown, too, for as long as they answer.
fn is_hidden(group: Pid, all: &[Process]) -> bool {
    !all.iter().any(|process| process.group == group)
}

/// Sends `signal` to those of `processes` that have not had it with these groups.
fn send_one_by_one<'a>(
    processes: impl Iterator<Item = &'a Process>,
    groups: &[Pid],
    signal: Signal,
) {
    for process in processes {
        if process
            .now()
            .is_some_and(|now| !groups.contains(&now.group))
        {
            let _ = kill(process.pid, signal);
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

    /// The command of the leader 40.
    fn command() -> Group {
        Group {
            leader: Pid::from_raw(40),
            groups: vec![Pid::from_raw(40)],
            known: vec![process(40, 1, 40)],
            lived: true,
        }
    }

    fn numbers(group: &Group) -> (Vec<i32>, Vec<i32>) {
        let known = group.known.iter().map(|p| p.pid.as_raw()).collect();
        let groups = group.groups.iter().map(|group| group.as_raw()).collect();
        (known, groups)
    }

    #[test]
    fn own_group_lives() {
        assert!(!Group::new(nix::unistd::getpgrp()).is_gone());
    }

    #[test]
    fn strays_are_found_through_their_parents() {
        // A command, its child, what that has started in another group, and a child of this, that has
        // gone to a third; and others.
        let all = [
            process(40, 1, 40),
            process(41, 40, 40),
            process(42, 41, 42),
            process(43, 42, 42),
            process(45, 43, 45),
            process(50, 1, 50),
            process(51, 50, 50),
        ];
        let mut group = command();
        assert!(group.follow_in(&all));
        assert_eq!(numbers(&group), (vec![40, 42, 45], vec![40, 42, 45]));
        assert!(!group.follow_in(&all));
        // The command's own group is dead, as is a leader, and strays have had other children.
        let later = [
            process(43, 1, 42),
            all[4],
            all[5],
            process(46, 45, 50),
            process(47, 43, 42),
        ];
        assert!(group.follow_in(&later));
        assert_eq!(numbers(&group), (vec![45, 46], vec![40, 42, 45]));
        assert!(group.lives_in(&later));
        assert!(group.lives_in(&[process(47, 1, 42)]), "a member");
        assert!(!group.lives_in(&[process(51, 50, 50)]));
    }

    #[test]
    fn group_of_which_nobody_is_shown_is_hidden() {
        let dead = Process {
            alive: false,
            ..process(41, 40, 40)
        };
        assert!(!is_hidden(Pid::from_raw(40), &[dead]));
        assert!(is_hidden(Pid::from_raw(40), &[process(50, 1, 50)]));
    }

    #[test]
    fn leader_that_has_left_its_group_is_known() {
        let mut group = command();
        let all = [process(40, 1, 7), process(8, 1, 7), process(9, 40, 7)];
        assert!(group.follow_in(&all));
        assert_eq!(numbers(&group), (vec![40, 9], vec![40]));
        assert!(group.lives_in(&all[..1]));
        assert!(!group.lives_in(&all[1..2]));
    }

    #[test]
    fn numbers_that_others_have_now_are_forgotten() {
        let mut group = command();
        group.follow_in(&[process(40, 1, 40), process(42, 40, 42)]);
        let other = Process {
            started: 2,
            ..process(42, 1, 42)
        };
        group.follow_in(&[process(40, 1, 40), other, process(60, 42, 42)]);
        assert_eq!(numbers(&group), (vec![40], vec![40]));
    }
}
