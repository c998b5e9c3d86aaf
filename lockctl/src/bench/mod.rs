//! `lockctl bench`: how a backend does under a growing load, and whether it excludes.
//!
//! * [`plan`]: what one process does in one level. [`load`] does it, here or in a [`worker`].
//! * [`counters`]: what only the lock keeps exact. [`server`]: what the server has counted.
//! * [`tally`] and [`report`]: what came of it.

mod counters;
mod load;
mod plan;
mod report;
mod server;
mod tally;
mod worker;

use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::time::Duration;

use distlock::{Capabilities, Clock, Locks, Nonce, Scope};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;

use self::counters::Counters;
pub(crate) use self::plan::Keys;
use self::plan::{Plan, shares};
use self::report::Level;
use self::server::Server;
use self::tally::{Tally, Waits};
use self::worker::Worker;
use crate::cli::{BenchArgs, Format};
use crate::connect;
use crate::exit::{self, Failure};
use crate::output;

/// How long the backend may take to confirm what is given back at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Does the work of a worker, if this process was started as one.
pub(crate) fn worker_entry() -> Option<ExitCode> {
    let role = std::env::args_os().nth(1)?;
    (role == worker::WORKER).then(worker::main)
}

pub(crate) fn bench(url: &str, format: Format, args: &BenchArgs) -> Result<u8, Failure> {
    let json = args.json || format == Format::Json;
    let mut stage = Stage::set(url, args)?;
    let bar = progress(args, json);
    let mut levels = Vec::new();
    for (number, &tasks) in args.tasks.iter().enumerate() {
        bar.set_message(format!("{tasks} tasks"));
        let level = stage.level(number, tasks, args, &bar)?;
        if json {
            output::print_json(&level.json(stage.capabilities.backend))?;
        }
        levels.push(level);
    }
    bar.finish_and_clear();
    if !json {
        output::print(&report::text(&levels))?;
    }
    stage.leave()?;
    if levels.iter().all(|level| level.tally.sections == 0) {
        let error = levels
            .iter()
            .find_map(|level| level.tally.first_error.clone());
        let why = error.unwrap_or_else(|| "nobody got a lock".to_owned());
        return Err(Failure::new(exit::UNAVAILABLE, why));
    }
    Ok(output::verdict(levels.iter().all(Level::is_exact)))
}

/// Everything that is there for the whole gradient.
struct Stage {
    runtime: Runtime,
    locks: Locks,
    capabilities: Capabilities,
    /// Empty when this process does the work itself.
    workers: Vec<Worker>,
    server: Option<Server>,
    /// Has no name that could be left behind; workers open it by this process's descriptor.
    counters: File,
    /// What nobody else's locks begin with.
    prefix: String,
}

impl Stage {
    fn set(url: &str, args: &BenchArgs) -> Result<Self, Failure> {
        let runtime = connect::runtime()?;
        let locks = runtime.block_on(connect::connect(url, "lockctl bench"))?;
        let capabilities = locks.capabilities();
        if args.processes > 1 && capabilities.scope == Scope::Process {
            return Err(Failure::usage(format!(
                "{}:// is private to its process; leave --processes at 1",
                capabilities.backend
            )));
        }
        let workers = match args.processes {
            1 => Vec::new(),
            many => (0..many)
                .map(|_| Worker::start(url))
                .collect::<Result<_, _>>()?,
        };
        let counters = tempfile::tempfile()
            .map_err(|error| Failure::system("the file with the counters", &error))?;
        Ok(Self {
            prefix: format!("lockctl-bench/{}", Nonce::new()),
            runtime,
            locks,
            capabilities,
            workers,
            server: Server::reach(url),
            counters,
        })
    }

    fn level(
        &mut self,
        number: usize,
        tasks: u32,
        args: &BenchArgs,
        bar: &ProgressBar,
    ) -> Result<Level, Failure> {
        let failed = |error| Failure::system("the file with the counters", &error);
        let keys = match args.keys {
            Keys::One => 1,
            Keys::Distinct => tasks,
        };
        let path = format!("/proc/{}/fd/{}", process::id(), self.counters.as_raw_fd());
        let path = PathBuf::from(path);
        let counters = Counters::open(&path).map_err(failed)?;
        counters.reset(keys).map_err(failed)?;
        let plan = |(first_task, tasks)| Plan {
            prefix: format!("{}/{number}", self.prefix),
            keys: args.keys,
            first_task,
            tasks,
            length: args.seconds,
            hold: args.hold,
            counters: path.clone(),
        };
        let plans: Vec<_> = shares(tasks, args.processes).map(plan).collect();
        let before = self.server.as_mut().and_then(Server::commands);
        let clock = Clock::system();
        let began = clock.now();
        let tally = self.perform(&plans, bar)?;
        let took = clock.now().saturating_since(began);
        let after = self.server.as_mut().and_then(Server::commands);
        Ok(Level {
            tasks,
            processes: args.processes,
            keys: args.keys,
            took,
            waits: Waits::of(&tally),
            counted: counters.total(keys).map_err(failed)?,
            commands: after.zip(before).map(|(after, before)| after - before),
            tally,
        })
    }

    fn perform(&mut self, plans: &[Plan], bar: &ProgressBar) -> Result<Tally, Failure> {
        let _ticking = Ticking::start(bar);
        if self.workers.is_empty() {
            let mut tally = Tally::default();
            for plan in plans {
                let ran = self.runtime.block_on(load::run(plan, &self.locks));
                tally.merge(ran.map_err(|error| Failure::system("the load", &error))?);
            }
            return Ok(tally);
        }
        for (worker, plan) in self.workers.iter_mut().zip(plans) {
            worker.run(plan)?;
        }
        let mut tally = Tally::default();
        for worker in &mut self.workers {
            tally.merge(worker.ran()?);
        }
        Ok(tally)
    }

    /// Asks once more before the client is closed: what a backend did that has gone meanwhile is no result.
    fn leave(self) -> Result<(), Failure> {
        drop(self.workers);
        self.runtime.block_on(async {
            let answers = self.locks.inspect(&self.prefix).await;
            leave(&self.locks).await?;
            answers?;
            Ok(())
        })
    }
}

/// Gives back what the last waiters may still have, and closes the client.
pub(crate) async fn leave(locks: &Locks) -> Result<(), Failure> {
    locks.shutdown(FAREWELL).await?;
    Ok(())
}

/// A bar over the whole gradient; where there is no terminal, or machines read, none.
fn progress(args: &BenchArgs, json: bool) -> ProgressBar {
    if json || !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let levels = u32::try_from(args.tasks.len()).unwrap_or(u32::MAX);
    let bar = ProgressBar::new(output::millis(args.seconds * levels));
    if let Ok(style) = ProgressStyle::with_template("{msg:<12} {wide_bar} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Moves a bar with the time, on a thread of its own: the work is at its best alone.
struct Ticking {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const TICK: Duration = Duration::from_millis(200);

impl Ticking {
    fn start(bar: &ProgressBar) -> Option<Self> {
        if bar.is_hidden() {
            return None;
        }
        let bar = bar.clone();
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                bar.inc(output::millis(TICK));
            }
        });
        Some(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
