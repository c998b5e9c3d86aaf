//! The other processes of the load test: this binary again, told by JSON lines what to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use distlock::Locks;
use serde::{Deserialize, Serialize};

use super::load;
use super::plan::Plan;
use super::tally::Tally;
use crate::connect;
use crate::exit::{self, Failure};

/// The first argument of a worker.
pub(crate) const WORKER: &str = "__bench";

#[derive(Debug, Deserialize, Serialize)]
enum Order {
    /// The URL is not an argument: it may carry a password.
    Connect(String),
    Run(Plan),
}

#[derive(Debug, Deserialize, Serialize)]
enum Answer {
    Ready,
    Ran(Tally),
    Failed(String),
}

/// A process that waits for orders. It ends with its standard input, and so with this process.
pub(crate) struct Worker {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a process and lets it connect.
    pub(crate) fn start(url: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::system("cannot start a process", &error);
        let mut process = Command::new("/proc/self/exe")
            .arg0(env!("CARGO_PKG_NAME"))
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let orders = process.stdin.take();
        let answers = process.stdout.take();
        let answers = answers.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut worker = Self {
            process,
            orders,
            answers: BufReader::new(answers),
        };
        worker.tell(&Order::Connect(url.to_owned()))?;
        match worker.hear()? {
            Answer::Failed(why) => Err(Failure::new(exit::UNAVAILABLE, why)),
            _ => Ok(worker),
        }
    }

    /// Lets it run its part of a level; [`ran`](Self::ran) waits for the end of that.
    pub(crate) fn run(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.tell(&Order::Run(plan.clone()))
    }

    pub(crate) fn ran(&mut self) -> Result<Tally, Failure> {
        match self.hear()? {
            Answer::Ran(tally) => Ok(tally),
            Answer::Failed(why) => Err(Failure::new(exit::UNAVAILABLE, why)),
            Answer::Ready => Err(lost("it answers out of turn")),
        }
    }

    fn tell(&mut self, order: &Order) -> Result<(), Failure> {
        let line = serde_json::to_string(order).map_err(lost)?;
        match &mut self.orders {
            Some(orders) => writeln!(orders, "{line}").map_err(lost),
            None => Err(lost("it is gone")),
        }
    }

    fn hear(&mut self) -> Result<Answer, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(lost)?;
        serde_json::from_str(&line).map_err(|_| lost("it ended without an answer"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        // It ends by itself, after it has given back what it held.
        let _ = self.process.wait();
    }
}

fn lost(why: impl std::fmt::Display) -> Failure {
    Failure::new(
        exit::SYSTEM,
        format!("a process of the load test is lost: {why}"),
    )
}

/// The life of a worker.
pub(crate) fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = answer(&Answer::Failed(failure.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<(), Failure> {
    let runtime = connect::runtime()?;
    let mut locks: Option<Locks> = None;
    for line in io::stdin().lines() {
        let line = line.map_err(lost)?;
        match serde_json::from_str(&line).map_err(lost)? {
            Order::Connect(url) => {
                let connected = runtime.block_on(connect::connect(&url, "lockctl bench"))?;
                locks = Some(connected);
                answer(&Answer::Ready)?;
            }
            Order::Run(plan) => {
                let locks = locks.as_ref().ok_or_else(|| lost("it is not connected"))?;
                let tally = runtime.block_on(load::run(&plan, locks)).map_err(lost)?;
                answer(&Answer::Ran(tally))?;
            }
        }
    }
    match locks {
        Some(locks) => runtime.block_on(super::leave(&locks)),
        None => Ok(()),
    }
}

fn answer(answer: &Answer) -> Result<(), Failure> {
    let line = serde_json::to_string(answer).map_err(lost)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(lost)
}
