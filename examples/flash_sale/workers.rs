//! The worker processes, seen from the program that started them.

use std::env;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::report::PausedBuyer;
use crate::sale::{Sale, Tally};
use crate::socket;
use crate::warehouse::Shelf;
use crate::wire::{Job, Reply};

/// How long a worker may take to say goodbye.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    warehouse: JoinHandle<()>,
}

impl Workers {
    /// Starts `count` processes that are connected to the locks and to `shelf`.
    pub(crate) async fn start(count: u32, url: &str, shelf: &Arc<Shelf>) -> Result<Self, Failure> {
        // Dropped and removed as soon as everybody is connected: nothing is left in any case.
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("warehouse");
        let listener = UnixListener::bind(&path)?;
        let warehouse = tokio::spawn(socket::serve(listener, Arc::clone(shelf)));
        let workers = (0..count)
            .map(|_| Worker::start())
            .collect::<Result<Vec<_>, _>>()?;
        let mut all = Self { workers, warehouse };
        for worker in &mut all.workers {
            let (url, warehouse) = (url.to_owned(), path.clone());
            worker.tell(&Job::Join { url, warehouse }).await?;
        }
        for worker in &mut all.workers {
            match worker.hear().await? {
                Reply::Joined => {}
                other => return Err(unexpected(other)),
            }
        }
        Ok(all)
    }

    /// Spreads the buyers over the processes, and opens in all of them at once.
    pub(crate) async fn sale(&mut self, sale: Sale) -> Result<Tally, Failure> {
        let processes = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        for (place, worker) in (0..).zip(&mut self.workers) {
            let one_more = u32::from(place < sale.buyers % processes);
            let buyers = sale.buyers / processes + one_more;
            worker.tell(&Job::Sell(Sale { buyers, ..sale })).await?;
        }
        let mut tally = Tally::default();
        for worker in &mut self.workers {
            match worker.hear().await? {
                Reply::Sold(part) => tally.merge(part),
                other => return Err(unexpected(other)),
            }
        }
        Ok(tally)
    }

    /// Stops a process between its last check and its write, as a machine that swaps, a debugger or
    /// a suspended virtual machine would, and lets another one buy.
    pub(crate) async fn paused_buyer(&mut self) -> Result<PausedBuyer, Failure> {
        let [sleeper, next, ..] = &mut self.workers[..] else {
            return Err(Failure::new("a pause needs two processes"));
        };
        match sleeper.ask(&Job::Approach).await? {
            Reply::AboutToWrite => {}
            other => return Err(unexpected(other)),
        }
        sleeper.signal(Signal::SIGSTOP)?;
        let bought = next.ask(&Job::Buy).await;
        sleeper.signal(Signal::SIGCONT)?;
        let token = match bought? {
            Reply::Bought { token } => token,
            other => return Err(unexpected(other)),
        };
        match sleeper.ask(&Job::GoOn).await? {
            Reply::Wrote(late) => Ok(PausedBuyer::new(late, token)),
            other => Err(unexpected(other)),
        }
    }

    /// Lets the workers go: their input ends, and so do they.
    pub(crate) async fn dismiss(self) -> Result<(), Failure> {
        for worker in self.workers {
            let Worker {
                mut child, input, ..
            } = worker;
            drop(input);
            // One that stays is killed when it is dropped.
            let _ = timeout(PATIENCE, child.wait()).await;
        }
        self.warehouse.abort();
        Ok(())
    }
}

#[derive(Debug)]
struct Worker {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start() -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?)
            .arg("--worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // A Ctrl-C is the program's to hear. It is also what makes the kernel continue a stopped
            // worker when the program is killed: its process group is an orphan then.
            .process_group(0)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("a worker has no pipes"));
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    async fn ask(&mut self, job: &Job) -> Result<Reply, Failure> {
        self.tell(job).await?;
        self.hear().await
    }

    async fn tell(&mut self, job: &Job) -> Result<(), Failure> {
        let line = format!("{}\n", serde_json::to_string(job)?);
        Ok(self.input.write_all(line.as_bytes()).await?)
    }

    async fn hear(&mut self) -> Result<Reply, Failure> {
        match self.output.next_line().await? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => Err(Failure::new("a worker process has ended")),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        match pid.map(|pid| kill(Pid::from_raw(pid), signal)) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Failure::new(format!("{signal}: {error}"))),
            None => Err(Failure::new("a worker process has ended")),
        }
    }
}

fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(why) => Failure::new(why),
        other => Failure::new(format!("a worker answered {other:?}")),
    }
}
