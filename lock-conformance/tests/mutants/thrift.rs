//! R7 and R12, behind a network: more requests and connections than it takes.

use tokio::time::timeout;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        LooksWhileItWaits,
        "looks at the lock every 5 ms while it waits",
        ["R7.18"]
    ),
    mutant!(
        TriesBeforeItWaits,
        "tries to get a lock before it stands in the queue for it",
        ["R7.19"]
    ),
    mutant!(
        PassesInTwoSteps,
        "passes a lock on within a client by a release and a request",
        ["R7.20"]
    ),
    mutant!(
        LooksBeforeItAsks,
        "looks at a lock before it asks for it",
        ["R12.06"]
    ),
    mutant!(RenewsOneByOne, "renews each lock by itself", ["R12.07"]),
    mutant!(
        ConnectsForEachWaiter,
        "has a connection for each waiter",
        ["R12.08"]
    ),
    mutant!(
        LeavesConnections,
        "leaves its connections open",
        ["R12.09", "R12.12"]
    ),
];

#[derive(Debug, Default)]
struct LooksWhileItWaits;

#[async_trait]
impl Bend for LooksWhileItWaits {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let mut acquiring = real.acquire(claim);
        loop {
            match timeout(Duration::from_millis(5), &mut acquiring).await {
                Ok(grant) => return grant,
                Err(_) => drop(real.inspect(&claim.name).await?),
            }
        }
    }
}

#[derive(Debug, Default)]
struct TriesBeforeItWaits;

#[async_trait]
impl Bend for TriesBeforeItWaits {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        match real.try_acquire(claim).await? {
            Some(grant) => Ok(grant),
            None => real.acquire(claim).await,
        }
    }
}

#[derive(Debug, Default)]
struct PassesInTwoSteps;

#[async_trait]
impl Bend for PassesInTwoSteps {
    async fn pass(&self, real: &Real, held: &Claim, _: &Claim) -> Result<Passed> {
        Ok(Passed {
            released: real.release(held).await?,
            next: Standing::Queued,
        })
    }
}

#[derive(Debug, Default)]
struct LooksBeforeItAsks;

#[async_trait]
impl Bend for LooksBeforeItAsks {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        real.inspect(&claim.name).await?;
        real.acquire(claim).await
    }
}

#[derive(Debug, Default)]
struct RenewsOneByOne;

#[async_trait]
impl Bend for RenewsOneByOne {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers = Vec::new();
        for grant in grants {
            answers.extend(real.renew(&[grant]).await);
        }
        answers
    }
}

#[derive(Debug, Default)]
struct ConnectsForEachWaiter;

#[async_trait]
impl Bend for ConnectsForEachWaiter {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let own = real.another().await?;
        let grant = real.acquire(claim).await;
        drop(own);
        grant
    }
}

#[derive(Debug, Default)]
struct LeavesConnections(Shared<Vec<Arc<dyn Backend>>>);

#[async_trait]
impl Bend for LeavesConnections {
    fn connected(&self, backend: &Arc<dyn Backend>) {
        self.0.lock().push(Arc::clone(backend));
    }

    async fn close(&self, _: &Real) -> Result<()> {
        Ok(())
    }
}
