//! R7 and R9, behind a network: clients that guess what became of a request, or do not come back.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::bend::Upheaval;
use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        LosesItsData,
        "forgets everything when it is restarted, its counter too",
        ["R2.12", "R2.20", "R6.09", "R6.22", "R7.15"],
        Behind
    ),
    mutant!(
        ForgetsWithItsLeader,
        "forgets everything when its leader moves",
        ["R6.23"],
        Behind
    ),
    mutant!(
        ForgetsWithItsSettings,
        "forgets everything when its settings are changed",
        ["R6.24"],
        Behind
    ),
    mutant!(
        RenewsPlacesBlindly,
        "does not tell a waiter that asks about its place that it is granted, or not there",
        ["R7.12", "R7.17"],
        Behind
    ),
    mutant!(
        QueuesAnewAfterACut,
        "gives up a waiter's place when its connection is cut, and takes a new one",
        ["R7.16"]
    ),
    mutant!(
        RenewsOnItsFirstConnection,
        "renews nothing once it has another connection",
        ["R6.25"]
    ),
    mutant!(
        ConnectsLazily,
        "calls a connection open that nobody has answered on",
        ["R9.07", "R9.08"]
    ),
    mutant!(
        CallsADenialAnOutage,
        "calls wrong credentials an outage",
        ["R9.09"]
    ),
    mutant!(
        NeverSaysSent,
        "does not say that a request has been sent",
        ["R9.10"]
    ),
    mutant!(
        TakesSilenceForConsent,
        "takes a release for done that is not answered in 200 ms",
        ["R7.30", "R9.12", "R9.18"]
    ),
    mutant!(
        StaysDead,
        "never asks again after a request that was not answered",
        ["R9.13", "R9.14"]
    ),
    mutant!(
        SendsScriptsOnce,
        "does not send a script again that the server has forgotten",
        ["R9.15"]
    ),
    mutant!(
        NeverSaysAdrift,
        "does not say that a waiter is out of reach",
        ["R9.16"]
    ),
    mutant!(
        SaysQueuedTooSoon,
        "says that a waiter is in the queue before anybody has answered",
        ["R9.17"]
    ),
    mutant!(
        TakesACutForANo,
        "says that a lock was not held when its release is cut off",
        ["R9.19"]
    ),
    mutant!(
        CallsAnObstacleAnOutage,
        "calls it an outage when something else is under a lock's key",
        ["R10.13"]
    ),
];

#[derive(Debug, Default)]
struct LosesItsData;

impl Bend for LosesItsData {
    fn survives(&self, upheaval: Upheaval) -> bool {
        upheaval != Upheaval::Restart
    }

    fn context(&self, mut context: Context) -> Context {
        context.fence_base = 0;
        context
    }
}

#[derive(Debug, Default)]
struct ForgetsWithItsLeader;

impl Bend for ForgetsWithItsLeader {
    fn survives(&self, upheaval: Upheaval) -> bool {
        upheaval != Upheaval::MoveOfTheLeader
    }
}

#[derive(Debug, Default)]
struct ForgetsWithItsSettings;

impl Bend for ForgetsWithItsSettings {
    fn survives(&self, upheaval: Upheaval) -> bool {
        upheaval != Upheaval::Reconfiguration
    }
}

#[derive(Debug, Default)]
struct RenewsPlacesBlindly(Shared<BTreeSet<Nonce>>);

#[async_trait]
impl Bend for RenewsPlacesBlindly {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let first = self.0.lock().insert(claim.nonce);
        if first {
            real.acquire(claim).await
        } else {
            pending().await
        }
    }
}

/// How often connections came back, and who stands in the queue in whose name.
#[derive(Debug, Default)]
struct QueuesAnewAfterACut {
    reconnects: Arc<watch::Sender<u64>>,
    stand_ins: Shared<HashMap<Nonce, Claim>>,
}

#[async_trait]
impl Bend for QueuesAnewAfterACut {
    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        let reconnects = Arc::clone(&self.reconnects);
        let count = move |event: &Event| {
            if *event == Event::Reconnected {
                reconnects.send_modify(|count| *count += 1);
            }
        };
        real.events().inspect(count).boxed()
    }

    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let mut reconnects = self.reconnects.subscribe();
        let mut standing = claim.clone();
        loop {
            tokio::select! {
                grant = real.acquire(&standing) => {
                    let grant = grant?;
                    return Ok(Grant::new(claim, grant.token(), grant.validity()));
                }
                Ok(()) = reconnects.changed() => {
                    real.release(&standing).await?;
                    standing = fresh(claim);
                    self.stand_ins.lock().insert(claim.nonce, standing.clone());
                }
            }
        }
    }

    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let stand_in = self.stand_ins.lock().remove(&claim.nonce);
        real.release(&stand_in.unwrap_or_else(|| claim.clone()))
            .await
    }
}

#[derive(Debug, Default)]
struct RenewsOnItsFirstConnection {
    has_another: Arc<AtomicBool>,
}

#[async_trait]
impl Bend for RenewsOnItsFirstConnection {
    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        let has_another = Arc::clone(&self.has_another);
        let note = move |event: &Event| {
            if *event == Event::Reconnected {
                has_another.store(true, Ordering::SeqCst);
            }
        };
        real.events().inspect(note).boxed()
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        match self.has_another.load(Ordering::SeqCst) {
            true => pending().await,
            false => real.renew(grants).await,
        }
    }
}

#[derive(Debug, Default)]
struct ConnectsLazily;

impl Bend for ConnectsLazily {
    fn greets(&self) -> bool {
        false
    }
}

#[derive(Debug, Default)]
struct CallsADenialAnOutage;

impl Bend for CallsADenialAnOutage {
    fn refusal(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

#[derive(Debug, Default)]
struct NeverSaysSent;

#[async_trait]
impl Bend for NeverSaysSent {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        let grant = real.try_acquire(&unobserved(claim)).await?;
        Ok(grant.map(|grant| Grant::new(claim, grant.token(), grant.validity())))
    }
}

#[derive(Debug, Default)]
struct TakesSilenceForConsent;

#[async_trait]
impl Bend for TakesSilenceForConsent {
    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        let releasing = timeout(Duration::from_millis(200), real.release(claim));
        releasing.await.unwrap_or(Ok(true))
    }
}

/// The connections on which a request was not answered.
#[derive(Debug, Default)]
struct StaysDead(Shared<BTreeSet<usize>>);

#[async_trait]
impl Bend for StaysDead {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        if !self.0.lock().insert(real.number) {
            return Err(Error::new(ErrorKind::Unavailable, "try_acquire"));
        }
        // Core may drop this here: then it stays on the list, too.
        let answer = real.try_acquire(claim).await?;
        self.0.lock().remove(&real.number);
        Ok(answer)
    }
}

#[derive(Debug, Default)]
struct SendsScriptsOnce;

impl Bend for SendsScriptsOnce {
    fn sends_scripts_again(&self) -> bool {
        false
    }
}

#[derive(Debug, Default)]
struct NeverSaysAdrift;

#[async_trait]
impl Bend for NeverSaysAdrift {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let hidden = unobserved(claim);
        claim.progress.report(Reach::Sent);
        let mut acquiring = real.acquire(&hidden);
        loop {
            match timeout(Duration::from_millis(5), &mut acquiring).await {
                Ok(grant) => {
                    let grant = grant?;
                    return Ok(Grant::new(claim, grant.token(), grant.validity()));
                }
                Err(_) if hidden.progress.reach() == Reach::Queued => {
                    claim.progress.report(Reach::Queued);
                }
                Err(_) => {}
            }
        }
    }
}

#[derive(Debug, Default)]
struct SaysQueuedTooSoon;

#[async_trait]
impl Bend for SaysQueuedTooSoon {
    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        claim.progress.report(Reach::Queued);
        real.acquire(claim).await
    }
}

#[derive(Debug, Default)]
struct TakesACutForANo;

#[async_trait]
impl Bend for TakesACutForANo {
    async fn release(&self, real: &Real, claim: &Claim) -> Result<bool> {
        Ok(real.release(claim).await.unwrap_or(false))
    }
}

#[derive(Debug, Default)]
struct CallsAnObstacleAnOutage;

#[async_trait]
impl Bend for CallsAnObstacleAnOutage {
    async fn try_acquire(&self, real: &Real, claim: &Claim) -> Result<Option<Grant>> {
        let answer = real.try_acquire(claim).await;
        answer.map_err(|_| Error::new(ErrorKind::Unavailable, "try_acquire"))
    }
}
