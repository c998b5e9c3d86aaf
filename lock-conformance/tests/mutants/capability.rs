//! R11: declarations that are not kept.

use lock_core::{FenceStrength, TtlRange};

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        ContradictsItself,
        "declares exclusion that survives what its tokens do not",
        ["R11.01"]
    ),
    mutant!(
        DeclaresAnew,
        "declares less to every second connection, and is lenient with it",
        ["R9.02", "R10.08", "R11.02", "R11.03"]
    ),
    mutant!(
        ServesUndeclaredModes,
        "serves a shared lock as an exclusive one, undeclared",
        ["R11.04"]
    ),
    mutant!(
        ListsOnPaper,
        "declares listing and does not offer it",
        ["R11.05"]
    ),
    mutant!(
        CapsTtls,
        "keeps no lease for longer than an hour",
        ["R11.07"]
    ),
    mutant!(
        RefusesLongNames,
        "refuses names of more than 255 bytes, undeclared",
        ["R11.08"]
    ),
];

#[derive(Debug, Default)]
struct ContradictsItself;

impl Bend for ContradictsItself {
    fn capabilities(&self, real: &Real) -> Capabilities {
        let mut capabilities = real.capabilities();
        capabilities.fence = FenceStrength::TimeSeeded;
        capabilities
    }
}

/// The suite asks the first connection what is declared; the first client has the second.
#[derive(Debug, Default)]
struct DeclaresAnew;

const LENIENT: TtlRange = TtlRange {
    min: Duration::from_nanos(1),
    max: Duration::from_secs(48 * 60 * 60),
    step: Duration::from_nanos(1),
};

impl Bend for DeclaresAnew {
    fn capabilities(&self, real: &Real) -> Capabilities {
        let mut capabilities = real.capabilities();
        if real.number.is_multiple_of(2) {
            capabilities.name_max = 100;
        } else {
            capabilities.linearizable = false;
            capabilities.ttl = Some(LENIENT);
        }
        capabilities
    }

    fn asked(&self, claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.ttl = claim
            .ttl
            .clamp(Duration::from_millis(10), Duration::from_secs(3600));
        asked
    }
}

#[derive(Debug, Default)]
struct ServesUndeclaredModes;

impl Bend for ServesUndeclaredModes {
    fn asked(&self, claim: &Claim) -> Claim {
        claim.clone().with_mode(Mode::Exclusive)
    }
}

#[derive(Debug, Default)]
struct ListsOnPaper;

#[async_trait]
impl Bend for ListsOnPaper {
    async fn list(&self, _: &Real, _: &str, _: Cursor) -> Result<Page> {
        Err(Error::new(ErrorKind::Unsupported, "list"))
    }
}

#[derive(Debug, Default)]
struct CapsTtls;

#[async_trait]
impl Bend for CapsTtls {
    fn asked(&self, claim: &Claim) -> Claim {
        let mut asked = claim.clone();
        asked.ttl = claim.ttl.min(Duration::from_secs(3600));
        asked
    }
}

#[derive(Debug, Default)]
struct RefusesLongNames;

#[async_trait]
impl Bend for RefusesLongNames {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        if claim.name.as_str().len() > 255 {
            return Err(Error::new(ErrorKind::Invalid, "acquire"));
        }
        real.acquire(claim).await
    }
}
