//! The load: what the tasks of one process do during one level.

use std::sync::Arc;

use distlock::{BootInstant, Clock, Error, Locks};
use tokio::task::JoinSet;

use super::counters::Counters;
use super::plan::Plan;
use super::tally::{Tally, Waits};

/// Runs the tasks of `plan` until its time is over. The last sections come to their end.
pub(crate) async fn run(plan: &Plan, locks: &Locks) -> std::io::Result<Tally> {
    let counters = Arc::new(Counters::open(&plan.counters)?);
    let clock = Clock::system();
    let until = clock.now() + plan.length;
    let mut tasks = JoinSet::new();
    for number in plan.first_task..plan.first_task + plan.tasks {
        let task = Task {
            number,
            plan: plan.clone(),
            locks: locks.clone(),
            counters: Arc::clone(&counters),
            clock: clock.clone(),
            waits: Waits::new(),
            tally: Tally::default(),
        };
        tasks.spawn(task.run(until));
    }
    let mut waits = Waits::new();
    let mut tally = Tally::default();
    while let Some(ended) = tasks.join_next().await {
        let (of_task, waited) = ended.map_err(std::io::Error::other)?;
        tally.merge(of_task);
        waits.merge(&waited);
    }
    tally.waits = waits.pairs();
    Ok(tally)
}

struct Task {
    number: u32,
    plan: Plan,
    locks: Locks,
    counters: Arc<Counters>,
    clock: Clock,
    waits: Waits,
    tally: Tally,
}

impl Task {
    async fn run(mut self, until: BootInstant) -> (Tally, Waits) {
        while self.clock.now() < until {
            match self.section(until).await {
                Ok(true) => {}
                // The time was over before the lock was had.
                Ok(false) => break,
                Err(error) => {
                    self.tally.failed(error);
                    // A backend that is away is not asked as fast as it can fail.
                    self.clock.sleep(self.plan.length / 100).await;
                }
            }
        }
        self.tally.by_task = vec![self.tally.sections];
        (self.tally, self.waits)
    }

    async fn section(&mut self, until: BootInstant) -> Result<bool, Error> {
        let key = self.plan.key(self.number);
        let mutex = self.locks.mutex(self.plan.name(key));
        let asked = self.clock.now();
        // Dropped when the time is over: it gives up its place in the queue.
        let Some(guard) = self.clock.timeout_at(until, mutex.acquire()).await else {
            return Ok(false);
        };
        let guard = guard?;
        self.waits.record(self.clock.now().saturating_since(asked));

        let found = self.counters.read(key);
        match self.plan.hold.is_zero() {
            // Whoever else believes to have the lock is given the chance to show it.
            true => tokio::task::yield_now().await,
            false => self.clock.sleep(self.plan.hold).await,
        }
        guard.check()?;
        let counted = found.and_then(|found| {
            self.counters.write(key, found.count + 1, self.number)?;
            Ok(found.last)
        });
        match counted {
            Ok(last) => {
                self.tally.sections += 1;
                let other = last.is_some_and(|last| last != self.number);
                self.tally.hand_offs += u64::from(other);
            }
            Err(error) => self.tally.failed(error),
        }
        guard.release().await?;
        Ok(true)
    }
}
