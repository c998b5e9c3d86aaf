//! Running a plan on a stand.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use lock_core::{Connect, Locks, WaitOrder};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::drive::Driver;
use super::faults::Breakage;
use super::kind::Kind;
use super::look::{SUITE, look_at_rest, watch_queue};
use super::perform::{Performer, Sink};
use super::plan::Plan;
use super::script::{ClientPlan, Place};
use super::stall::{STALL, watch_for_stalls};
use crate::case::{Failure, Fault};
use crate::environment;
use crate::history::{Event, Hits, Record, Terms};
use crate::resource::{Fencing, Resource};
use crate::stand::{SOON, Stand};
use crate::worker::{Order, Worker};

/// What became of a plan.
pub(crate) struct Ran {
    /// The history.
    pub(crate) events: Vec<Event>,
    /// The backend's own record of it, where it has one.
    pub(crate) records: Option<Vec<Record>>,
    /// What the history is held to.
    pub(crate) terms: Terms,
    /// What went wrong besides.
    pub(crate) trouble: Option<Failure>,
}

/// How soon a free lock is granted where nothing was broken at all, on a busy machine.
const PROMPT: Duration = Duration::from_secs(4);

/// How long a client may take to get hold of a server that is there again, its operations aside.
const RECONNECT: Duration = Duration::from_secs(3);

/// The variable that gives seeded cases their seed.
pub(crate) const SEED: &str = "LOCK_TEST_SEED";

/// The seed of this run of the suite's seeded cases: the given one, or any.
pub(crate) fn seed() -> Result<u64, String> {
    let given = environment::number(SEED)?;
    // Short enough to be typed.
    Ok(given.unwrap_or_else(|| fastrand::u64(..1_000_000_000)))
}

/// Runs the plan to its end: clients, faults, and a last look at every lock.
pub(crate) async fn run(stand: &Stand, plan: &Plan) -> Result<Ran, Failure> {
    let recorder = stand.recorder().clone();
    let resource = Resource::start(plan.fencing, recorder.clone())?;
    let faults = witnessed(stand, plan).then(|| stand.faults());
    let witness = match faults {
        Some(faults) => Some(faults.witness().await?),
        None => None,
    };
    let crew = Crew::assemble(stand, plan).await?;
    let operator = crew.operator.clone();
    let mut watching = Background::default();
    watching.add(watch_for_stalls(crew.here(), sink(stand)));
    if plan.kind == Kind::Queue {
        let names = plan.names.clone();
        watching.add(watch_queue(operator.clone(), names, recorder.clone()));
    }
    let working = crew.start(plan, &resource.path());
    let driving = drive(stand, plan, &crew);
    tokio::time::sleep(plan.length).await;
    let driven = driving.await;
    crew.finish();
    let progress = bound(stand, plan);
    let patience = progress + plan.longest_step() + SOON;
    let ended = tokio::time::timeout(patience, working).await;
    let mut trouble = driven.err();
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => trouble = trouble.or(Some(failure)),
        Err(_) => {
            let stuck = format!("not within {patience:?}: all tasks end");
            trouble = trouble.or(Some(Failure::new(stuck)));
        }
    }
    let looking = plan.names.iter();
    let looking = looking.map(|name| look_at_rest(&operator, name, progress, &recorder));
    join_all(looking).await;
    let dismissed = crew.dismiss(plan.ttl + SOON).await;
    trouble = trouble.or(dismissed.err());
    let records = match witness {
        Some(witness) => Some(witness.records().await?),
        None => None,
    };
    Ok(Ran {
        events: recorder.events(),
        records,
        terms: Terms {
            fenced: plan.fencing == Fencing::Checked,
            fifo: stand.capabilities().wait_order == WaitOrder::Fifo,
            progress,
            prompt: stand.claim_window() + stand.slack() + PROMPT,
            recovery: stand.pace().op_timeout * 2 + RECONNECT,
            op_timeout: stand.pace().op_timeout + stand.slack(),
            kept_ttl: stand.kept_ttl(),
            lateness: STALL + STALL / 2,
        },
        trouble,
    })
}

/// Whether the backend's own record is read. A witness may be a client of the server too, who sees nothing of what
/// happens while the server itself is broken, and nothing of a past that was compacted.
fn witnessed(stand: &Stand, plan: &Plan) -> bool {
    let mut hurt = plan.faults.iter().filter_map(|fault| hurts(fault.what));
    stand.supports(Fault::Witness) && hurt.all(|fault| stand.faults().witness_outlives(fault))
}

/// What is done to the server itself, if anything.
fn hurts(what: Breakage) -> Option<Fault> {
    match what {
        Breakage::KillServer => Some(Fault::Kill),
        Breakage::PauseServer => Some(Fault::Pause),
        Breakage::LoseData => Some(Fault::Wipe),
        Breakage::Compact => Some(Fault::Compact),
        Breakage::MoveLeader => Some(Fault::MoveLeader),
        Breakage::Reconfigure => Some(Fault::Reconfigure),
        Breakage::FailOver => Some(Fault::Failover),
        Breakage::FailOverLate => Some(Fault::StopReplication),
        Breakage::StepClock(_) => Some(Fault::StepClock),
        _ => None,
    }
}

/// How soon a free lock has to be granted when nothing is broken any more, on a busy machine, and with
/// a holder that died just then.
fn bound(stand: &Stand, plan: &Plan) -> Duration {
    stand.replaced_within(plan.longest_orphan())
        + stand.claim_window()
        + stand.pace().op_timeout * 2
        + SOON
}

/// Starts breaking things; what comes back ends when all of that is done, and dropped it ends it.
fn drive(
    stand: &Stand,
    plan: &Plan,
    crew: &Crew,
) -> impl Future<Output = Result<(), Failure>> + use<> {
    let driver = Driver {
        stand: stand.clone(),
        names: plan.names.clone(),
        workers: Arc::clone(&crew.workers),
        operator: crew.operator.clone(),
        on_the_wire: on_the_wire(stand, plan),
        clock_offset: AtomicI64::new(0),
    };
    let steps = plan.faults.clone();
    let (alive, abandoned) = oneshot::channel::<()>();
    // Servers are stopped and started by calls that block.
    let runtime = tokio::runtime::Handle::current();
    let driving = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                // First: an abandoned driver must not touch a runtime that is going down.
                biased;
                _ = abandoned => Ok(()),
                driven = driver.drive(steps) => driven,
            }
        })
    });
    async move {
        let driven = driving.await;
        drop(alive);
        driven.unwrap_or_else(|error| Err(Failure::new(format!("whoever breaks things: {error}"))))
    }
}

/// Who is hit by what happens to connections. Where servers take each other's place, they may do so behind the
/// address that everybody has, by way of what stands in the middle.
fn on_the_wire(stand: &Stand, plan: &Plan) -> Hits {
    if stand.injects(Fault::Failover) {
        return Hits::Everybody;
    }
    let proxied = plan
        .clients
        .iter()
        .filter(|client| client.place == Place::Proxied);
    Hits::These(proxied.map(|client| client.who.clone()).collect())
}

fn sink(stand: &Stand) -> Sink {
    let recorder = stand.recorder().clone();
    Arc::new(move |event| recorder.add(event))
}

/// Every client of a plan.
struct Crew {
    here: Vec<(ClientPlan, Locks)>,
    workers: Arc<Vec<Worker>>,
    operator: Locks,
    sink: Sink,
    finish: watch::Sender<bool>,
}

impl Crew {
    async fn assemble(stand: &Stand, plan: &Plan) -> Result<Self, Failure> {
        let mut here = Vec::new();
        for client in &plan.clients {
            let connect: Box<dyn Connect> = match client.place {
                Place::Here => stand.connector(),
                Place::Proxied => stand.proxied_connector(),
                Place::Worker => continue,
            };
            let options = stand.options().with_label(client.who.as_str());
            here.push((client.clone(), Locks::open(connect, options).await?));
        }
        let workers = plan.clients.len() - here.len();
        let workers = match workers {
            0 => Vec::new(),
            count => stand.workers(count).await?,
        };
        let options = stand.options().with_label(SUITE).with_ttl(plan.ttl);
        Ok(Self {
            here,
            workers: Arc::new(workers),
            operator: Locks::open(stand.connector(), options).await?,
            sink: sink(stand),
            finish: watch::Sender::new(false),
        })
    }

    fn here(&self) -> Vec<String> {
        self.here
            .iter()
            .map(|(client, _)| client.who.clone())
            .collect()
    }

    /// Starts every script; what comes back ends when all have.
    fn start(
        &self,
        plan: &Plan,
        resource: &Path,
    ) -> impl Future<Output = Result<(), Failure>> + use<> {
        let mut running: Vec<BoxFuture<'static, Result<(), Failure>>> = Vec::new();
        for (client, locks) in &self.here {
            for script in &client.scripts {
                let performer = Performer {
                    locks: locks.clone(),
                    sink: Arc::clone(&self.sink),
                    resource: resource.to_owned(),
                    finish: self.finish.subscribe(),
                };
                let task = Spawned(tokio::spawn(performer.perform(script.clone())));
                running.push(Box::pin(task.joined()));
            }
        }
        let of_workers = plan
            .clients
            .iter()
            .filter(|client| client.place == Place::Worker);
        for (number, client) in of_workers.enumerate() {
            let workers = Arc::clone(&self.workers);
            let order = Order::Perform {
                scripts: client.scripts.clone(),
                resource: resource.to_owned(),
            };
            let performed = workers[number].begin(order);
            let who = client.who.clone();
            running.push(Box::pin(async move {
                match performed.await {
                    Ok(_) => Ok(()),
                    Err(_) if workers[number].is_struck() => Ok(()),
                    Err(failure) => Err(Failure::new(format!("{who}: {failure}"))),
                }
            }));
        }
        async move { join_all(running).await.into_iter().collect() }
    }

    fn finish(&self) {
        self.finish.send_replace(true);
        for worker in self.workers.iter() {
            // One that was killed does not hear it.
            drop(worker.begin(Order::Finish));
        }
    }

    async fn dismiss(self, patience: Duration) -> Result<(), Failure> {
        for (client, locks) in &self.here {
            leaves_nothing(&client.who, locks, patience).await?;
        }
        leaves_nothing(SUITE, &self.operator, patience).await
    }
}

/// Shuts a client down that nobody uses any more: there is nothing that it could not finish, though what was lost
/// by the clock is taken back only when its lease is certainly over.
async fn leaves_nothing(who: &str, locks: &Locks, patience: Duration) -> Result<(), Failure> {
    let report = locks.shutdown(patience).await?;
    match report.is_clean() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{who} was shut down, and left something: {report:?}"
        ))),
    }
}

/// A task that ends with whoever waits for it.
struct Spawned(JoinHandle<Result<(), Failure>>);

impl Spawned {
    async fn joined(mut self) -> Result<(), Failure> {
        match (&mut self.0).await {
            Ok(done) => done,
            Err(error) => Err(Failure::new(format!("a task of the workload: {error}"))),
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tasks that go on beside a run and end with it.
#[derive(Default)]
struct Background(Vec<JoinHandle<()>>);

impl Background {
    fn add(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
