//! Worker processes: holders that can really be stopped and killed.
//!
//! A worker is the same program again, told by an environment variable to obey orders instead of
//! running the suite. Orders come in on standard input and answers go out on standard output, one
//! JSON object a line; the end of the input is the end of the worker, so that none outlives its
//! parent.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lock_core::{ClientOptions, Clock, FencingToken, Guard, Locks};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::case::Failure;
use crate::faketime::{self, WallClock, WallClocks};
use crate::harness::{Harness, Pace};
use crate::history::{Event, Left, Recorder, Refusal, What};
use crate::panics;
use crate::resource::ResourceClient;
use crate::workload::{Performer, Script, Sink, watch_for_stalls};

/// Set in a worker process, to its [`Setup`].
const ROLE: &str = "LOCK_CONFORMANCE_WORKER";
/// The longest a worker may take to start and connect on a busy machine.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize, Serialize)]
struct Setup {
    who: String,
    spec: String,
    op_timeout: Duration,
}

/// What a worker is told to do. Orders run side by side.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Order {
    /// Get a lock, and keep its guard under `key`.
    Acquire {
        /// Names the guard in later orders.
        key: u32,
        /// The lock.
        name: String,
        /// The lease.
        ttl: Duration,
        /// The longest wait; `None` waits for as long as it takes.
        within: Option<Duration>,
    },
    /// Ask the guard whether it still holds.
    Check {
        /// The guard.
        key: u32,
    },
    /// Give the guard up.
    Release {
        /// The guard.
        key: u32,
    },
    /// Increment the counter behind the lock, again and again.
    Count(Count),
    /// Say what the wall clock shows.
    Time,
    /// Do what the scripts of a workload say.
    Perform {
        /// One for each task.
        scripts: Vec<Script>,
        /// Where the resource is.
        resource: PathBuf,
    },
    /// Let every [`Order::Count`] and [`Order::Perform`] end with the section it is in.
    Finish,
}

/// A counting workload: acquire, read, think, write, release.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Count {
    /// The lock, and the slot of the resource.
    pub name: String,
    /// The lease.
    pub ttl: Duration,
    /// Where the resource is.
    pub resource: PathBuf,
    /// How many tasks count in this process.
    pub tasks: u32,
    /// How many increments each of them makes; `None` goes on until [`Order::Finish`].
    pub sections: Option<u32>,
    /// How long each thinks between reading and writing.
    pub think: Duration,
}

/// What a worker answers to an order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Answer {
    /// It is connected.
    Ready,
    /// The lock was granted with this token.
    Granted(u64),
    /// The lock was not had in time.
    Busy,
    /// Whether the guard is good.
    Valid(bool),
    /// How the release ended.
    Released(String),
    /// So many increments were taken by the resource.
    Counted(u64),
    /// What the wall clock shows, since 1970.
    Time(Duration),
    /// Done.
    Done,
    /// It failed.
    Failed(String),
}

#[derive(Debug, Deserialize, Serialize)]
struct Numbered<T> {
    id: u64,
    body: T,
}

#[derive(Debug, Deserialize, Serialize)]
enum Report {
    Answer(Numbered<Answer>),
    Event(Event),
    /// Something has panicked, and said this.
    Panic(String),
}

/// Does a worker's work, if this process is one; otherwise answers `None` at once.
///
/// Must be called first in `main`; [`main!`](crate::main) does.
#[must_use]
pub fn worker_entry(harness: &dyn Harness) -> Option<ExitCode> {
    let setup = std::env::var(ROLE).ok()?;
    let result = serde_json::from_str(&setup)
        .map_err(|error| error.to_string())
        .and_then(|setup| work(harness, setup));
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Report::Answer(Numbered {
                id: 0,
                body: Answer::Failed(error),
            }));
            ExitCode::FAILURE
        }
    })
}

fn work(harness: &dyn Harness, setup: Setup) -> Result<(), String> {
    panics::report_to(|said| report(&Report::Panic(said)));
    // The end of the input ends a worker that runs; one that is stopped would stay for ever.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    let connect = harness
        .connector(&setup.spec)
        .ok_or_else(|| format!("the harness does not read the spec {:?}", setup.spec))?;
    let orders = read_orders();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let options = ClientOptions::default()
            .with_op_timeout(setup.op_timeout)
            .with_label(setup.who.as_str());
        let locks = Locks::open(connect, options)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let hand = Hand {
            locks,
            who: setup.who,
            guards: Arc::default(),
            finish: Arc::new(watch::Sender::new(false)),
        };
        report(&Report::Answer(Numbered {
            id: 0,
            body: Answer::Ready,
        }));
        hand.obey(orders).await;
        Ok(())
    })
}

/// Reads orders on a thread of its own. When there are no more, the parent is gone, and so is this
/// process: at once, as if it had been killed.
fn read_orders() -> mpsc::UnboundedReceiver<Numbered<Order>> {
    let (tx, rx) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(order) => {
                    if tx.send(order).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        std::process::exit(0);
    });
    rx
}

fn report(report: &Report) {
    let text = serde_json::to_string(report).expect("reports are plain data");
    // A parent that is gone does not read; this process is about to end then.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[derive(Clone)]
struct Hand {
    locks: Locks,
    who: String,
    guards: Arc<Mutex<HashMap<u32, Guard>>>,
    finish: Arc<watch::Sender<bool>>,
}

impl Hand {
    async fn obey(self, mut orders: mpsc::UnboundedReceiver<Numbered<Order>>) {
        while let Some(Numbered { id, body }) = orders.recv().await {
            let hand = self.clone();
            tokio::spawn(async move {
                let body = match hand.carry_out(body).await {
                    Ok(answer) => answer,
                    Err(failure) => Answer::Failed(failure.to_string()),
                };
                report(&Report::Answer(Numbered { id, body }));
            });
        }
    }

    async fn carry_out(&self, order: Order) -> Result<Answer, Failure> {
        match order {
            Order::Acquire {
                key,
                name,
                ttl,
                within,
            } => self.acquire(key, &name, ttl, within).await,
            Order::Check { key } => {
                let guards = self.guards();
                let guard = guards.get(&key).ok_or_else(|| no_guard(key))?;
                Ok(Answer::Valid(guard.check().is_ok()))
            }
            Order::Release { key } => {
                let guard = self.guards().remove(&key).ok_or_else(|| no_guard(key))?;
                Ok(Answer::Released(format!(
                    "{:?}",
                    self.give_up(guard).await?
                )))
            }
            Order::Count(count) => self.count(count).await,
            Order::Time => Ok(Answer::Time(faketime::true_time())),
            Order::Perform { scripts, resource } => self.perform(scripts, resource).await,
            Order::Finish => {
                self.finish.send_replace(true);
                Ok(Answer::Done)
            }
        }
    }

    async fn acquire(
        &self,
        key: u32,
        name: &str,
        ttl: Duration,
        within: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let Some(guard) = self.get(name, ttl, within).await? else {
            return Ok(Answer::Busy);
        };
        let token = guard.token().get();
        let lost = guard.lost();
        self.guards().insert(key, guard);
        let (who, name) = (self.who.clone(), name.to_owned());
        tokio::spawn(async move {
            let why = format!("{:?}", lost.await);
            event(&who, &name, What::Note(format!("lost {token}: {why}")));
        });
        Ok(Answer::Granted(token))
    }

    async fn get(
        &self,
        name: &str,
        ttl: Duration,
        within: Option<Duration>,
    ) -> Result<Option<Guard>, Failure> {
        let asked = Clock::system().now().since_origin();
        let mutex = self.locks.mutex(name).ttl(ttl);
        let guard = match within {
            Some(within) => mutex.acquire_within(within).await?,
            None => Some(mutex.acquire().await?),
        };
        let what = match &guard {
            Some(guard) => What::Granted {
                asked,
                token: guard.token().get(),
            },
            None => What::Refused {
                asked,
                why: Refusal::Busy,
            },
        };
        event(&self.who, name, what);
        Ok(guard)
    }

    async fn give_up(&self, guard: Guard) -> Result<lock_core::Released, Failure> {
        let token = guard.token().get();
        let name = guard.name().as_str().to_owned();
        event(&self.who, &name, What::Releasing { token });
        let released = guard.release().await;
        let how = Left::from(&released);
        event(&self.who, &name, What::Released { token, how });
        Ok(released?)
    }

    async fn perform(&self, scripts: Vec<Script>, resource: PathBuf) -> Result<Answer, Failure> {
        let sink: Sink = Arc::new(|event| report(&Report::Event(event)));
        let who = vec![self.who.clone()];
        let watching = tokio::spawn(watch_for_stalls(who, Arc::clone(&sink)));
        let tasks = scripts.into_iter().map(|script| {
            let performer = Performer {
                locks: self.locks.clone(),
                sink: Arc::clone(&sink),
                resource: resource.clone(),
                finish: self.finish.subscribe(),
            };
            tokio::spawn(performer.perform(script))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await
                .map_err(|error| Failure::new(error.to_string()))??;
        }
        watching.abort();
        Ok(Answer::Done)
    }

    async fn count(&self, count: Count) -> Result<Answer, Failure> {
        let mut tasks = Vec::new();
        for _ in 0..count.tasks {
            let (hand, count) = (self.clone(), count.clone());
            tasks.push(tokio::spawn(async move { hand.count_alone(&count).await }));
        }
        let mut counted = 0;
        for task in tasks {
            counted += task
                .await
                .map_err(|error| Failure::new(error.to_string()))??;
        }
        Ok(Answer::Counted(counted))
    }

    async fn count_alone(&self, count: &Count) -> Result<u64, Failure> {
        let mut resource = ResourceClient::connect(&count.resource, &self.who).await?;
        let finish = self.finish.subscribe();
        let wanted = count.sections.map_or(u64::MAX, u64::from);
        let mut counted = 0;
        while counted < wanted && !*finish.borrow() {
            let guard = self.get(&count.name, count.ttl, None).await?;
            let guard = guard.expect("a wait without end ends with a grant");
            // The lock is deliberately not asked again before the write: this is the program that
            // does not know it was paused, and that only the fence can stop.
            if increment(&mut resource, &count.name, guard.token(), count.think).await? {
                counted += 1;
            }
            self.give_up(guard).await?;
        }
        Ok(counted)
    }

    fn guards(&self) -> MutexGuard<'_, HashMap<u32, Guard>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_guard(key: u32) -> Failure {
    Failure::new(format!("there is no guard {key}"))
}

fn event(who: &str, name: &str, what: What) {
    report(&Report::Event(Event {
        at: Clock::system().now().since_origin(),
        who: who.to_owned(),
        name: name.to_owned(),
        what,
    }));
}

/// Adds one to the counter, the way programs do: read, think, write. Whether it was taken.
pub(crate) async fn increment(
    resource: &mut ResourceClient,
    slot: &str,
    token: FencingToken,
    think: Duration,
) -> io::Result<bool> {
    let Some(seen) = resource.read(slot, token).await? else {
        return Ok(false);
    };
    if think.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(think).await;
    }
    resource.write(slot, token, seen + 1).await
}

/// Starts workers for one arena.
#[derive(Debug)]
pub(crate) struct Workers {
    spec: String,
    pace: Pace,
    recorder: Recorder,
    clocks: Option<WallClocks>,
}

impl Workers {
    pub(crate) fn new(spec: &str, pace: Pace, recorder: Recorder) -> Self {
        Self {
            spec: spec.to_owned(),
            pace,
            recorder,
            clocks: None,
        }
    }

    /// Gives each a wall clock that can be set.
    pub(crate) fn with_wall_clocks(mut self, clocks: WallClocks) -> Self {
        self.clocks = Some(clocks);
        self
    }

    pub(crate) async fn start(&self, count: usize) -> Result<Vec<Worker>, Failure> {
        let starting: Vec<_> = (0..count)
            .map(|number| self.spawn(format!("worker {number}")))
            .collect::<Result<_, _>>()?;
        let mut workers = Vec::new();
        for (worker, ready) in starting {
            match tokio::time::timeout(START, ready).await {
                Ok(Ok(Answer::Ready)) => {
                    faketime::unlink_shared_memory(worker.child.id());
                    workers.push(worker);
                }
                other => {
                    return Err(Failure::new(format!(
                        "{} did not start: {other:?}",
                        worker.who
                    )));
                }
            }
        }
        Ok(workers)
    }

    fn spawn(&self, who: String) -> io::Result<(Worker, oneshot::Receiver<Answer>)> {
        let setup = Setup {
            who: who.clone(),
            spec: self.spec.clone(),
            op_timeout: self.pace.op_timeout,
        };
        let (clock, env) = match &self.clocks {
            Some(clocks) => {
                let (clock, env) = clocks.of(&who)?;
                (Some(clock), env.into())
            }
            None => (None, Vec::new()),
        };
        let mut child = Command::new(std::env::current_exe()?)
            .envs(env)
            .env(ROLE, serde_json::to_string(&setup)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What is typed at the terminal is for the parent, which ends its workers by itself.
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take().expect("was piped");
        let output = child.stdout.take().expect("was piped");
        let answers = Answers::default();
        let ready = answers.expect(0);
        let (pending, recorder) = (answers.clone(), self.recorder.clone());
        thread::spawn(move || listen(BufReader::new(output), &pending, &recorder));
        let worker = Worker {
            who,
            child,
            clock,
            input: Mutex::new(input),
            answers,
            next: AtomicU64::new(1),
            struck: AtomicBool::new(false),
        };
        Ok((worker, ready))
    }
}

#[derive(Clone, Default)]
struct Answers(Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

impl Answers {
    fn pending(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, id: u64) -> oneshot::Receiver<Answer> {
        let (tx, rx) = oneshot::channel();
        self.pending().insert(id, tx);
        rx
    }
}

fn listen(output: impl BufRead, answers: &Answers, recorder: &Recorder) {
    for line in output.lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Report::Event(event)) => recorder.add(event),
            Ok(Report::Answer(Numbered { id, body })) => {
                if let Some(waiting) = answers.pending().remove(&id) {
                    // Whoever asked may have stopped waiting.
                    let _ = waiting.send(body);
                }
            }
            Ok(Report::Panic(said)) => {
                panics::heard();
                recorder.record("worker", "", What::Note(said));
            }
            Err(_) => recorder.record("worker", "", What::Note(line)),
        }
    }
    // Whoever still waits learns that the worker has ended.
    answers.pending().clear();
}

/// A worker process. Killed when dropped.
#[derive(Debug)]
pub struct Worker {
    who: String,
    child: Child,
    clock: Option<WallClock>,
    input: Mutex<ChildStdin>,
    answers: Answers,
    next: AtomicU64,
    struck: AtomicBool,
}

impl Worker {
    /// What it is called in the history, and at the resource.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Gives an order now; its answer can be awaited later.
    ///
    /// # Errors
    /// When the worker fails or has ended.
    pub fn begin(
        &self,
        order: Order,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send + 'static {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers.expect(id);
        let sent = self.send(&Numbered { id, body: order });
        let who = self.who.clone();
        async move {
            sent?;
            match answer.await {
                Ok(Answer::Failed(why)) => Err(Failure::new(format!("{who}: {why}"))),
                Ok(answer) => Ok(answer),
                Err(_) => Err(Failure::new(format!("{who} has ended"))),
            }
        }
    }

    /// Gets a lock in the worker and keeps its guard under key 0; its token.
    ///
    /// # Errors
    /// When the worker fails or has ended.
    pub async fn acquire(&self, name: &str, ttl: Duration) -> Result<u64, Failure> {
        let order = Order::Acquire {
            key: 0,
            name: name.to_owned(),
            ttl,
            within: None,
        };
        match self.begin(order).await? {
            Answer::Granted(token) => Ok(token),
            other => Err(Failure::new(format!("{}: {other:?}", self.who))),
        }
    }

    fn send(&self, order: &Numbered<Order>) -> io::Result<()> {
        let mut text = serde_json::to_string(order)?;
        text.push('\n');
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.write_all(text.as_bytes())?;
        input.flush()
    }

    /// Sets its wall clock to true time plus so many seconds, and looks whether it shows that: a test with
    /// a clock that does not move would pass for nothing.
    pub(crate) async fn set_wall_clock(&self, seconds: i64) -> Result<(), Failure> {
        let clock = self.clock.as_ref();
        let clock = clock.ok_or_else(|| Failure::new("this worker has the machine's clock"))?;
        clock.set(seconds)?;
        let before = faketime::true_time();
        match self.begin(Order::Time).await? {
            Answer::Time(seen) if faketime::is_off_by(seconds, before, seen) => Ok(()),
            other => Err(Failure::new(format!(
                "{}: its clock should be off by {seconds} s at {before:?}: {other:?}",
                self.who
            ))),
        }
    }

    /// Stops it in its tracks, and waits until it has stopped.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        // The signal takes effect when the process is next scheduled; its state says when.
        for _ in 0..10_000 {
            if self.state()? == 'T' {
                return Ok(());
            }
            thread::sleep(Duration::from_micros(200));
        }
        Err(io::Error::other(format!("{} does not stop", self.who)))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it, without a last word.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Kills it, without waiting until it is gone.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn strike_down(&self) -> io::Result<()> {
        self.struck.store(true, Ordering::SeqCst);
        self.signal(Signal::SIGKILL)
    }

    /// Whether it was [struck down](Self::strike_down): it owes nobody an answer from then on.
    pub(crate) fn is_struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(io::Error::from)
    }

    /// The letter that the system shows for the process.
    fn state(&self) -> io::Result<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The command in parentheses may hold anything; the state follows the last one.
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest);
        after
            .and_then(|rest| rest.chars().next())
            .ok_or_else(|| io::Error::other("an unreadable process state"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
