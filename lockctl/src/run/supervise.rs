//! Starting the command, and staying until it has ended.

use std::io;
use std::pin::pin;
use std::time::Duration;

use distlock::{BootInstant, Clock, LossReason};
use nix::sys::signal::Signal;
use tokio::signal::unix::Signal as SignalStream;

use super::child::{Child, State};
use super::deadline::Deadlines;
use super::gate::{self, Gate};
use super::link::Link;
use super::signals::{self, Signals};
use super::terminal::Terminal;
use super::wire::Report;
use super::{Job, LOST_BEFORE_THE_END, Stopped};
use crate::cli::OnLost;
use crate::exit::{self, Failure};
use crate::output;
use crate::stderr;

/// How often the guardian is told of renewals: a part of the TTL, within these bounds.
const FEEDS_PER_TTL: u32 = 10;
const SOONEST_FEED: Duration = Duration::from_millis(5);
const LATEST_FEED: Duration = Duration::from_millis(200);
/// A deadline that has moved by less is no news.
const NEWS: Duration = Duration::from_millis(5);
/// How soon it is looked whether the group is gone; doubled each time.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// How often a group that should be dead is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(100);
/// How long a killed group may take to be gone, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command that runs, and all that belongs to it.
pub(crate) struct Supervisor<'a> {
    job: Job<'a>,
    signals: Signals,
    terminal: Option<Terminal>,
    child: Child,
    link: Link,
    has_guardian: bool,
    stopped: Option<Stopped>,
    /// When lockctl kills the group by itself, should the guardian not have done it.
    kill_at: Option<BootInstant>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The command's own exit code.
    pub(crate) code: u8,
    /// Why it was stopped; `None` when it ended by itself.
    pub(crate) stopped: Option<Stopped>,
    /// Whether nothing of its process group is left.
    pub(crate) gone: bool,
}

enum Event {
    ChildChanged,
    Signalled(Signal),
    Lost(LossReason),
    Reported(Option<Report>),
    KillDue,
    FeedDue,
}

impl<'a> Supervisor<'a> {
    /// Starts guardian and command, in this order.
    pub(crate) async fn start(
        job: Job<'a>,
        signals: Signals,
        changes: SignalStream,
    ) -> Result<Self, Failure> {
        let no_guardian = |error| Failure::system("cannot start the guardian", &error);
        let no_command = |error| Failure::system("cannot start the command", &error);
        let file = job.lock_file().map_err(no_guardian)?;
        let mut link = Link::start(job.clock.clone(), file)
            .await
            .map_err(no_guardian)?;
        let token = job.guard.token().get();
        let environment = gate::environment(&job.args.name, token, job.url);
        let (gate, process) = Gate::start(&job.args.command, &environment).map_err(no_command)?;
        let mut child = Child::new(process, changes).map_err(no_command)?;
        let guarding = link.guard(child.leader(), job.deadlines()).await;
        // So much time may have passed that the lock is lost.
        let ready = guarding
            .map_err(no_guardian)
            .and_then(|()| Ok(job.guard.check()?));
        if let Err(failure) = ready {
            // It waits at the gate and would go by itself, unless somebody has stopped it.
            child.group().kill();
            let _ = child.reap();
            link.dismiss(Duration::ZERO).await;
            return Err(failure);
        }
        let mut terminal = Terminal::of_session();
        if let Some(terminal) = &mut terminal {
            terminal.lend_at_start(child.leader());
        }
        let supervisor = Self {
            job,
            signals,
            terminal,
            child,
            link,
            has_guardian: true,
            stopped: None,
            kill_at: None,
        };
        // What waits there may have been killed: then the command's end is that of the gate.
        let _ = gate.open();
        Ok(supervisor)
    }

    /// Stays until the command has ended and nothing of its group is left.
    pub(crate) async fn watch(mut self) -> Result<Outcome, Failure> {
        if let Err(error) = self.until_ended().await {
            // Not to know what the command does is no reason to let it run on.
            self.child.group().freeze();
            self.child.group().kill();
            stderr::say(&format!("cannot wait for the command: {error}"));
        }
        self.finish().await
    }

    async fn until_ended(&mut self) -> io::Result<()> {
        let clock = self.job.clock.clone();
        let feed_every = (self.job.guard.ttl() / FEEDS_PER_TTL).clamp(SOONEST_FEED, LATEST_FEED);
        let mut lost = pin!(self.job.guard.lost());
        let mut told_lost = false;
        // An instant, not a pause: events that come more often than this would put it off for ever.
        let mut feed_at = clock.now() + feed_every;
        loop {
            match self.child.look()? {
                State::Ended => return Ok(()),
                State::Stopped(by) if !self.is_ending() => self.command_stopped(by),
                State::Stopped(_) | State::Running => {}
            }
            self.child.reap_orphans(self.link.pid());
            let event = tokio::select! {
                () = self.child.changed() => Event::ChildChanged,
                signal = self.signals.next() => Event::Signalled(signal),
                reason = &mut lost, if !told_lost => Event::Lost(reason),
                report = self.link.report(), if self.has_guardian => Event::Reported(report),
                () = sleep_until(&clock, self.kill_at) => Event::KillDue,
                () = clock.sleep_until(feed_at) => Event::FeedDue,
            };
            match event {
                Event::ChildChanged => {}
                Event::Signalled(signal) => self.pass_on(signal),
                Event::Lost(reason) => {
                    told_lost = true;
                    self.lost(reason);
                }
                Event::Reported(Some(report)) => self.heard(report),
                Event::Reported(None) => self.guardian_died(),
                Event::KillDue => {
                    self.child.group().kill();
                    self.kill_at = Some(clock.now() + KILL_AGAIN);
                }
                Event::FeedDue => {
                    self.feed();
                    feed_at = clock.now() + feed_every;
                }
            }
        }
    }

    /// Tells the guardian of a renewal.
    fn feed(&mut self) {
        if self.stopped.is_some() || !self.has_guardian || self.job.guard.remaining().is_zero() {
            return;
        }
        let (told, next) = (self.link.told(), self.job.deadlines());
        let is_news = match (told.next(), next.next()) {
            (Some(told), Some(next)) => next > told + NEWS,
            (told, next) => told != next,
        };
        if is_news {
            self.tell(next);
        }
    }

    fn tell(&mut self, deadlines: Deadlines) {
        if self.has_guardian && self.link.until(deadlines).is_err() {
            self.guardian_died();
        }
    }

    fn lost(&mut self, reason: LossReason) {
        let args = self.job.args;
        if args.on_lost == OnLost::Ignore {
            args.say(&format!("is lost: {reason}; the command runs on"));
            return;
        }
        let what = format!("is lost: {reason}; the command is stopped");
        let now = self.job.clock.now();
        let deadlines = self.link.told().lost(now, args.kill_after, args.on_lost);
        self.kill_at = deadlines.kill;
        self.tell(deadlines);
        self.stop(Stopped::LockEnded, &what);
        self.child.group().follow();
    }

    fn heard(&mut self, report: Report) {
        if report.says_that_time_was_up() {
            self.kill_at = self.link.told().kill;
            self.stop(
                Stopped::LockEnded,
                "could not be renewed in time; the command is stopped",
            );
            self.child.group().follow();
        }
    }

    fn guardian_died(&mut self) {
        self.has_guardian = false;
        self.child.group().freeze();
        self.child.group().kill();
        self.stop(
            Stopped::Unguarded,
            "is held, but nobody guards the command any more; it is killed",
        );
    }

    /// Whether the command is being ended: then it may be stopped for that.
    fn is_ending(&self) -> bool {
        let now = self.job.clock.now();
        self.stopped.is_some() || self.link.told().kill.is_some_and(|kill| now >= kill)
    }

    /// Remembers the first reason there was to stop the command, and says it.
    fn stop(&mut self, why: Stopped, what: &str) {
        if self.stopped.is_none() {
            self.stopped = Some(why);
            self.job.args.say(what);
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTSTP => {
                self.child.group().signal(signal);
                self.suspend();
            }
            Signal::SIGCONT => self.resume(),
            _ => {
                self.child.group().signal(signal);
                if signals::asks_to_end(signal) {
                    // What is stopped cannot end.
                    self.child.group().signal(Signal::SIGCONT);
                }
            }
        }
    }

    /// Gives the command the terminal if it was stopped for want of it; else stops with it, where a
    /// shell sees that and can continue both.
    fn command_stopped(&mut self, by: Signal) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let wants_it = matches!(by, Signal::SIGTTIN | Signal::SIGTTOU);
        if wants_it && terminal.lend(self.child.leader()) {
            self.child.group().signal(Signal::SIGCONT);
        } else if wants_it {
            // It goes on with the SIGCONT that lockctl gets. Where no shell is there to send one, lockctl
            // is not stopped, and the command would only be stopped again.
            self.stop_too();
        } else if by == Signal::SIGTSTP || terminal.is_on_stdin() {
            self.suspend();
        }
    }

    fn suspend(&mut self) {
        self.stop_too();
        self.resume();
    }

    /// Stops with the command, so that the shell has its terminal back. Comes back when continued.
    fn stop_too(&mut self) {
        if let Some(terminal) = &self.terminal {
            terminal.take_back(self.child.leader());
        }
        let left = self.job.guard.remaining();
        if self.link.told().kill.is_some() && !left.is_zero() {
            self.job.args.say(&format!(
                "is not renewed while lockctl is stopped, and ends with the command in {}",
                output::age(left)
            ));
            // While it is stopped it cannot say it.
            stderr::flush();
        }
        signals::stop_here();
    }

    fn resume(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.lend_again(self.child.leader());
        }
        self.child.group().signal(Signal::SIGCONT);
    }

    /// The command has ended: sees to what it left behind.
    async fn finish(mut self) -> Result<Outcome, Failure> {
        // Only what was true at this moment can be said about all of the command's run.
        let was_lost = self.job.guard.check().is_err();
        if let Some(terminal) = &self.terminal {
            terminal.take_back(self.child.leader());
        }
        let gone = self.clear_group().await;
        if was_lost && self.job.args.on_lost != OnLost::Ignore {
            self.stop(Stopped::LockEnded, LOST_BEFORE_THE_END);
        }
        if !gone {
            return Ok(Outcome {
                code: exit::SYSTEM,
                stopped: self.stopped,
                gone,
            });
        }
        let Self {
            job,
            link,
            child,
            terminal,
            mut stopped,
            ..
        } = self;
        // What the guardian has told to end, and is not of the group, has its grace too.
        let grace = stopped.map_or(Duration::ZERO, |_| job.args.kill_after);
        let last = link.dismiss(grace).await;
        if stopped.is_none() && last.iter().any(|report| report.says_that_time_was_up()) {
            stopped = Some(Stopped::LockEnded);
            job.args
                .say("could not be renewed in time; the command was stopped");
        }
        if let Some(terminal) = terminal.filter(|_| stopped.is_some()) {
            terminal.restore();
        }
        let failed = |error| Failure::system("cannot wait for the command", &error);
        Ok(Outcome {
            code: child.reap().map_err(failed)?,
            stopped,
            gone,
        })
    }

    /// Ends what the command has left running in its group; `false` when that cannot be done.
    async fn clear_group(&mut self) -> bool {
        let group = self.child.group();
        if group.is_gone() {
            return true;
        }
        group.terminate();
        if self.is_gone_within(self.job.args.kill_after).await {
            return true;
        }
        self.child.group().freeze();
        self.child.group().kill();
        self.is_gone_within(PATIENCE).await
    }

    async fn is_gone_within(&mut self, length: Duration) -> bool {
        let clock = self.job.clock.clone();
        let until = clock.now() + length;
        let mut pause = FIRST_LOOK;
        while !self.child.group().is_gone() {
            if clock.now() >= until {
                return false;
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
            // The lock is kept meanwhile, and the guardian need not hurry.
            self.feed();
        }
        true
    }
}

async fn sleep_until(clock: &Clock, at: Option<BootInstant>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
