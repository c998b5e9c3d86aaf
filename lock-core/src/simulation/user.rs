//! The users of a process: they ask for locks, hold them, look, and give them back in every way.

use std::time::Duration;

use futures_util::FutureExt;

use super::held::{Asking, Held};
use super::plan::{Ask, End, Visit};
use super::timeline::Timeline;
use super::witness::Begun;
use super::world::World;
use crate::client::ShutdownReport;
use crate::clock::Clock;
use crate::error::Result;
use crate::lease::LossReason;
use crate::locks::Locks;
use crate::message::Released;
use crate::mutex::Mutex;
use crate::owner::OwnerId;

#[derive(Clone)]
pub(super) struct User {
    pub(super) world: World,
    pub(super) process: usize,
    pub(super) number: usize,
    pub(super) clock: Clock,
    pub(super) timeline: Timeline,
    pub(super) op_timeout: Duration,
    pub(super) locks: Locks,
    pub(super) owner: OwnerId,
}

impl User {
    pub(super) async fn live(self, visits: Vec<Visit>) {
        for visit in visits {
            self.clock.sleep(visit.after).await;
            match visit.dropped_after {
                None => self.visit(&visit).await,
                Some(after) => {
                    if self
                        .clock
                        .timeout(after, self.visit(&visit))
                        .await
                        .is_none()
                    {
                        self.note(format_args!("is dropped"));
                    }
                }
            }
        }
    }

    async fn visit(&self, visit: &Visit) {
        let Some(held) = self.ask(visit, visit.ask).await else {
            return;
        };
        let read = held.read(visit.name);
        if self.stay(&held, visit).await.is_err() {
            return;
        }
        if let Some(read) = read.filter(|_| !visit.owned) {
            held.write(visit.name, read);
        }
        self.leave(held, visit).await;
    }

    fn mutex(&self, visit: &Visit) -> Mutex {
        let mut mutex = self.locks.mutex(visit.name);
        if visit.fixed {
            mutex = mutex.fixed();
        }
        if visit.owned {
            mutex = mutex.owner(self.owner);
        }
        mutex
    }

    async fn ask(&self, visit: &Visit, ask: Ask) -> Option<Held<'_>> {
        let mutex = self.mutex(visit);
        self.note(format_args!("asks for {} ({ask:?})", visit.name));
        let begun = self.began();
        let asking = Asking::new(self, visit, ask);
        let outcome = match ask {
            Ask::Wait => mutex.acquire().await.map(Some),
            Ask::Within(wait) => mutex.acquire_within(wait).await,
            Ask::Try => mutex.try_acquire().await,
        };
        match ask {
            Ask::Wait => {}
            Ask::Within(wait) => self.ended("acquire_within", begun, wait),
            Ask::Try => self.ended("try_acquire", begun, self.op_timeout),
        }
        asking.answered(outcome, visit)
    }

    /// Holds the lock for a while, looking now and then.
    async fn stay(&self, held: &Held<'_>, visit: &Visit) -> Result<(), LossReason> {
        if matches!(visit.end, End::Run) {
            let work = held.guard().run(self.clock.sleep(visit.stay)).await;
            return work.map_err(|error| held.lost(error.reason));
        }
        let mut left = visit.stay;
        held.check()?;
        while !left.is_zero() {
            let step = left.min(visit.pace);
            held.watch(self.clock.sleep(step)).await?;
            held.check()?;
            left -= step;
        }
        Ok(())
    }

    async fn leave(&self, held: Held<'_>, visit: &Visit) {
        match visit.end {
            End::Release | End::Run => self.release(held).await,
            End::ReleaseAbandoned => {
                let _begun = self.release(held).now_or_never();
            }
            End::Drop => drop(held),
            End::Forget => held.forget(),
            End::RenewAndRelease => {
                let begun = self.began();
                if held.watch(held.guard().renew()).await.is_ok() {
                    self.ended("renew", begun, self.op_timeout);
                    self.release(held).await;
                }
            }
            End::TakeAgain => {
                let Ok(again) = held.watch(Box::pin(self.ask(visit, Ask::Wait))).await else {
                    return;
                };
                if let Some(again) = again {
                    self.release(again).await;
                }
                self.release(held).await;
            }
        }
    }

    async fn release(&self, held: Held<'_>) {
        let guard = held.into_guard();
        let token = guard.token().get();
        self.note(format_args!("releases {token}"));
        let begun = self.began();
        let released = guard.release().await;
        self.ended("release", begun, self.op_timeout);
        self.note(format_args!("released {token}: {released:?}"));
        let mut state = self.world.state();
        match released {
            Ok(Released::Clean) => state.witness.released(token, begun),
            Ok(Released::Unknown { free_by }) => {
                state.witness.free_by(token, self.timeline.world(free_by));
            }
            Ok(Released::WasLost(_) | Released::StillHeld(_)) => {}
            Err(error) => state
                .witness
                .accuse("R9", || format!("a release failed: {error}")),
        }
    }

    fn began(&self) -> Begun {
        let state = self.world.state();
        state.witness.began(self.process, state.now())
    }

    fn ended(&self, op: &str, begun: Begun, limit: Duration) {
        let mut state = self.world.state();
        let now = state.now();
        state.witness.ended(op, self.process, begun, now, limit);
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        let (process, number) = (self.process, self.number);
        self.world
            .state()
            .note_of(process, format_args!("u{number} {what}"));
    }
}

/// Somebody who shuts a client down.
pub(super) struct Closing {
    pub(super) world: World,
    pub(super) process: usize,
    pub(super) op_timeout: Duration,
    pub(super) within: Duration,
    /// Whether nothing is going on any more.
    pub(super) rests: bool,
}

impl Closing {
    pub(super) async fn close(self, locks: Locks) {
        let Self {
            process, within, ..
        } = self;
        let begun = {
            let mut state = self.world.state();
            state.note_of(process, format_args!("is shut down within {within:?}"));
            state.witness.began(process, state.now())
        };
        let report = locks.shutdown(within).await;
        let mut state = self.world.state();
        state.note_of(process, format_args!("was shut down: {report:?}"));
        let now = state.now();
        let limit = within + self.op_timeout;
        state.witness.ended("shutdown", process, begun, now, limit);
        let clean = report.as_ref().is_ok_and(ShutdownReport::is_clean);
        if self.rests && !clean {
            let accusation = || format!("process {process} was idle and is not clean: {report:?}");
            state.witness.accuse("R12", accusation);
        }
    }
}
