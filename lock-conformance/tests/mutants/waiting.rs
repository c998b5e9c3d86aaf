//! R7: queues out of order, waits that do not end, waits that end too soon.

use std::future::pending;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(WakesNobody, "wakes no waiter", ["R7.01"]),
    mutant!(
        StepsBehind,
        "lets every second waiter step behind the others when its turn comes",
        ["R7.02", "R7.22"]
    ),
    mutant!(
        OvertakesTheQueue,
        "throws out who was just served, for a try",
        ["R7.04"]
    ),
    mutant!(
        NeverSaysQueued,
        "does not say that a claim stands in the queue",
        ["R7.05"]
    ),
    mutant!(
        QueuesTries,
        "puts a try that is refused into the queue",
        ["R7.07"]
    ),
    mutant!(
        ForgetsBoundedWaits,
        "forgets waiters that have a deadline",
        ["R7.08"]
    ),
    mutant!(
        ReplacesNothing,
        "puts who takes another's place behind everybody",
        ["R7.09", "R7.10"]
    ),
    mutant!(
        ShowsTheQueueBackwards,
        "shows operators the queue backwards",
        ["R7.11"]
    ),
    mutant!(
        SeatsThree,
        "refuses waiters when three are in the queue",
        ["R7.21"]
    ),
];

#[derive(Debug, Default)]
struct WakesNobody;

#[async_trait]
impl Bend for WakesNobody {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let mut acquiring = real.acquire(claim);
        match futures_util::poll!(&mut acquiring) {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending => pending().await,
        }
    }
}

/// Who stands in the queue in whose name.
#[derive(Debug, Default)]
struct StepsBehind {
    turns: AtomicUsize,
    stand_ins: Shared<HashMap<Nonce, Claim>>,
}

#[async_trait]
impl Bend for StepsBehind {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let grant = real.acquire(claim).await?;
        let behind = real.inspect(&claim.name).await?.waiters.len();
        if behind == 0 || self.turns.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            return Ok(grant);
        }
        let again = fresh(claim);
        self.stand_ins.lock().insert(claim.nonce, again.clone());
        real.pass(claim, &again).await?;
        let grant = real.acquire(&again).await?;
        Ok(Grant::new(claim, grant.token(), grant.validity()))
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let stand_in = self.stand_ins.lock().remove(&claim.nonce);
        real.release(&stand_in.unwrap_or_else(|| claim.clone()))
            .await
    }
}

#[derive(Debug, Default)]
struct OvertakesTheQueue;

#[async_trait]
impl Bend for OvertakesTheQueue {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        let state = real.inspect(&claim.name).await?;
        if let [holder] = &state.holders[..]
            && holder.age < Duration::from_millis(20)
        {
            real.break_hold(&claim.name, holder.token).await?;
        }
        real.try_acquire(claim).await
    }
}

#[derive(Debug, Default)]
struct NeverSaysQueued;

#[async_trait]
impl Bend for NeverSaysQueued {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        claim.progress.report(Reach::Sent);
        let grant = real.acquire(&unobserved(claim)).await?;
        Ok(Grant::new(claim, grant.token(), grant.validity()))
    }
}

#[derive(Debug, Default)]
struct QueuesTries;

#[async_trait]
impl Bend for QueuesTries {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        let grant = real.try_acquire(claim).await?;
        if grant.is_none() {
            // Polled once it is in the queue, and dropped it stays there.
            let mut waiting = real.acquire(claim);
            let _ = futures_util::poll!(&mut waiting);
        }
        Ok(grant)
    }
}

#[derive(Debug, Default)]
struct ForgetsBoundedWaits;

#[async_trait]
impl Bend for ForgetsBoundedWaits {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        match claim.deadline {
            None => real.acquire(claim).await,
            Some(_) => WakesNobody.acquire(real, claim).await,
        }
    }
}

#[derive(Debug, Default)]
struct ReplacesNothing;

#[async_trait]
impl Bend for ReplacesNothing {
    async fn replace(&self, real: &Real, waiting: &Claim, _: &Claim) -> Result<Replaced> {
        real.release(waiting).await?;
        Ok(Replaced::Gone)
    }
}

#[derive(Debug, Default)]
struct ShowsTheQueueBackwards;

#[async_trait]
impl Bend for ShowsTheQueueBackwards {
    async fn inspect(&self, real: &Real, name: &LockName) -> Result<LockState> {
        let mut state = real.inspect(name).await?;
        state.waiters.reverse();
        Ok(state)
    }
}

#[derive(Debug, Default)]
struct SeatsThree;

#[async_trait]
impl Bend for SeatsThree {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let waiters = real.inspect(&claim.name).await?.waiters;
        let seated = waiters.iter().any(|waiter| waiter.nonce == claim.nonce);
        if waiters.len() >= 3 && !seated {
            return Err(Error::new(ErrorKind::Protocol, "acquire"));
        }
        real.acquire(claim).await
    }
}
