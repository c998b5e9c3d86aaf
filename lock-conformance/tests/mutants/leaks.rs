//! R12: what grows with every operation.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[mutant!(
    LeavesTasks,
    "leaves a task behind with each acquire",
    ["R12.01", "R12.02", "R12.05"]
)];

#[derive(Debug, Default)]
struct LeavesTasks;

#[async_trait]
impl Bend for LeavesTasks {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        tokio::spawn(std::future::pending::<()>());
        real.acquire(claim).await
    }
}
