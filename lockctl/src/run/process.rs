//! The processes of the machine, as `/proc` shows them.

use std::fs;
use std::io;

use nix::unistd::Pid;

/// One process, at the moment it was looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Pid,
    pub(crate) group: Pid,
    /// A dead one that nobody has waited for is not.
    pub(crate) alive: bool,
    /// In the kernel's ticks since the machine's start: with the number, it names one process for ever.
    pub(crate) started: u64,
}

/// Every process that is shown to this user.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.map(Pid::from_raw).filter_map(look).collect())
}

/// One process, if it is there and is shown.
pub(crate) fn look(pid: Pid) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    read(&String::from_utf8_lossy(&stat))
}

/// Reads `pid (name) state parent group …`; the 20th field counts the threads, and the 22nd says when
/// it was started.
fn read(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    // The name may itself contain blanks and brackets.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |text: &str| text.parse().ok().map(Pid::from_raw);
    let threads: u64 = fields.get(17)?.parse().ok()?;
    let alive = match *fields.first()? {
        "X" | "x" => false,
        // Its first thread alone makes a process a zombie: it may run on in others.
        "Z" => threads > 1,
        _ => true,
    };
    Some(Process {
        pid: number(pid)?,
        alive,
        parent: number(fields.get(1)?)?,
        group: number(fields.get(2)?)?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// Whether this very process runs now.
    pub(crate) fn runs(&self) -> bool {
        self.now().is_some_and(|now| now.alive)
    }

    /// This very process, as it is now.
    pub(crate) fn now(&self) -> Option<Self> {
        look(self.pid).filter(|now| now.is(self))
    }

    /// Whether `other` is the same process, seen at another time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_name() {
        let rest =
            |threads| format!("1 42 42 0 -1 4194304 96 0 0 0 0 0 0 0 20 0 {threads} 0 1234 2600 2");
        let seen = |state, threads| {
            read(&format!("7 (a) b (c)) {state} {}", rest(threads))).expect("reads")
        };
        let alive = |state, threads| seen(state, threads).alive;
        assert!(alive("S", 1) && alive("Z", 2));
        assert!(!alive("Z", 1) && !alive("Z", 0) && !alive("X", 2));
        let seen = seen("S", 1);
        assert_eq!(
            (seen.pid, seen.parent),
            (Pid::from_raw(7), Pid::from_raw(1))
        );
        assert_eq!((seen.group, seen.started), (Pid::from_raw(42), 1234));
        assert_eq!(read(""), None);
    }

    #[test]
    fn number_that_is_used_again_is_another_process() {
        let this = look(Pid::this()).expect("runs");
        assert!(this.runs());
        let earlier = Process {
            started: this.started - 1,
            ..this
        };
        assert!(!earlier.runs());
    }
}
