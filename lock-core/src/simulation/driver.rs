//! Moves the time, and runs whatever can run in between, in an order that the seed decides.

use std::time::Duration;

use fastrand::Rng;

use super::Outcome;
use super::plan::{FaultKind, HEALED, Plan};
use super::process::Process;
use super::world::World;
use crate::owner::OwnerId;

/// How long it may take until every user has been served, once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a client may need until nothing is left of what its users did.
const REST: Duration = Duration::from_secs(40);
/// How long a clean shutdown of an idle client may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// More steps than this at one instant, or in all, are a loop that spins.
const MOST_STEPS_AT_ONCE: u32 = 10_000;
const MOST_STEPS: u32 = 1_000_000;

pub(super) struct Simulation {
    world: World,
    processes: Vec<Process>,
    /// In which order processes run that can run at the same time.
    rng: Rng,
    /// When what was stopped goes on.
    resumptions: Vec<(Duration, FaultKind)>,
    healed: bool,
    steps_at_once: u32,
    steps: u32,
}

impl Simulation {
    pub(super) fn new(plan: &Plan, keeps_history: bool) -> Self {
        let world = World::new(plan, keeps_history);
        let mut processes: Vec<_> = plan
            .processes
            .iter()
            .enumerate()
            .map(|(number, process)| Process::start(&world, number, process))
            .collect();
        let owners: Vec<_> = processes.iter().map(|_| OwnerId::new()).collect();
        for (number, user) in plan.users.iter().enumerate() {
            processes[user.process].admit(&world, number, user, owners[user.process]);
        }
        Self {
            world,
            processes,
            rng: Rng::with_seed(!plan.seed),
            resumptions: Vec::new(),
            healed: false,
            steps_at_once: 0,
            steps: 0,
        }
    }

    /// Plays the schedule to its end, or to the first violation.
    pub(super) fn play(&mut self, plan: &Plan) {
        // A calm schedule has nothing to wait for but its users.
        let patience = if plan.is_calm() {
            plan.length()
        } else {
            HEALED + PATIENCE
        };
        let played = self
            .until("P7", "users are not served", patience, |process| {
                process.is_done()
            })
            .and_then(|()| {
                self.heal();
                let limit = self.now() + REST;
                self.until(
                    "P6",
                    "a client does not come to rest",
                    limit,
                    Process::rests,
                )
            })
            .and_then(|()| {
                // A renewal of what was released meanwhile may be under way.
                let limit = self.now() + REST;
                self.until("R12", "tasks are left", limit, Process::has_no_tasks)
            })
            .and_then(|()| self.look_for_panics())
            .and_then(|()| self.close())
            .and_then(|()| self.until_empty());
        if let Ok(()) = played {
            self.world.state().witness.concludes();
        }
    }

    /// Runs until `done` holds for every process that lives.
    fn until(
        &mut self,
        rule: &'static str,
        complaint: &str,
        limit: Duration,
        done: impl Fn(&Process) -> bool,
    ) -> Result<(), Violated> {
        loop {
            self.settle()?;
            let waits = self
                .processes
                .iter()
                .position(|process| process.is_alive() && !done(process));
            let Some(waits) = waits else {
                return Ok(());
            };
            if !self.step(limit) {
                let mut state = self.world.state();
                state
                    .witness
                    .accuse(rule, || format!("{complaint}: process {waits}"));
                return Err(Violated);
            }
        }
    }

    fn look_for_panics(&mut self) -> Result<(), Violated> {
        let panics: usize = self.processes.iter_mut().map(Process::panics).sum();
        if panics > 0 {
            let mut state = self.world.state();
            state
                .witness
                .accuse("R8", || format!("{panics} users panicked"));
        }
        self.verdict()
    }

    /// Closes every client: it has to be clean, since nothing is going on.
    fn close(&mut self) -> Result<(), Violated> {
        for process in &mut self.processes {
            if !process.is_alive() || process.is_closed() {
                continue;
            }
            if process.shuts_down() {
                process.shut_down(&self.world, GOODBYE, true);
            }
            process.drop_locks();
        }
        // Forgotten guards keep their clients alive.
        let attic = std::mem::take(&mut self.world.state().attic);
        drop(attic);
        let limit = self.now() + GOODBYE * 2;
        self.until("R12", "a client does not end", limit, Process::is_closed)
    }

    /// What dead clients left ends by itself.
    fn until_empty(&mut self) -> Result<(), Violated> {
        let limit = self.now() + REST;
        loop {
            self.settle()?;
            if self.world.state().server().is_empty() {
                return Ok(());
            }
            if !self.step(limit) {
                let mut state = self.world.state();
                state
                    .witness
                    .accuse("P6", || "the server never forgets a client".to_owned());
                return Err(Violated);
            }
        }
    }

    /// Runs everything that can run at this instant, in any order.
    fn settle(&mut self) -> Result<(), Violated> {
        loop {
            let processes = self.processes.iter_mut();
            let mut runnable: Vec<_> = processes.flat_map(Process::runnable).collect();
            if runnable.is_empty() {
                break;
            }
            let chosen = self.rng.usize(..runnable.len());
            runnable[chosen].run();
            self.processes.iter_mut().for_each(Process::bury_client);
            self.count_step();
            self.verdict()?;
        }
        self.look_at_rest();
        self.verdict()
    }

    fn verdict(&self) -> Result<(), Violated> {
        match self.world.state().witness.violation() {
            None => Ok(()),
            Some(_) => Err(Violated),
        }
    }

    fn count_step(&mut self) {
        self.steps_at_once += 1;
        self.steps += 1;
        if self.steps_at_once > MOST_STEPS_AT_ONCE || self.steps > MOST_STEPS {
            let mut state = self.world.state();
            state.witness.accuse("R7", || "something spins".to_owned());
        }
    }

    /// Whoever has nothing to do must have nothing at the server either.
    fn look_at_rest(&mut self) {
        let mut state = self.world.state();
        state.witness.settled();
        for (number, process) in self.processes.iter().enumerate() {
            if process.is_alive() && !process.is_closed() && process.rests() {
                let now = state.now();
                if let Some(trace) = state.server().trace_of(now, number) {
                    let since = state.link(number).releasing_since(&trace.nonce);
                    state.witness.rests(now, trace, since);
                }
            }
        }
    }

    /// Goes on to the next instant at which something happens; `false` when that is after `limit`.
    fn step(&mut self, limit: Duration) -> bool {
        let next = [
            self.world.state().next(),
            self.resumptions.first().map(|(at, _)| *at),
        ]
        .into_iter()
        .chain(self.processes.iter().map(Process::next))
        .flatten()
        .min();
        let heals = (!self.healed).then_some(HEALED);
        let Some(next) = [next, heals]
            .into_iter()
            .flatten()
            .min()
            .filter(|next| *next <= limit)
        else {
            return false;
        };
        if next > self.now() {
            self.steps_at_once = 0;
        }
        for process in &mut self.processes {
            process.advance(next);
        }
        let faults = self.world.state().advance(next);
        for (kind, lasts) in faults {
            self.begin(kind, next + lasts);
        }
        self.resume(next);
        if next >= HEALED {
            self.heal();
        }
        true
    }

    fn now(&self) -> Duration {
        self.world.state().now()
    }

    fn heal(&mut self) {
        if !self.healed {
            self.healed = true;
            self.world.state().heal();
        }
    }

    /// Lets a fault of a process begin.
    fn begin(&mut self, kind: FaultKind, until: Duration) {
        let now = self.now();
        match kind {
            FaultKind::Pause { process } | FaultKind::Block { process } => {
                self.processes[process].stop(kind.stops_users_only());
                self.world.state().witness.suspended(process, now);
                self.resumptions.push((until, kind));
                self.resumptions.sort_by_key(|(at, _)| *at);
            }
            FaultKind::Crash { process } => {
                self.world.state().bury(process);
                self.processes[process].kill();
            }
            FaultKind::Shutdown { process } => {
                let process = &mut self.processes[process];
                process.shut_down(&self.world, until - now, false);
            }
            _ => {}
        }
    }

    /// Lets what was stopped until `now` go on.
    fn resume(&mut self, now: Duration) {
        while self
            .resumptions
            .first()
            .is_some_and(|(until, _)| *until <= now)
        {
            let (_, kind) = self.resumptions.remove(0);
            if let FaultKind::Pause { process } | FaultKind::Block { process } = kind {
                self.world.state().witness.resumed(process, now);
                self.processes[process].go_on(kind.stops_users_only());
            }
        }
    }

    /// Ends all processes before the world goes that they refer to; says how it went.
    pub(super) fn end(mut self) -> Outcome {
        let mut state = self.world.state();
        let outcome = Outcome {
            violation: state.witness.violation().cloned(),
            history: state.history.take(),
        };
        let attic = std::mem::take(&mut state.attic);
        drop(state);
        drop(attic);
        self.processes.iter_mut().for_each(Process::kill);
        outcome
    }
}

/// Something was seen that must not be.
#[derive(Clone, Copy, Debug)]
struct Violated;
