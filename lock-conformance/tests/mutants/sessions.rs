//! R4 and R7, behind a network: clients that do not know what ends with their session.

use std::future::{pending, ready};

use tokio::sync::watch;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(
        KeepsHoldsOfAnEndedSession,
        "counts what it held in a session that has ended as held in the next one",
        ["R4.20"]
    ),
    mutant!(
        LeavesWithItsSession,
        "does not go back into the queue when its session has ended",
        ["R7.31"]
    ),
];

fn is_end_of_session(event: &Event) -> bool {
    matches!(event, Event::SessionEnded { .. })
}

#[derive(Debug, Default)]
struct KeepsHoldsOfAnEndedSession(Arc<AtomicBool>);

#[async_trait]
impl Bend for KeepsHoldsOfAnEndedSession {
    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        let ended = Arc::clone(&self.0);
        let keep_to_itself = move |event: &Event| {
            let ends = is_end_of_session(event);
            ended.fetch_or(ends, Ordering::Relaxed);
            ready(!ends)
        };
        real.events().filter(keep_to_itself).boxed()
    }

    async fn renew(&self, real: &Real, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers = real.renew(grants).await;
        for (grant, answer) in grants.iter().zip(&mut answers) {
            if self.0.load(Ordering::Relaxed) && matches!(answer, Ok(Renewal::Gone)) {
                *answer = Ok(Renewal::Extended(whole(&real.clock, grant.claim())));
            }
        }
        answers
    }
}

/// How many sessions have ended.
#[derive(Debug, Default)]
struct LeavesWithItsSession(Arc<watch::Sender<u64>>);

#[async_trait]
impl Bend for LeavesWithItsSession {
    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        let ended = Arc::clone(&self.0);
        let count = move |event: &Event| {
            if is_end_of_session(event) {
                ended.send_modify(|count| *count += 1);
            }
        };
        real.events().inspect(count).boxed()
    }

    async fn acquire(&self, real: &Real, claim: &Claim) -> Result<Grant> {
        let mut ended = self.0.subscribe();
        tokio::select! {
            grant = real.acquire(claim) => grant,
            Ok(()) = ended.changed() => pending().await,
        }
    }
}
