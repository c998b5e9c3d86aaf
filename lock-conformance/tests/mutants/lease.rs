//! R6: leases that end too early, too late, or by being renewed.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        EndsLeasesEarly,
        "ends leases after three quarters of their TTL, and tells nobody",
        ["R4.01", "R6.03"]
    ),
    mutant!(
        EndsNoLease,
        "keeps every lease for an hour",
        ["R1.07", "R1.08", "R6.01", "R6.07", "R6.12"]
    ),
    mutant!(
        AnswersNoRenewal,
        "answers no renewal",
        ["R4.11", "R6.02", "R6.05", "R6.13", "R8.11", "R8.12"]
    ),
    mutant!(
        ReleasesWhatItFailsToRenew,
        "gives a lock back when it fails to renew it",
        ["R8.10"]
    ),
];

/// What the client is told when the backend keeps another TTL than it was asked for.
fn as_asked(real: &Real, claim: &Claim, grant: &Grant) -> Grant {
    Grant::new(claim, grant.token(), whole(&real.clock, claim))
}

#[derive(Debug, Default)]
struct EndsLeasesEarly;

#[async_trait]
impl Bend for EndsLeasesEarly {
    fn asked(&self, claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.ttl = claim.ttl * 3 / 4;
        asked
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        as_asked(real, claim, &grant)
    }

    // Told of the end by the backend, a holder does not need its own clock.
    fn events(&self, _: &Real) -> BoxStream<'static, Event> {
        silence()
    }
}

#[derive(Debug, Default)]
struct EndsNoLease;

#[async_trait]
impl Bend for EndsNoLease {
    fn asked(&self, claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.ttl = Duration::from_secs(3600);
        asked
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        as_asked(real, claim, &grant)
    }
}

#[derive(Debug, Default)]
struct AnswersNoRenewal;

#[async_trait]
impl Bend for AnswersNoRenewal {
    async fn renew(&self, _: &Real, _: &[&Grant]) -> Vec<Result<Renewal>> {
        std::future::pending().await
    }
}

#[derive(Debug, Default)]
struct ReleasesWhatItFailsToRenew;

#[async_trait]
impl Bend for ReleasesWhatItFailsToRenew {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers = Vec::new();
        for grant in grants {
            let released = real.release(grant.claim()).await;
            answers.push(released.and(Err(Error::new(ErrorKind::Unavailable, "renew"))));
        }
        answers
    }
}
