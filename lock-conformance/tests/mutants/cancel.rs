//! R8: what is left of what was dropped or given back.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        ForgetsReleases,
        "says that it has released a lock, and has not",
        [
            "R1.02", "R1.10", "R8.01", "R8.05", "R8.06", "R8.07", "R8.08", "R8.09", "R8.15",
            "R8.16", "R9.05", "R12.04"
        ]
    ),
    mutant!(
        LeavesDroppedWaiters,
        "leaves waiters in the queue that have gone",
        ["R8.02", "R8.03", "R8.04", "R9.04", "R9.11", "R12.03"],
        Behind
    ),
    mutant!(
        KeepsLateGrants,
        "keeps a grant that nobody has heard of",
        ["R8.13"]
    ),
    mutant!(
        KeepsConnections,
        "keeps every connection that was ever made",
        ["R8.14"]
    ),
];

#[derive(Debug, Default)]
struct ForgetsReleases;

#[async_trait]
impl Bend for ForgetsReleases {
    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let state = real.inspect(&claim.name).await?;
        if state
            .holders
            .iter()
            .any(|holder| holder.nonce == claim.nonce)
        {
            return Ok(true);
        }
        real.release(claim).await
    }
}

/// The connections, which are not closed either: that would empty the queue.
#[derive(Debug, Default)]
struct LeavesDroppedWaiters(Shared<Vec<Arc<dyn Backend>>>);

#[async_trait]
impl Bend for LeavesDroppedWaiters {
    fn connected(&self, backend: &Arc<dyn Backend>) {
        self.0.lock().push(Arc::clone(backend));
    }

    async fn close(&self, _: &Real) -> Result<()> {
        Ok(())
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let state = real.inspect(&claim.name).await?;
        if state
            .waiters
            .iter()
            .any(|waiter| waiter.nonce == claim.nonce)
        {
            return Ok(false);
        }
        real.release(claim).await
    }
}

/// The nonces whose grants were answered.
#[derive(Debug, Default)]
struct KeepsLateGrants(Shared<Vec<Nonce>>);

#[async_trait]
impl Bend for KeepsLateGrants {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        self.0.lock().push(claim.nonce);
        grant
    }

    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let grant = real.acquire(claim).await?;
        // A slow network between the hand-off and its arrival.
        real.clock.sleep(Duration::from_millis(5)).await;
        Ok(self.told(real, claim, grant).await)
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let state = real.inspect(&claim.name).await?;
        let holds = state
            .holders
            .iter()
            .any(|holder| holder.nonce == claim.nonce);
        if holds && !self.0.lock().contains(&claim.nonce) {
            return Ok(false);
        }
        real.release(claim).await
    }
}

#[derive(Debug, Default)]
struct KeepsConnections(Shared<Vec<Arc<dyn Backend>>>);

impl Bend for KeepsConnections {
    fn connected(&self, backend: &Arc<dyn Backend>) {
        self.0.lock().push(Arc::clone(backend));
    }
}
