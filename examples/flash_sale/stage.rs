//! Where the buyers are: in this process, or in several.

use std::sync::Arc;
use std::time::Duration;

use distlock::{Guarantee, Locks};

use crate::args::Args;
use crate::failure::Failure;
use crate::paused::{self, AboutToWrite};
use crate::report::PausedBuyer;
use crate::sale::{self, Sale, Tally};
use crate::warehouse::{Shelf, Warehouse};
use crate::workers::Workers;

const GOODBYE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Stage {
    backend: &'static str,
    buyers: Buyers,
}

#[derive(Debug)]
enum Buyers {
    Here { locks: Locks, shelf: Arc<Shelf> },
    InProcesses(Workers),
}

impl Stage {
    pub(crate) async fn set(args: &Args, shelf: &Arc<Shelf>) -> Result<Self, Failure> {
        // One connection first: what is wrong with the URL is said once, not by every process.
        let locks = distlock::connect(&args.url).await?;
        let backend = locks.capabilities().backend;
        if args.processes == 1 {
            let shelf = Arc::clone(shelf);
            let buyers = Buyers::Here { locks, shelf };
            return Ok(Self { backend, buyers });
        }
        let locks = locks.require(Guarantee::CrossProcess).map_err(|error| {
            Failure::usage(format!(
                "--processes {} needs a backend that processes share: {error}",
                args.processes
            ))
        })?;
        locks.shutdown(GOODBYE).await?;
        let workers = Workers::start(args.processes, &args.url, shelf).await?;
        Ok(Self {
            backend,
            buyers: Buyers::InProcesses(workers),
        })
    }

    pub(crate) fn backend(&self) -> &'static str {
        self.backend
    }

    pub(crate) async fn sale(&mut self, sale: Sale) -> Result<Tally, Failure> {
        match &mut self.buyers {
            Buyers::Here { locks, shelf } => {
                let warehouse: Arc<dyn Warehouse> = Arc::<Shelf>::clone(shelf);
                Ok(sale::open(sale, locks, &warehouse).await)
            }
            Buyers::InProcesses(workers) => workers.sale(sale).await,
        }
    }

    pub(crate) async fn paused_buyer(&mut self) -> Result<PausedBuyer, Failure> {
        match &mut self.buyers {
            Buyers::Here { locks, shelf } => {
                // Within one process nothing can be stopped alone. A lease that is not renewed ends
                // as one does whose process is stopped.
                let fixed = true;
                let sleeper = AboutToWrite::get(locks, fixed, &**shelf).await?;
                let next = sale::visit_locked(locks, paused::TTL, &**shelf).await?;
                let late = sleeper.write(&**shelf).await?;
                let token = next.token.map_or(0, |token| token.get());
                Ok(PausedBuyer::new(late, token))
            }
            Buyers::InProcesses(workers) => workers.paused_buyer().await,
        }
    }

    pub(crate) async fn clear(self) -> Result<(), Failure> {
        match self.buyers {
            Buyers::Here { locks, .. } => {
                locks.shutdown(GOODBYE).await?;
                Ok(())
            }
            Buyers::InProcesses(workers) => workers.dismiss().await,
        }
    }
}
