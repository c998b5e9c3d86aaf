//! The guardian: a small process of its own that ends the command's process group when its time is
//! up, or when lockctl is gone.
//!
//! lockctl may be stopped or killed at any moment, and its command must still not outlive the lock.
//! So the deadlines are kept here, by a process that does nothing else: it has a session of its own,
//! away from the terminal; it blocks every signal that can be blocked; it reads orders from the
//! socket that is its standard output, and the end of that is the end of lockctl. Its standard input
//! is the lock's own file, where the lock is one: it stays locked until the guardian has ended, and
//! that is after the group.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use distlock::{BootInstant, Clock};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::setsid;

use super::deadline::Deadlines;
use super::group::Group;
use super::wire::{Order, Report};

/// Timers of the kernel do not see a suspended machine: the clock is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_millis(200);
/// How soon it is looked whether a group that was told to end is gone; doubled each time.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// Before a deadline it is looked who is there, so that nothing but signals is left to do when it comes:
/// so much ahead at least, and so many times what it took the last time. A busy machine may be as much
/// slower this time.
const LEAST_LEAD: Duration = Duration::from_millis(50);
const LOOKS_PER_LEAD: u32 = 5;

/// The life of the guardian.
pub(crate) fn main() -> ExitCode {
    match guard() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody hears why: lockctl sees the end of the socket, and ends the command itself.
        Err(_) => ExitCode::FAILURE,
    }
}

fn guard() -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    let socket = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut guardian = Guardian {
        socket,
        unread: Vec::new(),
        clock: Clock::system(),
        group: None,
        deadlines: Deadlines::default(),
        terminated: false,
        killed: false,
        looked_at: None,
        look_took: Duration::ZERO,
    };
    guardian.say(Report::Ready);
    let watched = guardian.keep_watch();
    if watched.is_err() {
        // Who cannot keep watch does not leave anybody unguarded.
        guardian.end_group();
    }
    watched
}

struct Guardian {
    socket: UnixStream,
    unread: Vec<u8>,
    clock: Clock,
    group: Option<Group>,
    deadlines: Deadlines,
    terminated: bool,
    killed: bool,
    /// When it was last looked who is there, and how long that took.
    looked_at: Option<BootInstant>,
    look_took: Duration,
}

/// What the socket had for the guardian.
enum Heard {
    Orders,
    Done,
    /// lockctl is gone, or out of its mind.
    End,
}

impl Guardian {
    fn keep_watch(&mut self) -> io::Result<()> {
        loop {
            let wakeful = self.sleep()?;
            if wakeful {
                match self.listen() {
                    Heard::Orders => {}
                    Heard::Done => {
                        self.see_strays_out();
                        return Ok(());
                    }
                    Heard::End => {
                        self.end_group();
                        return Ok(());
                    }
                }
            }
            self.enforce();
        }
    }

    /// Sleeps until the socket has something, or a deadline may have come. Says which.
    fn sleep(&self) -> io::Result<bool> {
        let now = self.clock.now();
        let wake_at = self.pending().map(|at| match self.is_prepared(at) {
            true => at,
            false => at.saturating_sub(self.lead()),
        });
        let length = match wake_at {
            Some(at) if at > now => at.saturating_since(now).min(LONGEST_SLEEP),
            // Past its deadline the group is looked at again and again, in case somebody joins it.
            _ => LONGEST_SLEEP,
        };
        // Rounded up, or the last millisecond would be spent spinning.
        let millis = u16::try_from(length.as_millis() + 1).unwrap_or(u16::MAX);
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sockets, PollTimeout::from(millis)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The deadline that nothing has been done about yet.
    fn pending(&self) -> Option<BootInstant> {
        match self.terminated {
            true => self.deadlines.kill,
            false => self.deadlines.next(),
        }
    }

    fn listen(&mut self) -> Heard {
        let mut chunk = [0; 1024];
        let length = match self.socket.read(&mut chunk) {
            Ok(0) => return Heard::End,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Heard::Orders,
            // A peer that died with unread reports leaves a reset behind.
            Err(_) => return Heard::End,
        };
        self.unread.extend_from_slice(&chunk[..length]);
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let order = String::from_utf8_lossy(&line[..end]).parse::<Order>();
            match order {
                Ok(Order::Guard(group)) => {
                    self.group = Some(Group::new(group));
                    self.say(Report::Guarding);
                    // To know how long it takes.
                    self.look();
                }
                Ok(Order::Until(deadlines)) => self.set(deadlines),
                Ok(Order::Done) => return Heard::Done,
                Err(_) => return Heard::End,
            }
        }
        Heard::Orders
    }

    /// A group that has been told to end gets no more time.
    fn set(&mut self, deadlines: Deadlines) {
        self.deadlines = match self.terminated || self.killed {
            true => self.deadlines.tightened(deadlines),
            false => deadlines,
        };
    }

    fn enforce(&mut self) {
        let Some(at) = self.pending() else { return };
        let now = self.clock.now();
        let prepared = self.is_prepared(at);
        if now < at {
            if !prepared && now + self.lead() >= at {
                self.look();
            }
            return;
        }
        let Some(group) = &mut self.group else { return };
        if self.deadlines.kill.is_some_and(|kill| now >= kill) {
            if !prepared && !self.killed {
                group.freeze();
            }
            let lived = group.lived();
            // Again each time: somebody may have joined the group meanwhile.
            group.kill();
            if !self.killed && lived {
                self.say(Report::Killed);
            }
            self.killed = true;
        } else if !self.terminated {
            if !prepared {
                group.follow();
            }
            if group.is_led() || !group.is_gone() {
                self.terminated = true;
                group.terminate();
                self.say(Report::Terminated);
            }
        }
    }

    /// Looks who is there, so that it is known when a deadline comes.
    fn look(&mut self) {
        let Some(group) = &mut self.group else { return };
        let began = self.clock.now();
        group.follow();
        self.looked_at = Some(began);
        self.look_took = self.clock.now().saturating_since(began);
    }

    /// How long before a deadline that is done.
    fn lead(&self) -> Duration {
        LEAST_LEAD.max(self.look_took * LOOKS_PER_LEAD)
    }

    /// Whether it was looked so shortly before `at` that it need not be done again.
    fn is_prepared(&self, at: BootInstant) -> bool {
        // Twice, for a kill that follows so soon on its SIGTERM that one look has to do for both.
        self.looked_at
            .is_some_and(|looked| looked + self.lead() * 2 >= at)
    }

    /// What was told to end and is not of the group, nobody else knows of: it gets the rest of its time.
    fn see_strays_out(&mut self) {
        let mut pause = FIRST_LOOK;
        let told = self.terminated || self.killed;
        while told && !self.is_seen_to_be_gone() {
            self.enforce();
            let now = self.clock.now();
            let deadline = self.pending().filter(|at| *at > now);
            let left = deadline.map_or(pause, |at| at.saturating_since(now));
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Looks whether nothing of the group runs, unless a deadline is too near for that.
    fn is_seen_to_be_gone(&mut self) -> bool {
        let is_near = |at: BootInstant| !self.killed && self.is_prepared(at);
        let has_time = !self.pending().is_some_and(is_near);
        has_time && self.group.as_mut().is_none_or(Group::is_gone)
    }

    /// Kills the group and stays until nothing of it runs: the lock's file is closed by leaving.
    fn end_group(&mut self) {
        let Some(group) = &mut self.group else { return };
        let mut pause = FIRST_LOOK;
        group.freeze();
        loop {
            // Before anything is asked: a signal to nobody costs nothing.
            group.kill();
            if group.is_gone() {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    fn say(&mut self, report: Report) {
        // lockctl may be gone; that is for `listen` to find out.
        let _ = self.socket.write_all(format!("{report}\n").as_bytes());
    }
}
