//! R9: what hangs, and what guesses.

use std::thread;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        SaysBusyByAnError,
        "says by an error that a lock is busy",
        ["R9.01", "R9.20"]
    ),
    mutant!(
        HangsInClose,
        "blocks its thread when it is closed",
        ["R9.03", "R9.04", "R9.05"]
    ),
];

#[derive(Debug, Default)]
struct SaysBusyByAnError;

#[async_trait]
impl Bend for SaysBusyByAnError {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        match real.try_acquire(claim).await? {
            Some(grant) => Ok(Some(grant)),
            None => Err(Error::new(ErrorKind::Unavailable, "acquire")),
        }
    }
}

#[derive(Debug, Default)]
struct HangsInClose;

#[async_trait]
impl Bend for HangsInClose {
    async fn close(&self, real: &Real) -> Result<()> {
        // The suite opens the first connection itself, to ask what is declared.
        if real.number > 0 {
            thread::sleep(Duration::from_secs(15));
        }
        real.close().await
    }
}
