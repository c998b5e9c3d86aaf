//! R2: tokens that do not grow.

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        ReusesTokens,
        "hands out the token 7 again and again",
        ["R2.01", "R2.08"]
    ),
    mutant!(
        ForgetsItsCounter,
        "counts from one again after a lease that ended without a release",
        ["R2.02", "R2.10", "R2.15", "R2.16"]
    ),
    mutant!(
        CountsForEachClient,
        "counts for each client by itself",
        ["R2.03", "R2.08"]
    ),
    mutant!(
        HandsTheTokenOn,
        "hands the token on with the lock",
        ["R2.04", "R7.03"]
    ),
    mutant!(
        CountsRenewals,
        "gives a hold another token with each renewal",
        ["R2.05"]
    ),
    mutant!(
        OutgrowsItsLargest,
        "grants tokens above the largest that it declares",
        ["R2.06"]
    ),
    mutant!(
        IgnoresTheBase,
        "ignores the fence base, also its own after a loss of data",
        ["R2.07", "R2.14", "R2.21"],
        Behind
    ),
    mutant!(
        TellsOtherTokens,
        "tells its clients tokens that it has not recorded",
        ["R2.23"],
        Behind
    ),
    mutant!(
        RepeatsABrokenToken,
        "gives the token of a broken hold to the next one",
        ["R2.09"]
    ),
    mutant!(
        RepeatsAReplacedToken,
        "gives a grant that is replaced its old token",
        ["R2.11"]
    ),
];

fn with_token(claim: &Claim, grant: &Grant, number: u64) -> Grant {
    Grant::new(claim, token(number), grant.validity())
}

#[derive(Debug, Default)]
struct ReusesTokens;

#[async_trait]
impl Bend for ReusesTokens {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        with_token(claim, &grant, 7)
    }
}

/// For each name, its last token and whether that was given back.
#[derive(Debug, Default)]
struct ForgetsItsCounter(Shared<HashMap<LockName, (u64, bool)>>);

#[async_trait]
impl Bend for ForgetsItsCounter {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        let mut counters = self.0.lock();
        let (count, released) = counters.entry(claim.name.clone()).or_insert((0, true));
        *count = if *released { *count + 1 } else { 1 };
        *released = false;
        with_token(claim, &grant, *count)
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let held = real.release(claim).await?;
        if let Some((_, released)) = self.0.lock().get_mut(&claim.name) {
            *released |= held;
        }
        Ok(held)
    }
}

#[derive(Debug, Default)]
struct CountsForEachClient(Shared<HashMap<usize, u64>>);

#[async_trait]
impl Bend for CountsForEachClient {
    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        let mut counters = self.0.lock();
        let count = counters.entry(real.number).or_default();
        *count += 1;
        with_token(claim, &grant, *count)
    }
}

#[derive(Debug, Default)]
struct HandsTheTokenOn;

#[async_trait]
impl Bend for HandsTheTokenOn {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let grant = real.acquire(claim).await?;
        Ok(match claim.progress.reach() {
            Reach::Queued => with_the_token_before(claim, &grant),
            _ => grant,
        })
    }

    async fn pass(&self, real: &Real, held: &Claim, next: &Claim) -> Result<Passed> {
        let mut passed = real.pass(held, next).await?;
        if let Standing::Granted(grant) = &mut passed.next {
            *grant = with_the_token_before(next, grant);
        }
        Ok(passed)
    }
}

/// There is one counter for all, so the holder before had the number before.
fn with_the_token_before(claim: &Claim, grant: &Grant) -> Grant {
    with_token(claim, grant, grant.token().get() - 1)
}

#[derive(Debug, Default)]
struct CountsRenewals(AtomicU64);

#[async_trait]
impl Bend for CountsRenewals {
    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        real.renew(grants).await
    }

    async fn inspect(&self, real: &Real, name: &LockName) -> Result<LockState> {
        let mut state = real.inspect(name).await?;
        for holder in &mut state.holders {
            holder.token = token(holder.token.get() + self.0.load(Ordering::Relaxed));
        }
        Ok(state)
    }
}

#[derive(Debug, Default)]
struct OutgrowsItsLargest;

impl Bend for OutgrowsItsLargest {
    fn context(&self, mut context: Context) -> Context {
        context.fence_base = 1 << 32;
        context
    }

    fn capabilities(&self, real: &Real) -> Capabilities {
        let mut capabilities = real.capabilities();
        capabilities.largest_token = 1 << 32;
        capabilities
    }
}

#[derive(Debug, Default)]
struct IgnoresTheBase;

impl Bend for IgnoresTheBase {
    fn context(&self, mut context: Context) -> Context {
        context.fence_base = 0;
        context
    }
}

#[derive(Debug, Default)]
struct TellsOtherTokens;

#[async_trait]
impl Bend for TellsOtherTokens {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        with_token(claim, &grant, grant.token().get() * 2)
    }
}

#[derive(Debug, Default)]
struct RepeatsABrokenToken(Shared<HashMap<LockName, FencingToken>>);

#[async_trait]
impl Bend for RepeatsABrokenToken {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        let broken = self.0.lock().remove(&claim.name);
        Grant::new(claim, broken.unwrap_or(grant.token()), grant.validity())
    }

    async fn break_hold(&self, real: &Real, name: &LockName, token: FencingToken) -> Result<bool> {
        let state = real.inspect(name).await?;
        self.0.lock().insert(name.clone(), token);
        match state.holders.first() {
            Some(holder) => real.break_hold(name, holder.token).await,
            None => Ok(false),
        }
    }
}

#[derive(Debug, Default)]
struct RepeatsAReplacedToken;

#[async_trait]
impl Bend for RepeatsAReplacedToken {
    async fn replace(&self, real: &Real, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let before = real.inspect(&waiting.name).await?;
        Ok(match real.replace(waiting, next).await? {
            Replaced::Now(Standing::Granted(grant)) => {
                let old = before.holders.first().map(|holder| holder.token);
                let token = old.unwrap_or(grant.token());
                Replaced::Now(Standing::Granted(Grant::new(next, token, grant.validity())))
            }
            other => other,
        })
    }
}
