//! What makes sure that a nonce which nobody wants any more neither holds nor waits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{debug, warn};

use crate::claim::Claim;
use crate::clock::BootInstant;
use crate::shared::Shared;
#[cfg(test)]
use crate::simulation::{Sabotage, broken};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Releases `claim` in the background, from `not_before` on, again and again until the backend
/// confirms it or its lease must be over in any case.
pub(crate) fn clean(shared: &Arc<Shared>, claim: Claim, not_before: Option<BootInstant>) {
    let counted = shared.cleanups.count();
    let cleaning = Arc::clone(shared);
    shared.runtime.spawn(async move {
        let _counted = counted;
        if let Some(not_before) = not_before {
            cleaning.clock.sleep_until(not_before).await;
        }
        insist(&cleaning, &claim).await;
    });
}

async fn insist(shared: &Shared, claim: &Claim) {
    #[cfg(test)]
    if broken(Sabotage::ReaperForgets) {
        return;
    }
    let clock = &shared.clock;
    let (name, nonce) = (&claim.name, &claim.nonce);
    // Past this the record has ended by itself, also one of a request that was answered late.
    let give_up = clock.now() + claim.ttl.saturating_mul(2) + shared.outage_limit;
    let mut pause = FIRST_PAUSE;
    loop {
        let releasing = AssertUnwindSafe(async { shared.backend.release(claim).await });
        match clock
            .timeout(shared.op_timeout, releasing.catch_unwind())
            .await
        {
            Some(Ok(Ok(_))) => {
                debug!(%name, %nonce, "orphan cleaned up");
                return;
            }
            // Whatever the error is, it may or may not have happened.
            Some(Ok(Err(error))) => debug!(%name, %nonce, %error, "cleaning up failed"),
            // Nobody else would try again.
            Some(Err(_)) => debug!(%name, %nonce, "cleaning up panicked"),
            None => debug!(%name, %nonce, "cleaning up was not answered"),
        }
        if clock.now() >= give_up {
            warn!(%name, %nonce, "gave up cleaning up; its TTL has passed");
            return;
        }
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        clock.sleep(jittered).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
