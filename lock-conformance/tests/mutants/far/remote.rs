//! The client of a worker process: what it asks is asked at its parent.

use std::path::PathBuf;

use lock_core::Progress;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

use super::server::capabilities;
use super::wire::{Answer, Ask, Held, Messages, Numbered, Told, Valid, Wanted, write_all};
use crate::prelude::*;

/// The way to the server of the parent.
#[derive(Debug)]
pub(crate) struct ConnectRemote(pub(crate) PathBuf);

#[async_trait]
impl Connect for ConnectRemote {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        let stream = UnixStream::connect(&self.0)
            .await
            .map_err(|error| Error::new(ErrorKind::Unavailable, "connect").with_source(error))?;
        let (incoming, outgoing) = stream.into_split();
        let (asks, asked) = mpsc::unbounded_channel();
        let (pushes, events) = mpsc::unbounded_channel();
        let mut remote = Remote {
            asks,
            open: Arc::default(),
            next: AtomicU64::new(0),
            events: Shared::new(Some(events)),
            has_window: false,
        };
        tokio::spawn(write_all(asked, outgoing));
        tokio::spawn(listen(incoming, Arc::clone(&remote.open), pushes));
        let hello = Ask::Connect {
            identity: context.identity.to_string(),
            fence_base: context.fence_base,
        };
        match remote.ask(hello, None).await? {
            Answer::Welcome { has_window } => remote.has_window = has_window,
            other => return misunderstood(&other),
        }
        Ok(Arc::new(remote))
    }
}

/// Those who wait for an answer, and where they are told how far they have come.
type Open = Arc<Shared<HashMap<u64, (oneshot::Sender<Answer>, Option<Progress>)>>>;

async fn listen(incoming: OwnedReadHalf, open: Open, pushes: mpsc::UnboundedSender<Event>) {
    let mut messages = Messages::of(incoming);
    while let Some(told) = messages.next().await {
        match told {
            Told::Answer(Numbered { id, body }) => {
                if let Some((asking, _)) = open.lock().remove(&id) {
                    // Who asked may have gone.
                    let _ = asking.send(body);
                }
            }
            Told::Reached(Numbered { id, body }) => {
                if let Some((_, Some(progress))) = open.lock().get(&id) {
                    progress.report(body.reach());
                }
            }
            Told::Event(pushed) => {
                if let Ok(event) = pushed.event() {
                    let _ = pushes.send(event);
                }
            }
        }
    }
    // The parent has gone, and with it everybody's answer.
    open.lock().clear();
}

#[derive(Debug)]
struct Remote {
    asks: mpsc::UnboundedSender<Numbered<Ask>>,
    open: Open,
    next: AtomicU64,
    events: Shared<Option<mpsc::UnboundedReceiver<Event>>>,
    has_window: bool,
}

impl Remote {
    async fn ask(&self, body: Ask, claim: Option<&Claim>) -> Result<Answer> {
        let progress = claim.map(|claim| claim.progress.clone());
        if let Some(progress) = progress.as_ref().filter(|p| p.reach() == Reach::Unsent) {
            progress.report(Reach::Sent);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (asking, answer) = oneshot::channel();
        self.open.lock().insert(id, (asking, progress));
        let unanswered = Error::new(ErrorKind::Indeterminate, "ask");
        // Sent to nobody, it is not answered either.
        let _ = self.asks.send(Numbered { id, body });
        match answer.await.map_err(|_| unanswered)? {
            Answer::Failed(failed) => Err(failed.error()),
            answer => Ok(answer),
        }
    }
}

fn misunderstood<T>(answer: &Answer) -> Result<T> {
    Err(Error::new(ErrorKind::Protocol, "ask").with_detail(format!("{answer:?}")))
}

/// What no worker is ordered to do.
fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "ask"))
}

#[async_trait]
impl Backend for Remote {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = capabilities(self.has_window);
        capabilities.list = false;
        capabilities.break_hold = false;
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        match self.ask(Ask::Try(Wanted::of(claim)), Some(claim)).await? {
            Answer::Granted(held) => Ok(held.map(|held| held.grant(claim))),
            other => misunderstood(&other),
        }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        match self
            .ask(Ask::Acquire(Wanted::of(claim)), Some(claim))
            .await?
        {
            Answer::Granted(Some(held)) => Ok(held.grant(claim)),
            other => misunderstood(&other),
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let wanted = |grant: &&Grant| (Wanted::of(grant.claim()), grant.token().get());
        let asked = self.ask(Ask::Renew(grants.iter().map(wanted).collect()), None);
        let renewal = |valid: Option<Valid>| {
            valid.map_or(Renewal::Gone, |valid| Renewal::Extended(valid.validity()))
        };
        let renewed = match asked.await {
            Ok(Answer::Renewed(answers)) => Ok(answers),
            Ok(other) => misunderstood(&other),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map(renewal).map_err(|failed| failed.error()))
                .collect(),
            Err(error) => vec![Err(error); grants.len()],
        }
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        match self.ask(Ask::Release(Wanted::of(claim)), None).await? {
            Answer::Released(held) => Ok(held),
            other => misunderstood(&other),
        }
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        let ask = Ask::Pass(Wanted::of(held), Wanted::of(next));
        match self.ask(ask, Some(next)).await? {
            Answer::Passed(released, held) => Ok(Passed {
                released,
                next: Held::standing(held.as_ref(), next),
            }),
            other => misunderstood(&other),
        }
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let ask = Ask::Replace(Wanted::of(waiting), Wanted::of(next));
        match self.ask(ask, Some(next)).await? {
            Answer::Replaced(None) => Ok(Replaced::Gone),
            Answer::Replaced(Some(held)) => Ok(Replaced::Now(Held::standing(held.as_ref(), next))),
            other => misunderstood(&other),
        }
    }

    fn events(&self) -> BoxStream<'static, Event> {
        pushed(self.events.lock().take())
    }

    async fn inspect(&self, _: &LockName) -> Result<LockState> {
        unsupported()
    }

    async fn list(&self, _: &str, _: Cursor) -> Result<Page> {
        unsupported()
    }

    async fn break_hold(&self, _: &LockName, _: FencingToken) -> Result<bool> {
        unsupported()
    }

    async fn close(&self) -> Result<()> {
        self.ask(Ask::Close, None).await.map(drop)
    }
}
