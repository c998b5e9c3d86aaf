//! R4 and R7, behind a network: what is lost when a server forgets its history.

use std::future::{pending, ready};

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        HearsNothingAfterACompaction,
        "hears of nothing any more once the server has forgotten its history",
        ["R4.21"]
    ),
    mutant!(
        ForgetsWaitersWithItsHistory,
        "forgets those who wait when it forgets its history",
        ["R7.32"],
        Behind
    ),
];

#[derive(Debug, Default)]
struct HearsNothingAfterACompaction(Arc<AtomicBool>);

impl Bend for HearsNothingAfterACompaction {
    fn compacted(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        let deaf = Arc::clone(&self.0);
        real.events()
            .filter(move |_| ready(!deaf.load(Ordering::Relaxed)))
            .boxed()
    }
}

/// How often it has been compacted, and how often it had been when each waiter came.
#[derive(Debug, Default)]
struct ForgetsWaitersWithItsHistory {
    compactions: AtomicUsize,
    came: Shared<HashMap<Nonce, usize>>,
}

impl ForgetsWaitersWithItsHistory {
    fn now(&self) -> usize {
        self.compactions.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Bend for ForgetsWaitersWithItsHistory {
    fn compacted(&self) {
        self.compactions.fetch_add(1, Ordering::Relaxed);
    }

    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let came = *self.came.lock().entry(claim.nonce).or_insert(self.now());
        let grant = real.acquire(claim).await?;
        if self.now() > came {
            pending().await
        } else {
            Ok(grant)
        }
    }
}
