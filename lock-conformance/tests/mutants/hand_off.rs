//! R6 and R7, behind a network: claim windows that are none.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        NeverSaysProvisional,
        "does not say that a hand-off has still to be confirmed",
        ["R6.06"],
        Behind
    ),
    mutant!(
        HandsOffForTooLong,
        "hands a lock off for longer than the claim window that it declares",
        ["R7.13", "R7.14"],
        Behind
    ),
];

#[derive(Debug, Default)]
struct NeverSaysProvisional;

#[async_trait]
impl Bend for NeverSaysProvisional {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        Grant::new(claim, grant.token(), grant.validity())
    }
}

#[derive(Debug, Default)]
struct HandsOffForTooLong;

impl Bend for HandsOffForTooLong {
    fn claim_window(&self) -> Duration {
        CLAIM_WINDOW * 5
    }
}
