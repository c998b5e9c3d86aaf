//! One client of the lock server with its users, a clock of its own, and threads that are run by hand:
//! its background thread, and one for each user.
//!
//! A process that is stopped is just not run; its clock goes on meanwhile.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::backend::SimConnect;
use super::plan::{ProcessPlan, UserPlan};
use super::strand::Strand;
use super::timeline::Timeline;
use super::user::{Closing, User};
use super::world::World;
use crate::client::live;
use crate::clock::ManualClock;
use crate::locks::{Locks, Stats};
use crate::options::ClientOptions;
use crate::owner::OwnerId;

pub(super) struct Process {
    number: usize,
    plan: ProcessPlan,
    hand: ManualClock,
    timeline: Timeline,
    /// What is a thread of its own outside of simulations.
    background: Strand,
    /// Threads of users, and the life of each.
    users: Vec<Strand>,
    lives: Vec<JoinHandle<()>>,
    /// Whether somebody shuts it down, and whether it was killed.
    closing: bool,
    dead: bool,
    /// The life of the client.
    client: Option<JoinHandle<()>>,
    locks: Option<Locks>,
    /// By how many faults all of it is stopped, and by how many its users are.
    stops: u32,
    user_stops: u32,
    /// Tasks in the background that are there while nothing is going on.
    tasks_at_rest: usize,
}

impl Process {
    /// Starts a process and lets it connect.
    pub(super) fn start(world: &World, number: usize, plan: &ProcessPlan) -> Self {
        let timeline = Timeline::of(plan);
        let mut process = Self {
            number,
            plan: plan.clone(),
            hand: ManualClock::at(timeline.local(Duration::ZERO)),
            timeline,
            background: Strand::new(),
            users: Vec::new(),
            lives: Vec::new(),
            closing: false,
            dead: false,
            client: None,
            locks: None,
            stops: 0,
            user_stops: 0,
            tasks_at_rest: 0,
        };
        process.connect(world);
        process
    }

    fn connect(&mut self, world: &World) {
        let connect = SimConnect {
            world: world.clone(),
            process: self.number,
        };
        let (opened, client) = oneshot::channel();
        let (options, handle) = (self.options(), self.background.handle().clone());
        let life = self
            .background
            .spawn(async move { live(&connect, options, handle, opened).await });
        self.client = Some(life);
        self.background.run();
        let client = client.now_or_never().expect("connecting takes no time");
        let client = client.expect("a client says how it began");
        let locks = Locks::of(client.expect("there is nothing that could refuse it"));
        self.tasks_at_rest = locks.stats().tasks;
        self.locks = Some(locks);
    }

    fn options(&self) -> ClientOptions {
        let options = ClientOptions::default()
            .with_op_timeout(self.plan.op_timeout)
            .with_outage_limit(self.plan.outage_limit)
            .with_ttl(self.plan.ttl)
            .with_clock(self.hand.clock());
        match self.plan.max_hold {
            Some(max_hold) => options.with_max_hold(max_hold),
            None => options,
        }
    }

    /// Adds a user of this process.
    pub(super) fn admit(&mut self, world: &World, number: usize, plan: &UserPlan, owner: OwnerId) {
        let user = User {
            world: world.clone(),
            process: self.number,
            number,
            clock: self.hand.clock(),
            timeline: self.timeline,
            op_timeout: self.plan.op_timeout,
            locks: self.locks().clone(),
            owner,
        };
        self.start_thread(user.live(plan.visits.clone()));
    }

    /// Shuts the client down under its users, or after them: then that has to be clean.
    pub(super) fn shut_down(&mut self, world: &World, within: Duration, rests: bool) {
        let Some(locks) = self.locks.clone().filter(|_| !self.closing) else {
            return;
        };
        self.closing = true;
        world.state().witness.closing(self.number);
        let closing = Closing {
            world: world.clone(),
            process: self.number,
            op_timeout: self.plan.op_timeout,
            within,
            rests,
        };
        self.start_thread(closing.close(locks));
    }

    fn start_thread(&mut self, life: impl Future<Output = ()> + Send + 'static) {
        let strand = Strand::new();
        self.lives.push(strand.spawn(life));
        self.users.push(strand);
    }

    /// The parts of it that have something to do and are not stopped.
    pub(super) fn runnable(&mut self) -> impl Iterator<Item = &mut Strand> {
        let background = (self.stops == 0).then_some(&mut self.background);
        let users = (self.stops + self.user_stops == 0).then_some(&mut self.users);
        background
            .into_iter()
            .chain(users.into_iter().flatten())
            .filter(|strand| strand.is_runnable())
    }

    /// Ends what a background thread ends by ending.
    pub(super) fn bury_client(&mut self) {
        if self.client.as_ref().is_some_and(JoinHandle::is_finished) {
            self.client = None;
            leaving_no_trace(|| self.background.end());
        }
    }

    pub(super) fn stop(&mut self, users_only: bool) {
        *self.stops(users_only) += 1;
    }

    pub(super) fn go_on(&mut self, users_only: bool) {
        *self.stops(users_only) -= 1;
    }

    fn stops(&mut self, users_only: bool) -> &mut u32 {
        if users_only {
            &mut self.user_stops
        } else {
            &mut self.stops
        }
    }

    /// When a task that sleeps is to be woken, in the world's time.
    pub(super) fn next(&self) -> Option<Duration> {
        // A process that is stopped is not woken before it goes on, and then at once.
        let wake = self.hand.next_wake().filter(|_| self.stops == 0);
        wake.map(|at| self.timeline.world(at))
    }

    /// Moves its clock.
    pub(super) fn advance(&mut self, now: Duration) {
        self.hand.advance_to(self.timeline.local(now));
    }

    /// Whether it has not been killed.
    pub(super) fn is_alive(&self) -> bool {
        !self.dead
    }

    /// Whether it ends its client itself, and does not just let go of it.
    pub(super) fn shuts_down(&self) -> bool {
        self.plan.shuts_down
    }

    /// Whether its client has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_none()
    }

    /// Whether all its users have come to an end.
    pub(super) fn is_done(&self) -> bool {
        self.lives.iter().all(JoinHandle::is_finished)
    }

    /// Whether the client has nothing going on.
    pub(super) fn rests(&self) -> bool {
        self.is_closed()
            || self.locks.as_ref().is_some_and(|locks| {
                let Stats {
                    lines,
                    waiting,
                    holds,
                    cleanups,
                    ..
                } = locks.stats();
                (lines, waiting, holds, cleanups) == (0, 0, 0, 0)
            })
    }

    /// Whether its background has no more tasks than at the start.
    pub(super) fn has_no_tasks(&self) -> bool {
        self.is_closed() || self.locks().stats().tasks <= self.tasks_at_rest
    }

    /// How many users panicked.
    pub(super) fn panics(&mut self) -> usize {
        let lives = std::mem::take(&mut self.lives);
        let ends = lives.into_iter().filter_map(FutureExt::now_or_never);
        ends.filter(Result::is_err).count()
    }

    /// Lets go of the client, as a program that ends its use of locks.
    pub(super) fn drop_locks(&mut self) {
        self.locks = None;
    }

    /// Ends it at once, with all its tasks.
    pub(super) fn kill(&mut self) {
        self.dead = true;
        self.client = None;
        self.lives.clear();
        leaving_no_trace(|| {
            self.locks = None;
            self.users.clear();
            self.background.end();
        });
    }

    fn locks(&self) -> &Locks {
        self.locks
            .as_ref()
            .expect("only asked of a client that is in use")
    }
}

/// Drops tasks. Tokio does so in an order that depends on everything that ever ran in this program, so
/// random numbers that are drawn meanwhile do not count.
fn leaving_no_trace(dropping: impl FnOnce()) {
    let seed = fastrand::get_seed();
    dropping();
    fastrand::seed(seed);
}
