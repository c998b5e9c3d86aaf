//! R5, behind a network: what a request does that arrives when nobody wants it any more.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        GrantsLateCopies,
        "grants a request that arrives after its own release",
        ["R5.15", "R5.16", "R5.17"],
        Behind
    ),
    mutant!(
        RenewsByForce,
        "takes the lock back for a renewal that arrives after the next grant",
        ["R5.18"],
        Behind
    ),
];

#[derive(Debug, Default)]
struct GrantsLateCopies;

#[async_trait]
impl Bend for GrantsLateCopies {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        match real.try_acquire(claim).await {
            Err(error) if error.kind() == ErrorKind::Lost => real.try_acquire(&fresh(claim)).await,
            answer => answer,
        }
    }

    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        match real.acquire(claim).await {
            Err(error) if error.kind() == ErrorKind::Lost => real.acquire(&fresh(claim)).await,
            answer => answer,
        }
    }
}

#[derive(Debug, Default)]
struct RenewsByForce;

#[async_trait]
impl Bend for RenewsByForce {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers = real.renew(grants).await;
        for (grant, answer) in grants.iter().zip(&mut answers) {
            if matches!(answer, Ok(Renewal::Gone)) {
                *answer = retake(real, grant.claim()).await;
            }
        }
        answers
    }
}

async fn retake(real: &Real, claim: &Claim) -> Result<Renewal> {
    for holder in real.inspect(&claim.name).await?.holders {
        real.break_hold(&claim.name, holder.token).await?;
    }
    let grant = real.try_acquire(&fresh(claim)).await?;
    Ok(grant.map_or(Renewal::Gone, |grant| Renewal::Extended(grant.validity())))
}
