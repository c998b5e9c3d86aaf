//! R3: holders that believe in their lease for longer than the backend does.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        CountsFromTheReply,
        "counts the validity of a grant from the arrival of its reply",
        ["R3.01", "R3.02", "R3.03", "R3.04", "R3.05", "R3.06"]
    ),
    mutant!(
        AddsItsMargin,
        "adds the margin for drifting clocks instead of taking it off",
        ["R3.07", "R3.08"]
    ),
    mutant!(
        BelievesForEver,
        "grants validities without an end, and pushes no end either",
        [
            "R3.09", "R4.02", "R4.06", "R4.07", "R4.09", "R4.12", "R4.13", "R4.15", "R4.22",
            "R5.11", "R6.08"
        ]
    ),
    mutant!(
        RenewsNothing,
        "says that it has extended a lease, and has not",
        ["R3.10", "R4.14", "R6.04", "R6.13"]
    ),
];

#[derive(Debug, Default)]
struct CountsFromTheReply;

#[async_trait]
impl Bend for CountsFromTheReply {
    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        // A slow network between the server's decision and the reply's arrival.
        real.clock.sleep(Duration::from_millis(100)).await;
        Grant::new(claim, grant.token(), whole(&real.clock, claim))
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let answers = real.renew(grants).await;
        answers
            .into_iter()
            .zip(grants)
            .map(|(answer, grant)| match answer? {
                Renewal::Extended(_) => Ok(Renewal::Extended(whole(&real.clock, grant.claim()))),
                Renewal::Gone => Ok(Renewal::Gone),
            })
            .collect()
    }

    // Told of the end by the backend, a holder does not need its own clock.
    fn events(&self, _: &Real) -> BoxStream<'static, Event> {
        silence()
    }
}

#[derive(Debug, Default)]
struct AddsItsMargin;

#[async_trait]
impl Bend for AddsItsMargin {
    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        let (now, allowance) = (real.clock.now(), claim.ttl / 10);
        let validity = Validity::new(now, now, claim.ttl + allowance);
        Grant::new(claim, grant.token(), validity)
    }
}

#[derive(Debug, Default)]
struct BelievesForEver;

#[async_trait]
impl Bend for BelievesForEver {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        Grant::new(claim, grant.token(), Validity::unlimited())
    }

    fn events(&self, _: &Real) -> BoxStream<'static, Event> {
        silence()
    }
}

#[derive(Debug, Default)]
struct RenewsNothing;

#[async_trait]
impl Bend for RenewsNothing {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let extended = |grant: &&Grant| Renewal::Extended(whole(&real.clock, grant.claim()));
        grants.iter().map(|grant| Ok(extended(grant))).collect()
    }
}
