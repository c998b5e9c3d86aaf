//! R2 and R6: wall clocks that are believed in.

use std::sync::atomic::AtomicI64;
use std::time::SystemTime;

use lock_core::ManualClock;

use crate::clock;
use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        TakesTokensFromTheWallClock,
        "takes its tokens from the server's wall clock",
        ["R2.13"],
        Behind
    ),
    mutant!(
        EndsLeasesByTheWallClock,
        "ends leases by the server's wall clock",
        ["R6.10"],
        Behind
    ),
    mutant!(
        RenewsWhatItsWallClockEnded,
        "ends leases when its wall clock jumps ahead, and goes on renewing them",
        ["R6.11"],
        Behind
    ),
    mutant!(
        TakesTokensFromTheClient,
        "takes its tokens from the client's wall clock",
        ["R2.22"]
    ),
    mutant!(
        EndsLeasesByTheClientsClock,
        "takes a lease for over when the client's wall clock says so",
        ["R6.21"]
    ),
];

/// How many seconds the server's wall clock is off.
#[derive(Debug, Default)]
struct TakesTokensFromTheWallClock(AtomicI64);

/// Far enough from zero for clocks that are set back by days.
const TOKENS_FROM: Duration = Duration::from_secs(1_000_000);

#[async_trait]
impl Bend for TakesTokensFromTheWallClock {
    fn wall_clock_set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        let true_time = real.clock.now().since_origin() + TOKENS_FROM;
        let wall_time = shifted(true_time, self.0.load(Ordering::Relaxed));
        let micros = u64::try_from(wall_time.as_micros()).expect("no clock shows that");
        Grant::new(claim, token(micros), grant.validity())
    }
}

fn shifted(time: Duration, seconds: i64) -> Duration {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - by } else { time + by }
}

/// What shows the wall clock's time to a server that does not want it to run backwards: set back, it stands
/// until it is right again.
#[derive(Debug)]
struct WallClock {
    hand: Arc<ManualClock>,
    is_ahead: Arc<AtomicBool>,
}

impl Default for WallClock {
    fn default() -> Self {
        let is_ahead = Arc::new(AtomicBool::new(false));
        let stands = Arc::clone(&is_ahead);
        // Cases end long before the hour for which it would stand.
        let speed = move || {
            if stands.load(Ordering::Relaxed) {
                0
            } else {
                100
            }
        };
        Self {
            hand: clock::running_at(speed),
            is_ahead,
        }
    }
}

impl WallClock {
    fn set(&self, seconds: i64) {
        self.is_ahead.store(seconds < 0, Ordering::Relaxed);
        if let Ok(seconds) = u64::try_from(seconds) {
            self.hand.advance(Duration::from_secs(seconds));
        }
    }
}

#[derive(Debug, Default)]
struct EndsLeasesByTheWallClock(WallClock);

#[async_trait]
impl Bend for EndsLeasesByTheWallClock {
    fn store_clock(&self) -> Clock {
        self.0.hand.clock()
    }

    fn wall_clock_set(&self, seconds: i64) {
        self.0.set(seconds);
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        Grant::new(claim, grant.token(), whole(&real.clock, claim))
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let answers = real.renew(grants).await;
        let extended = |grant: &Grant| Renewal::Extended(whole(&real.clock, grant.claim()));
        answers
            .into_iter()
            .zip(grants)
            .map(|(answer, grant)| match answer? {
                Renewal::Extended(_) => Ok(extended(grant)),
                Renewal::Gone => Ok(Renewal::Gone),
            })
            .collect()
    }
}

#[derive(Debug, Default)]
struct RenewsWhatItsWallClockEnded(EndsLeasesByTheWallClock);

#[async_trait]
impl Bend for RenewsWhatItsWallClockEnded {
    fn store_clock(&self) -> Clock {
        self.0.store_clock()
    }

    fn wall_clock_set(&self, seconds: i64) {
        self.0.wall_clock_set(seconds);
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        self.0.told(real, claim, grant).await
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let extended = |grant: &&Grant| Renewal::Extended(whole(&real.clock, grant.claim()));
        grants.iter().map(|grant| Ok(extended(grant))).collect()
    }

    fn events(&self, _: &Real) -> BoxStream<'static, Event> {
        silence()
    }
}

/// The wall clock of this process.
#[expect(
    clippy::disallowed_methods,
    reason = "believing in the wall clock is what is wrong here"
)]
fn wall_time() -> Duration {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.expect("no test sets a clock so far back")
}

#[derive(Debug, Default)]
struct TakesTokensFromTheClient;

#[async_trait]
impl Bend for TakesTokensFromTheClient {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        let micros = u64::try_from(wall_time().as_micros()).expect("no clock shows that");
        Grant::new(claim, token(micros), grant.validity())
    }
}

/// When each lease ends, as the client reckons.
#[derive(Debug, Default)]
struct EndsLeasesByTheClientsClock(Shared<HashMap<Nonce, Duration>>);

#[async_trait]
impl Bend for EndsLeasesByTheClientsClock {
    async fn told(&self, _: &Real, claim: &Claim, grant: Grant) -> Grant {
        self.0.lock().insert(claim.nonce, wall_time() + claim.ttl);
        passed_on(claim, &grant)
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers = real.renew(grants).await;
        for (grant, answer) in grants.iter().zip(&mut answers) {
            let (claim, now) = (grant.claim(), wall_time());
            let end = self.0.lock().insert(claim.nonce, now + claim.ttl);
            if end.is_some_and(|end| end < now) {
                *answer = Ok(Renewal::Gone);
            }
        }
        answers
    }
}
