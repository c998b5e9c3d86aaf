//! R12: what grows with every operation.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        LeavesTasks,
        "leaves a task behind with each acquire",
        ["R12.01", "R12.02", "R12.05"]
    ),
    mutant!(
        RemembersReleases,
        "remembers the nonce of every release for ever",
        ["R12.11"],
        Behind
    ),
];

#[derive(Debug, Default)]
struct LeavesTasks;

#[async_trait]
impl Bend for LeavesTasks {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        tokio::spawn(std::future::pending::<()>());
        real.acquire(claim).await
    }
}

#[derive(Debug, Default)]
struct RemembersReleases(Shared<Vec<String>>);

#[async_trait]
impl Bend for RemembersReleases {
    fn keeps(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        self.0.lock().push(claim.nonce.to_string());
        real.release(claim).await
    }
}
