//! One of several processes with buyers in it.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use distlock::Locks;
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::paused::{self, AboutToWrite};
use crate::sale;
use crate::socket::RemoteWarehouse;
use crate::warehouse::Warehouse;
use crate::wire::{Job, Reply};

const GOODBYE: Duration = Duration::from_secs(1);

struct Worker {
    locks: Locks,
    warehouse: Arc<dyn Warehouse>,
    about_to_write: Option<AboutToWrite>,
}

/// Works until the input ends. That it does so in the middle of a job means that the program is gone;
/// then the job is dropped, and what it held ends with its TTL.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut jobs = jobs();
    let mut worker = None;
    while let Some(job) = jobs.recv().await {
        let job = serde_json::from_str(&job)?;
        let reply = tokio::select! {
            reply = perform(&mut worker, job) => reply,
            _ = jobs.recv() => return Ok(()),
        };
        let reply = reply.unwrap_or_else(|failure| Reply::Failed(failure.to_string()));
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&reply)?)?;
        out.flush()?;
    }
    if let Some(worker) = worker {
        worker.locks.shutdown(GOODBYE).await?;
    }
    Ok(())
}

/// The lines of the standard input, which tokio cannot read without a thread either.
fn jobs() -> mpsc::UnboundedReceiver<String> {
    let (send, jobs) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    jobs
}

async fn perform(worker: &mut Option<Worker>, job: Job) -> Result<Reply, Failure> {
    match (job, worker) {
        (Job::Join { url, warehouse }, worker) => {
            *worker = Some(Worker::join(&url, &warehouse).await?);
            Ok(Reply::Joined)
        }
        (job, Some(worker)) => worker.perform(job).await,
        (_, None) => Err(Failure::new("a worker has to join first")),
    }
}

impl Worker {
    async fn join(url: &str, warehouse: &Path) -> Result<Self, Failure> {
        Ok(Self {
            locks: distlock::connect(url).await?,
            warehouse: Arc::new(RemoteWarehouse::connect(warehouse).await?),
            about_to_write: None,
        })
    }

    async fn perform(&mut self, job: Job) -> Result<Reply, Failure> {
        match job {
            Job::Join { .. } => Err(Failure::new("a worker joins once")),
            Job::Sell(sale) => Ok(Reply::Sold(
                sale::open(sale, &self.locks, &self.warehouse).await,
            )),
            Job::Approach => {
                let fixed = false;
                let buyer = AboutToWrite::get(&self.locks, fixed, &*self.warehouse).await?;
                self.about_to_write = Some(buyer);
                Ok(Reply::AboutToWrite)
            }
            Job::GoOn => match self.about_to_write.take() {
                Some(buyer) => Ok(Reply::Wrote(buyer.write(&*self.warehouse).await?)),
                None => Err(Failure::new("nobody is about to write")),
            },
            Job::Buy => {
                let visit = sale::visit_locked(&self.locks, paused::TTL, &*self.warehouse).await?;
                let token = visit.token.map_or(0, |token| token.get());
                Ok(Reply::Bought { token })
            }
        }
    }
}
