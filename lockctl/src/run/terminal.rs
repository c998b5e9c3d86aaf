//! The terminal, when lockctl has one to lend.
//!
//! A command at a terminal is lent it from the start. Where other processes of the same job are between
//! them, as in `lockctl run … | less`, the terminal may be theirs: then it is lent when the command is
//! stopped because it is in the background, which is what the kernel does with who wants to use it.

use std::fs::File;
use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The terminal that controls this session.
pub(crate) struct Terminal {
    tty: File,
    /// How it was set before the command had it.
    modes: Termios,
    on_stdin: bool,
    on_stdout: bool,
    lent: bool,
}

impl Terminal {
    /// The terminal of this session, if it has one.
    pub(crate) fn of_session() -> Option<Self> {
        let tty = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        let modes = tcgetattr(&tty).ok()?;
        Some(Self {
            tty,
            modes,
            on_stdin: tcgetpgrp(io::stdin()).is_ok(),
            on_stdout: tcgetpgrp(io::stdout()).is_ok(),
            lent: false,
        })
    }

    /// Whether it is what lockctl's standard input is read from.
    pub(crate) const fn is_on_stdin(&self) -> bool {
        self.on_stdin
    }

    /// Lends it to a command that begins, if nobody else is to use it.
    pub(crate) fn lend_at_start(&mut self, group: Pid) {
        if self.on_stdin && self.on_stdout {
            self.lend(group);
        }
    }

    /// Lends it again, if it was lent.
    pub(crate) fn lend_again(&mut self, group: Pid) {
        if self.lent {
            self.lend(group);
        }
    }

    /// Makes `group` the foreground job, if lockctl is that now: it may read, and gets the signals of
    /// the keyboard. In the background there is nothing to lend. Says whether it has it.
    pub(crate) fn lend(&mut self, group: Pid) -> bool {
        if tcgetpgrp(&self.tty) != Ok(getpgrp()) {
            return false;
        }
        self.give(group);
        self.lent = true;
        tcgetpgrp(&self.tty) == Ok(group)
    }

    /// Makes lockctl the foreground job again, if `group` is that now.
    pub(crate) fn take_back(&self, group: Pid) {
        if tcgetpgrp(&self.tty) == Ok(group) {
            self.give(getpgrp());
        }
    }

    /// Undoes what a command that was killed has left behind, such as an echo turned off.
    pub(crate) fn restore(&self) {
        if !self.lent {
            return;
        }
        quietly(|| {
            // At once: what was written may never be shown, on a terminal that was stopped.
            let _ = tcsetattr(&self.tty, SetArg::TCSANOW, &self.modes);
        });
    }

    fn give(&self, group: Pid) {
        quietly(|| {
            // The terminal may have been hung up.
            let _ = tcsetpgrp(&self.tty, group);
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
