//! R4: losses that nobody is told of, and losses that are none.

use tokio::sync::mpsc;

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
            "R1.02", "R4.03", "R4.08", "R5.10", "R5.12", "R5.13", "R9.06", "R12.10"
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

/// The way to each client that listens.
#[derive(Debug, Default)]
struct PushesFalseLosses(Shared<HashMap<usize, mpsc::Sender<Event>>>);

#[async_trait]
impl Bend for PushesFalseLosses {
    fn events(&self, real: &Real) -> BoxStream<'static, Event> {
        // Of one place: what is sent after it is taken only when it has been heard.
        let (sender, events) = mpsc::channel(1);
        self.0.lock().insert(real.number, sender);
        futures_util::stream::unfold(events, |mut events| async move {
            events.recv().await.map(|event| (event, events))
        })
        .boxed()
    }

    async fn told(&self, real: &Real, claim: &Claim, grant: Grant) -> Grant {
        let listener = self.0.lock().get(&real.number).cloned();
        if let Some(listener) = listener {
            let nonce = claim.nonce;
            for event in [
                Event::Gone { nonce },
                Event::Reconnected,
                Event::Reconnected,
            ] {
                // A client that is closing does not listen any more.
                let _ = listener.send(event).await;
            }
        }
        Grant::new(claim, grant.token(), grant.validity())
    }
}
