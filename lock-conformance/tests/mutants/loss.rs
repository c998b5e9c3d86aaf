//! R4: losses that nobody is told of, and losses that are none.

use tokio::sync::mpsc;

use std::future::poll_fn;
use std::task::Poll;

use crate::prelude::*;

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant!(TellsNobodyOfABreak, "tells nobody of a break", ["R4.04"]),
    mutant!(
        BreaksWhateverTheToken,
        "breaks the hold that there is, whatever the token",
        ["R4.05", "R11.06"]
    ),
    mutant!(
        PushesFalseLosses,
        "tells every holder that it holds no longer",
        [
            "R4.03", "R4.08", "R5.10", "R5.12", "R5.13", "R9.06", "R12.10"
        ]
    ),
];

#[derive(Debug, Default)]
struct TellsNobodyOfABreak;

impl Bend for TellsNobodyOfABreak {
    fn events(&self, _: &Real) -> BoxStream<'static, Event> {
        silence()
    }
}

#[derive(Debug, Default)]
struct BreaksWhateverTheToken;

#[async_trait]
impl Bend for BreaksWhateverTheToken {
    async fn break_hold(&self, real: &Real, name: &LockName, _: FencingToken) -> Result<bool> {
        match real.inspect(name).await?.holders.first() {
            Some(holder) => real.break_hold(name, holder.token).await,
            None => Ok(false),
        }
    }
}

/// The steps from the last push to the one before: more than core takes from a doubt about a grant to its
/// guard.
const LONGEST_GAP: usize = 10;

/// The way to each client that listens.
#[derive(Debug, Default)]
struct PushesFalseLosses(Shared<HashMap<usize, mpsc::UnboundedSender<Event>>>);

#[async_trait]
impl Bend for PushesFalseLosses {
    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        let (sender, events) = mpsc::unbounded_channel();
        self.0.lock().insert(real.number, sender);
        futures_util::stream::unfold(events, |mut events| async move {
            events.recv().await.map(|event| (event, events))
        })
        .boxed()
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        if let Some(listener) = self.0.lock().get(&real.number).cloned() {
            let nonce = claim.nonce;
            // On the client's own thread, beside what it does with the grant: those that come too early
            // are about a grant that nobody has heard of yet, and make core ask about it. Each leaves it more
            // time than the one before to believe the answer.
            tokio::spawn(async move {
                for gap in 0..=LONGEST_GAP {
                    for _ in 0..gap {
                        step_aside().await;
                    }
                    // A client that is closing does not listen any more.
                    let _ = listener.send(Event::Gone { nonce });
                }
            });
        }
        Grant::new(claim, grant.token(), grant.validity())
    }
}

/// Lets the other tasks of this thread run. Tokio's own way would also let in what other threads have sent
/// meanwhile, such as the release that has to come too late.
async fn step_aside() {
    let mut stepped = false;
    poll_fn(|cx| match std::mem::replace(&mut stepped, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}
