//! What makes sure that a nonce which nobody wants any more neither holds nor waits.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::claim::Claim;
use crate::clock::BootInstant;
use crate::shared::Shared;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Releases `claim` in the background, from `not_before` on, again and again until the backend
/// confirms it or its lease must be over in any case.
pub(crate) fn clean(shared: &Arc<Shared>, claim: Claim, not_before: Option<BootInstant>) {
    let shared = Arc::clone(shared);
    let counted = shared.cleanups.count();
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let _counted = counted;
        shared.clock.sleep_until(not_before.unwrap_or(BootInstant::from_origin(Duration::ZERO))).await;
        // Past this the record has ended by itself, also one of a request that was answered late.
        let give_up = shared.clock.now() + claim.ttl.saturating_mul(2) + shared.outage_limit;
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = shared.clock.timeout(shared.op_timeout, shared.backend.release(&claim)).await;
            match answer {
                Some(Ok(_)) => {
                    debug!(name = %claim.name, nonce = %claim.nonce, "orphan cleaned up");
                    return;
                }
                Some(Err(error)) if !error.is_retryable() => {
                    warn!(name = %claim.name, nonce = %claim.nonce, %error, "cannot clean up");
                    return;
                }
                Some(Err(_)) | None => {}
            }
            if shared.clock.now() >= give_up {
                warn!(name = %claim.name, nonce = %claim.nonce, "gave up cleaning up; its TTL has passed");
                return;
            }
            shared.clock.sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
}
