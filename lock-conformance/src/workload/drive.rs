//! Breaking things as the plan says, and making them whole again.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lock_core::Locks;

use super::faults::{Breakage, FaultStep};
use crate::case::Failure;
use crate::harness::Faults;
use crate::history::{Hits, Recorder, Trouble, What};
use crate::stand::Stand;
use crate::worker::Worker;

/// What faults are called in histories.
const FAULTS: &str = "faults";

/// Whoever breaks things.
pub(super) struct Driver {
    pub(super) stand: Stand,
    pub(super) names: Vec<String>,
    pub(super) workers: Arc<Vec<Worker>>,
    /// The operator's client.
    pub(super) operator: Locks,
    /// Who is hit by what happens to connections.
    pub(super) on_the_wire: Hits,
    /// By how many seconds the server's clock is off.
    pub(super) clock_offset: AtomicI64,
}

/// How much later everything arrives on a slow network, each way: far less than any request may take.
const SLOW: Duration = Duration::from_millis(100);
/// How long the server's answer to a request that was delivered late is waited for.
const LATE: Duration = Duration::from_secs(3);

impl Driver {
    /// Goes through the steps; each is healed before the next begins.
    pub(super) async fn drive(self, steps: Vec<FaultStep>) -> Result<(), Failure> {
        let start = self.recorder().now();
        for step in steps {
            let until = start + step.at;
            let left = until.saturating_sub(self.recorder().now());
            tokio::time::sleep(left).await;
            let done = self.step(&step).await;
            done.map_err(|error| Failure::new(format!("{}: {error}", step.what)))?;
        }
        Ok(())
    }

    async fn step(&self, step: &FaultStep) -> io::Result<()> {
        match step.what {
            Breakage::PauseWorker(worker) => {
                let worker = &self.workers[worker];
                self.note(worker.who(), Trouble::Paused);
                worker.pause()?;
                tokio::time::sleep(step.lasts).await;
                worker.resume()?;
                self.note(worker.who(), Trouble::Resumed);
                Ok(())
            }
            Breakage::KillWorker(worker) => {
                let worker = &self.workers[worker];
                self.note(worker.who(), Trouble::Killed);
                worker.strike_down()
            }
            Breakage::Break(lock) => {
                self.break_hold(&self.names[lock]).await;
                Ok(())
            }
            // Where nobody has stood for long enough to lose anything, nothing is lost.
            Breakage::LoseData => {
                self.lose(io::ErrorKind::TimedOut, self.faults().wipe())
                    .await
            }
            // It may carry more than this lock.
            Breakage::EndSession(lock) => {
                let ending = self.faults().kill_session(&self.names[lock], 0);
                self.lose(io::ErrorKind::NotFound, ending).await
            }
            Breakage::FailOverLate => {
                let failing_over = self.fail_over_late(step.lasts);
                self.lose(io::ErrorKind::NotFound, failing_over).await
            }
            Breakage::StepClock(seconds) if seconds == self.clock_offset() => Ok(()),
            // Leases end before their time where they hang on this clock.
            Breakage::StepClock(seconds) if seconds > self.clock_offset() => {
                let stepping = self.step_clock(seconds);
                self.lose(io::ErrorKind::NotFound, stepping).await
            }
            what => {
                let (name, hits) = (what.to_string(), self.hits(what));
                self.note(FAULTS, Trouble::Began { what: name, hits });
                let done = self.disturb(what, step.lasts).await;
                self.note(FAULTS, Trouble::Healed(what.to_string()));
                done
            }
        }
    }

    /// Does what makes the server lose locks. When it was `impossible` nothing is lost, and all is well.
    async fn lose(
        &self,
        impossible: io::ErrorKind,
        losing: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        let since = self.recorder().now();
        match losing.await {
            Err(error) if error.kind() == impossible => Ok(()),
            done => {
                self.note(FAULTS, Trouble::DataLost { since });
                done
            }
        }
    }

    /// Whose requests may go without an answer.
    fn hits(&self, what: Breakage) -> Hits {
        match what {
            Breakage::KillServer
            | Breakage::PauseServer
            | Breakage::MoveLeader
            | Breakage::Reconfigure
            | Breakage::FailOver => Hits::Everybody,
            Breakage::Cut
            | Breakage::Reset
            | Breakage::BlackHole
            | Breakage::HoldReplies
            | Breakage::DropReplies
            | Breakage::HalfOpen
            | Breakage::LoseRequest
            | Breakage::HoldRequest(_) => self.on_the_wire.clone(),
            // Clients make that good by themselves.
            Breakage::Slow
            | Breakage::DropPushes
            | Breakage::FlushScripts
            | Breakage::Compact
            | Breakage::StepClock(_) => Hits::These(Vec::new()),
            // Written down in words of their own.
            Breakage::LoseData
            | Breakage::FailOverLate
            | Breakage::EndSession(_)
            | Breakage::PauseWorker(_)
            | Breakage::KillWorker(_)
            | Breakage::Break(_) => Hits::These(Vec::new()),
        }
    }

    async fn disturb(&self, what: Breakage, lasts: Duration) -> io::Result<()> {
        let faults = self.faults();
        match what {
            Breakage::HoldRequest(lock) => return self.hold_request(lock, lasts).await,
            Breakage::StepClock(seconds) => return self.step_clock(seconds).await,
            Breakage::FailOver => {
                return unless(io::ErrorKind::NotFound, faults.fail_over().await);
            }
            _ => {}
        }
        self.turn(what, true).await?;
        tokio::time::sleep(lasts).await;
        match what {
            Breakage::KillServer => faults.restart_server().await,
            Breakage::PauseServer => faults.resume_server().await,
            _ => self.turn(what, false).await,
        }
    }

    /// Holds the next request about the lock, if there is one in time, and delivers it when the time is over.
    async fn hold_request(&self, lock: usize, lasts: Duration) -> io::Result<()> {
        let held = self.faults().hold_next_request(&self.names[lock]).await?;
        tokio::time::sleep(lasts).await;
        // It is on its way when this is first polled. Whether it is answered is the server's affair: it
        // may have closed that connection.
        match tokio::time::timeout(LATE, held.deliver()).await {
            Ok(delivered) => delivered,
            Err(_) => Ok(()),
        }
    }

    async fn fail_over_late(&self, lasts: Duration) -> io::Result<()> {
        self.faults().stop_replication().await?;
        tokio::time::sleep(lasts).await;
        self.faults().fail_over().await
    }

    async fn step_clock(&self, seconds: i64) -> io::Result<()> {
        self.faults().step_clock(seconds).await?;
        self.clock_offset.store(seconds, Ordering::Relaxed);
        Ok(())
    }

    async fn turn(&self, what: Breakage, on: bool) -> io::Result<()> {
        let faults = self.faults();
        match what {
            Breakage::KillServer => faults.kill_server().await,
            Breakage::PauseServer => faults.pause_server().await,
            Breakage::BlackHole => faults.black_hole(on).await,
            Breakage::HoldReplies => faults.hold_replies(on).await,
            Breakage::DropReplies => faults.drop_replies(on).await,
            Breakage::DropPushes => faults.drop_pushes(on).await,
            Breakage::HalfOpen => faults.half_open(on).await,
            Breakage::LoseRequest => faults.drop_nth_request(u64::from(on)).await,
            Breakage::Slow if on => faults.delay(SLOW).await,
            Breakage::Slow => faults.delay(Duration::ZERO).await,
            Breakage::Cut if on => faults.cut().await,
            Breakage::Reset if on => faults.reset().await,
            Breakage::Compact if on => faults.compact().await,
            Breakage::MoveLeader if on => faults.move_leader().await,
            Breakage::Reconfigure if on => faults.reconfigure().await,
            Breakage::FlushScripts if on => faults.flush_scripts().await,
            _ => Ok(()),
        }
    }

    /// Breaks whoever holds the lock now. What is not answered may have been done.
    async fn break_hold(&self, name: &str) {
        let Ok(state) = self.operator.inspect(name).await else {
            return;
        };
        for holder in state.holders {
            let since = self.recorder().now();
            if !matches!(
                self.operator.break_hold(name, holder.token).await,
                Ok(false)
            ) {
                let token = holder.token.get();
                let broke = What::Trouble(Trouble::Broke { token, since });
                self.recorder().record(FAULTS, name, broke);
            }
        }
    }

    fn clock_offset(&self) -> i64 {
        self.clock_offset.load(Ordering::Relaxed)
    }

    fn note(&self, who: &str, trouble: Trouble) {
        self.recorder().record(who, "", What::Trouble(trouble));
    }

    fn recorder(&self) -> &Recorder {
        self.stand.recorder()
    }

    fn faults(&self) -> &dyn Faults {
        self.stand.faults()
    }
}

/// `done`, and no failure where it could not be done for this reason.
fn unless(kind: io::ErrorKind, done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == kind => Ok(()),
        done => done,
    }
}
