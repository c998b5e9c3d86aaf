//! Doing what a script says, and writing down what is seen: the same in the suite's process and in a
//! worker's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lock_core::{Clock, Error, ErrorKind, Guard, Locks, LossReason, Result as LockResult};
use tokio::sync::watch;

use super::script::{Ask, Leave, Script, Step, Work};
use crate::case::Failure;
use crate::history::{Event, Left, Loss, Refusal, What};
use crate::resource::ResourceClient;

/// Where what is seen is written down.
pub(crate) type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// How often a holder asks whether it still holds.
const ASK: Duration = Duration::from_millis(40);
/// The pause after an error: nobody spins while the backend is away.
const PAUSE: Duration = Duration::from_millis(20);

/// Whoever does what a script says.
#[derive(Clone)]
pub(crate) struct Performer {
    pub(crate) locks: Locks,
    pub(crate) sink: Sink,
    /// Where the resource is.
    pub(crate) resource: PathBuf,
    /// Turns true when no other step is to be begun.
    pub(crate) finish: watch::Receiver<bool>,
}

impl Performer {
    /// Does the script's steps, and begins again, until the time is up. In the end everybody answers a
    /// roll call: who is alive can be granted a lock again, whatever was broken.
    pub(crate) async fn perform(self, script: Script) -> Result<(), Failure> {
        let mut task = Task {
            resource: ResourceClient::connect(&self.resource, &script.who).await?,
            performer: self,
            who: script.who,
            failures: 0,
        };
        for step in script.steps.iter().cycle() {
            let mut finish = task.performer.finish.clone();
            let finished = finish.wait_for(|finish| *finish);
            if tokio::time::timeout(step.think, finished).await.is_ok() {
                break;
            }
            task.step(step).await?;
        }
        match script.steps.first() {
            Some(step) => task.answer_roll_call(step).await,
            None => Ok(()),
        }
    }
}

struct Task {
    performer: Performer,
    who: String,
    resource: ResourceClient,
    /// How many of its requests have failed.
    failures: u64,
}

impl Task {
    /// Asks for the step's lock until it is granted. Whoever runs the workload does not wait for ever, and
    /// the history shows who was refused.
    async fn answer_roll_call(&mut self, step: &Step) -> Result<(), Failure> {
        let step = Step {
            ask: Ask::Wait,
            work: Work::Hold(Duration::ZERO),
            leave: Leave::Release,
            ..step.clone()
        };
        while !self.step(&step).await? {}
        // Whoever can wait may still find nobody to answer a try.
        let step = Step {
            ask: Ask::Try,
            ..step
        };
        while !self.is_answered(&step).await? {}
        Ok(())
    }

    /// Whether the step did not end in an error.
    async fn is_answered(&mut self, step: &Step) -> Result<bool, Failure> {
        let failed = self.failures;
        self.step(step).await?;
        Ok(self.failures == failed)
    }

    /// Whether the lock was granted.
    async fn step(&mut self, step: &Step) -> Result<bool, Failure> {
        let asked = now();
        let waits = step.ask != Ask::Try;
        self.saw_at(asked, step, What::Asked { waits });
        match self.ask(step).await {
            Ok(Ok(guard)) => {
                let token = guard.token().get();
                self.saw(step, What::Granted { asked, token });
                let (ttl, kept) = (step.ttl, step.kept);
                self.saw(step, What::Leased { token, ttl, kept });
                self.hold(step, guard).await?;
                Ok(true)
            }
            Ok(Err(why)) => {
                self.saw(step, What::Refused { asked, why });
                Ok(false)
            }
            Err(error) => {
                self.failures += 1;
                self.failed(step, asked, error).await?;
                Ok(false)
            }
        }
    }

    async fn ask(&self, step: &Step) -> LockResult<Result<Guard, Refusal>> {
        let mutex = self.performer.locks.mutex(&step.name).ttl(step.ttl);
        let mutex = match step.kept {
            true => mutex,
            false => mutex.fixed(),
        };
        Ok(match step.ask {
            Ask::Try => mutex.try_acquire().await?.ok_or(Refusal::Busy),
            Ask::Within(wait) => {
                let guard = mutex.acquire_within(wait).await?;
                guard.ok_or(Refusal::TimedOut)
            }
            Ask::Wait => Ok(mutex.acquire().await?),
            Ask::Cancel(after) => match tokio::time::timeout(after, mutex.acquire()).await {
                Ok(guard) => Ok(guard?),
                Err(_) => Err(Refusal::Cancelled),
            },
        })
    }

    async fn failed(&self, step: &Step, asked: Duration, error: Error) -> Result<(), Failure> {
        let why = match (step.ask, Refusal::from(&error)) {
            // Nobody had answered when the time that was given for all of it was over.
            (Ask::Within(wait), Refusal::Unavailable) if now() >= asked + wait => Refusal::TimedOut,
            (_, why) => why,
        };
        self.saw(step, What::Refused { asked, why });
        self.saw(step, What::Note(format!("{error:?}")));
        // Whatever is broken, none of these can be its consequence.
        let impossible = [
            ErrorKind::Invalid,
            ErrorKind::Unsupported,
            ErrorKind::Denied,
            ErrorKind::WrongType,
            // Nobody closes a client that is still used.
            ErrorKind::Closed,
        ];
        if impossible.contains(&error.kind()) {
            return Err(error.into());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn hold(&mut self, step: &Step, guard: Guard) -> Result<(), Failure> {
        self.show(step, &guard);
        match step.work {
            Work::Hold(time) => self.keep(step, &guard, time).await,
            Work::Increment(think) => self.increment(step, &guard, think).await?,
        }
        self.leave(step, guard).await;
        Ok(())
    }

    /// Holds for `time`, or until the lock is lost.
    async fn keep(&self, step: &Step, guard: &Guard, time: Duration) {
        let until = now() + time;
        loop {
            let left = until.saturating_sub(now());
            if left.is_zero() || self.wait(step, guard, left.min(ASK)).await {
                return;
            }
            self.check(step, guard);
            self.show(step, guard);
        }
    }

    async fn increment(
        &mut self,
        step: &Step,
        guard: &Guard,
        think: Duration,
    ) -> Result<(), Failure> {
        let Some(seen) = self.resource.read(&step.name, guard.token()).await? else {
            return Ok(());
        };
        let until = now() + think;
        if self.wait(step, guard, think).await {
            // Told, and deaf to it: only the fence stops this one.
            tokio::time::sleep(until.saturating_sub(now())).await;
        }
        // Asked for the record only: what is heard does not stop it either.
        self.check(step, guard);
        self.resource
            .write(&step.name, guard.token(), seen + 1)
            .await?;
        Ok(())
    }

    /// Waits; whether the lock was lost meanwhile.
    async fn wait(&self, step: &Step, guard: &Guard, time: Duration) -> bool {
        tokio::select! {
            biased;
            reason = guard.lost() => {
                self.lost(step, guard, reason);
                true
            }
            () = tokio::time::sleep(time) => false,
        }
    }

    fn lost(&self, step: &Step, guard: &Guard, reason: LossReason) {
        let token = guard.token().get();
        if let Some(why) = Loss::of(reason) {
            self.saw(step, What::Lost { token, why });
        }
    }

    fn check(&self, step: &Step, guard: &Guard) {
        let token = guard.token().get();
        let (began, valid) = (now(), guard.check().is_ok());
        let checked = What::Checked {
            began,
            token,
            valid,
        };
        self.saw(step, checked);
    }

    fn show(&self, step: &Step, guard: &Guard) {
        // In this order the sum is at most the end of the validity.
        let (now, remaining) = (now(), guard.remaining());
        if !remaining.is_zero() {
            let token = guard.token().get();
            let until = now.saturating_add(remaining);
            self.saw(step, What::Shown { token, until });
        }
    }

    async fn leave(&self, step: &Step, guard: Guard) {
        let token = guard.token().get();
        self.saw(step, What::Releasing { token });
        let how = match step.leave {
            Leave::Release => Left::from(&guard.release().await),
            Leave::Drop => {
                drop(guard);
                Left::Dropped
            }
        };
        self.saw(step, What::Released { token, how });
    }

    fn saw(&self, step: &Step, what: What) {
        self.saw_at(now(), step, what);
    }

    fn saw_at(&self, at: Duration, step: &Step, what: What) {
        (self.performer.sink)(Event {
            at,
            who: self.who.clone(),
            name: step.name.clone(),
            what,
        });
    }
}

fn now() -> Duration {
    Clock::system().now().since_origin()
}
