//! R5: who renews and releases what is not theirs.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        ReleasesWhateverTheNonce,
        "releases the hold that there is, whatever the nonce",
        ["R5.01", "R5.02", "R5.03", "R5.19", "R8.16"],
        Behind
    ),
    mutant!(
        SaysEveryReleaseHeld,
        "says of every release that its nonce held the lock",
        ["R5.04"]
    ),
    mutant!(
        RevivesWhatIsGone,
        "takes the lock again for a renewal that comes too late",
        ["R5.05", "R5.06"]
    ),
    mutant!(
        JudgesABatchAsOne,
        "calls all renewals of a batch gone when one of them is",
        ["R5.07"]
    ),
    mutant!(
        PassesForTheHolder,
        "passes the lock on for one that does not hold it any more",
        ["R5.08"]
    ),
    mutant!(
        RecordsTheClient,
        "records the client of a hold and not the acquisition",
        ["R5.09"]
    ),
];

async fn break_any(real: &Real, name: &LockName) -> Result<()> {
    for holder in real.inspect(name).await?.holders {
        real.break_hold(name, holder.token).await?;
    }
    Ok(())
}

#[derive(Debug, Default)]
struct ReleasesWhateverTheNonce;

#[async_trait]
impl Bend for ReleasesWhateverTheNonce {
    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        // A slow network: what is sent when a lease ends arrives when the next one holds.
        real.clock.sleep(Duration::from_millis(100)).await;
        let held = real.release(claim).await?;
        if !held {
            break_any(real, &claim.name).await?;
        }
        Ok(held)
    }
}

#[derive(Debug, Default)]
struct SaysEveryReleaseHeld;

#[async_trait]
impl Bend for SaysEveryReleaseHeld {
    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        real.release(claim).await.map(|_| true)
    }
}

#[derive(Debug, Default)]
struct RevivesWhatIsGone;

#[async_trait]
impl Bend for RevivesWhatIsGone {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers = real.renew(grants).await;
        for (grant, answer) in grants.iter().zip(&mut answers) {
            if matches!(answer, Ok(Renewal::Gone))
                && let Ok(Some(new)) = real.try_acquire(&fresh(grant.claim())).await
            {
                *answer = Ok(Renewal::Extended(new.validity()));
            }
        }
        answers
    }
}

#[derive(Debug, Default)]
struct JudgesABatchAsOne;

#[async_trait]
impl Bend for JudgesABatchAsOne {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let answers = real.renew(grants).await;
        let gone = |answer: &Result<Renewal>| matches!(answer, Ok(Renewal::Gone));
        if answers.iter().any(gone) {
            return grants.iter().map(|_| Ok(Renewal::Gone)).collect();
        }
        answers
    }
}

#[derive(Debug, Default)]
struct PassesForTheHolder;

#[async_trait]
impl Bend for PassesForTheHolder {
    async fn pass(&self, real: &Real, held: &Claim, next: &Claim) -> Result<Passed> {
        break_any(real, &held.name).await?;
        real.pass(held, next).await
    }
}

#[derive(Debug, Default)]
struct RecordsTheClient(Shared<Option<Nonce>>);

#[async_trait]
impl Bend for RecordsTheClient {
    async fn inspect(&self, real: &Real, name: &LockName) -> Result<LockState> {
        let mut state = real.inspect(name).await?;
        for holder in &mut state.holders {
            holder.nonce = *self.0.lock().get_or_insert(holder.nonce);
        }
        Ok(state)
    }
}
