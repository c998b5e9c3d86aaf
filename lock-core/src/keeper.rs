//! The task that renews every held lock and ends those whose time has come.
//!
//! One keeper serves all locks of a client. It wakes when the first of them is due and takes along
//! what falls due within the same interval, so that a thousand locks cost a backend that can batch
//! a few requests per third of a TTL; each lock is judged alone.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::clock::BootInstant;
use crate::error::{Error, ErrorKind, Result};
use crate::grant::{Grant, Renewal};
use crate::hold::Hold;
use crate::lease::{LeaseEvent, LossReason};
use crate::shared::Shared;
#[cfg(test)]
use crate::simulation::{Sabotage, broken};

/// The least time that a renewal is given, however little of the lease is left.
const LEAST_TIMEOUT: Duration = Duration::from_millis(50);

/// Runs until the client's runtime ends. If it ends early, every guard is told.
pub(crate) async fn keep(shared: Arc<Shared>) {
    /// Ends all holds also when the keeper panics.
    struct TellAll(Arc<Shared>);
    impl Drop for TellAll {
        fn drop(&mut self) {
            for hold in self.0.book.close() {
                self.0.hold_ended(&hold);
            }
        }
    }
    let tell_all = TellAll(shared);
    let shared = &tell_all.0;
    loop {
        let next = shared.book.fall_asleep();
        tokio::select! {
            biased;
            () = shared.book.earlier() => {}
            () = shared.clock.sleep_until_some(next) => {}
        }
        let now = shared.clock.now();
        let mut renew = Vec::new();
        for hold in shared.book.due(now) {
            let (ended_now, ended) = hold.apply(LeaseEvent::Tick);
            if ended_now {
                shared.hold_ended(&hold);
            } else if ended.is_some() {
                shared.book.remove(&hold.claim().nonce);
            } else if hold.renew_at().is_some() {
                hold.renewal_started();
                shared.book.reschedule(&hold);
                renew.push(hold);
            }
        }
        #[cfg(test)]
        if broken(Sabotage::KeeperSleeps) {
            renew.clear();
        }
        // Those that are about to end are asked about by themselves: they cannot wait for an answer as
        // long as the others can, and must not cut the others' wait short.
        let (ample, urgent): (Vec<_>, Vec<_>) = renew
            .into_iter()
            .partition(|hold| left(hold, now) / 2 >= shared.op_timeout);
        for batch in [ample, urgent] {
            if !batch.is_empty() {
                // A task of its own: a batch that hangs must not hold up the next round.
                tokio::spawn(renew_batch(Arc::clone(shared), batch));
            }
        }
    }
}

/// What is left of the validity of `hold`.
fn left(hold: &Hold, now: BootInstant) -> Duration {
    hold.validity().expires_at().saturating_since(now)
}

async fn renew_batch(shared: Arc<Shared>, holds: Vec<Arc<Hold>>) {
    let now = shared.clock.now();
    let shortest = holds.iter().map(|hold| left(hold, now)).min();
    let patience = shortest
        .map_or(shared.op_timeout, |left| shared.op_timeout.min(left / 2))
        .max(LEAST_TIMEOUT);
    let mut batch = Batch {
        shared,
        holds,
        answers: Vec::new(),
    };
    let grants: Vec<&Grant> = batch.holds.iter().map(|hold| hold.grant()).collect();
    let asking = batch.shared.backend.renew(&grants);
    let answers = batch.shared.clock.timeout(patience, asking).await;
    batch.answers = answers.unwrap_or_default();
}

/// Renewals under way. Each is settled when this is dropped, also when the backend panics: one that
/// was never settled would not be tried again.
struct Batch {
    shared: Arc<Shared>,
    holds: Vec<Arc<Hold>>,
    answers: Vec<Result<Renewal>>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut answers = std::mem::take(&mut self.answers).into_iter();
        for hold in &self.holds {
            let answer = answers.next().unwrap_or_else(|| Err(unanswered(hold)));
            settle(&self.shared, hold, &answer);
        }
    }
}

fn unanswered(hold: &Hold) -> Error {
    Error::new(ErrorKind::Indeterminate, "renew").with_name(&hold.claim().name)
}

/// Takes note of the answer to one renewal.
fn settle(shared: &Shared, hold: &Arc<Hold>, answer: &Result<Renewal>) {
    let name = &hold.claim().name;
    let event = match answer {
        Ok(Renewal::Extended(validity)) => {
            debug!(%name, token = %hold.token(), "lease renewed");
            LeaseEvent::Renewed(*validity)
        }
        Ok(Renewal::Gone) => LeaseEvent::End(LossReason::NotHeld),
        // A failed renewal is no loss: the lease on the server runs on, and so does ours.
        Err(error) => {
            warn!(%name, token = %hold.token(), %error, "renewal failed");
            LeaseEvent::RenewalFailed
        }
    };
    #[cfg(test)]
    let event = match event {
        LeaseEvent::RenewalFailed if broken(Sabotage::FailedRenewalLoses) => {
            LeaseEvent::End(LossReason::NotHeld)
        }
        LeaseEvent::RenewalFailed if broken(Sabotage::FailedRenewalCounts) => {
            let now = shared.clock.now();
            LeaseEvent::Renewed(crate::grant::Validity::new(now, now, hold.claim().ttl))
        }
        event => event,
    };
    if hold.apply(event).0 {
        shared.hold_ended(hold);
    } else {
        shared.book.reschedule(hold);
    }
}

/// Renews `hold` by hand, once.
pub(crate) async fn renew_now(shared: &Shared, hold: &Arc<Hold>) -> Result<()> {
    let name = hold.claim().name.clone();
    let lost = |reason: LossReason| {
        Err(Error::new(ErrorKind::Lost, "renew")
            .with_name(&name)
            .with_detail(reason.to_string()))
    };
    if let Some(reason) = shared.ended(hold) {
        return lost(reason);
    }
    hold.renewal_sent();
    let grants = [hold.grant()];
    let answers = shared
        .clock
        .timeout(shared.op_timeout, shared.backend.renew(&grants))
        .await;
    let answer = answers.and_then(|answers| answers.into_iter().next());
    let answer = answer.unwrap_or_else(|| Err(unanswered(hold)));
    settle(shared, hold, &answer);
    match (shared.ended(hold), answer) {
        (Some(reason), _) => lost(reason),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(error.with_name(&name)),
    }
}

/// Plans a renewal of every kept hold for now: pushes may have been lost.
pub(crate) fn verify_all(shared: &Shared) {
    for hold in shared.book.all() {
        if hold.apply(LeaseEvent::Verify).0 {
            shared.hold_ended(&hold);
        } else {
            shared.book.reschedule(&hold);
        }
    }
}
