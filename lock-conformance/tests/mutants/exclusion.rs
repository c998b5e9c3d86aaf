//! R1: more than one holder.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        GrantsWhatIsHeld,
        "grants a try although somebody holds",
        ["R1.01"]
    ),
    mutant!(
        TakesAProcessForAClient,
        "takes all clients of a process for one, which has the lock already",
        ["R5.14"]
    ),
    mutant!(
        LetsSomeWaitersIn,
        "grants every fifth acquire at once, with the next token",
        [
            "R1.04", "R1.05", "R1.06", "R1.08", "R1.09", "R1.11", "R1.12", "R1.13"
        ],
        Behind
    ),
];

#[derive(Debug, Default)]
struct GrantsWhatIsHeld;

#[async_trait]
impl Bend for GrantsWhatIsHeld {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        match second_hold(real, claim).await? {
            Some(grant) => Ok(Some(grant)),
            None => real.try_acquire(claim).await,
        }
    }
}

#[derive(Debug, Default)]
struct TakesAProcessForAClient;

#[async_trait]
impl Bend for TakesAProcessForAClient {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        let state = real.inspect(&claim.name).await?;
        Ok(match state.holders.first() {
            Some(holder) if holder.identity.pid() == claim.identity.pid() => {
                Some(Grant::new(claim, holder.token, whole(&real.clock, claim)))
            }
            _ => real.try_acquire(claim).await?,
        })
    }
}

#[derive(Debug, Default)]
struct LetsSomeWaitersIn {
    asked: AtomicUsize,
}

#[async_trait]
impl Bend for LetsSomeWaitersIn {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % 5 == 4
            && let Some(grant) = second_hold(real, claim).await?
        {
            return Ok(grant);
        }
        real.acquire(claim).await
    }
}

/// A grant beside the holder that there is.
async fn second_hold(real: &Real, claim: &Claim) -> Result<Option<Grant>> {
    let state = real.inspect(&claim.name).await?;
    Ok(state.holders.first().map(|holder| {
        let next = token(holder.token.get() + 1);
        Grant::new(claim, next, whole(&real.clock, claim))
    }))
}
