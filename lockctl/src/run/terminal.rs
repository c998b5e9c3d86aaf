//! The terminal, when lockctl has one to lend.

use std::io::{self, Stdin};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// A terminal on standard input.
pub(crate) struct Terminal {
    stdin: Stdin,
    /// How it was set before the command had it.
    modes: Termios,
}

impl Terminal {
    /// The terminal on standard input, if that is one, and the one that controls this session.
    pub(crate) fn on_stdin() -> Option<Self> {
        let stdin = io::stdin();
        tcgetpgrp(&stdin).ok()?;
        let modes = tcgetattr(&stdin).ok()?;
        Some(Self { stdin, modes })
    }

    /// Makes `group` the foreground job, if lockctl is that now: it may read, and gets the signals of
    /// the keyboard. In the background there is nothing to lend.
    pub(crate) fn lend(&self, group: Pid) {
        if tcgetpgrp(&self.stdin) == Ok(getpgrp()) {
            self.give(group);
        }
    }

    /// Makes lockctl the foreground job again, if `group` is that now.
    pub(crate) fn take_back(&self, group: Pid) {
        if tcgetpgrp(&self.stdin) == Ok(group) {
            self.give(getpgrp());
        }
    }

    /// Undoes what a command that was killed has left behind, such as an echo turned off.
    pub(crate) fn restore(&self) {
        quietly(|| {
            let _ = tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.modes);
        });
    }

    fn give(&self, group: Pid) {
        quietly(|| {
            // The terminal may have been hung up.
            let _ = tcsetpgrp(&self.stdin, group);
        });
    }
}

/// Does `work` as a job in the background would not be let: it would be stopped by SIGTTOU.
fn quietly(work: impl FnOnce()) {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let blocked = ttou.thread_block().is_ok();
    work();
    if blocked {
        let _ = ttou.thread_unblock();
    }
}
