//! A client of the server: the same as any backend, with messages in between.

use std::future::pending;

use futures_util::future::{BoxFuture, FutureExt};
use lock_core::Connect;
use tokio::sync::{mpsc, oneshot};

use super::network::Network;
use super::server::{Server, capabilities};
use super::session::Session;
use crate::prelude::*;

/// How often a waiter asks about its place, in case a push was lost.
const PLACE_RENEWAL: Duration = Duration::from_millis(500);
/// Between two attempts of a waiter that is out of reach.
const PAUSE: Duration = Duration::from_millis(100);

/// The way to the server over a network.
#[derive(Clone, Debug)]
pub(super) struct ConnectFar {
    pub(super) server: Arc<Server>,
    pub(super) network: Arc<Network>,
    /// Whether it waits for the server to answer.
    pub(super) greets: bool,
    /// Whether it sends a script again that the server has forgotten.
    pub(super) sends_scripts_again: bool,
}

impl ConnectFar {
    pub(super) async fn open(&self, context: Context) -> Result<Arc<Far>> {
        if self.greets {
            self.server.attends().await?;
        }
        self.server.connections.fetch_add(1, Ordering::Relaxed);
        let (server, network) = (Arc::clone(&self.server), Arc::clone(&self.network));
        let (session, events) = Session::begin(server, network, context, self.sends_scripts_again);
        Ok(Arc::new(Far {
            session,
            book: Shared::default(),
            events: Shared::new(Some(events)),
            open: Shared::new(true),
        }))
    }
}

#[async_trait]
impl Connect for ConnectFar {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(self.open(context).await?)
    }
}

#[derive(Debug)]
pub(super) struct Far {
    session: Arc<Session>,
    /// The claims as the server has them. What it reports of their progress is not seen here.
    book: Shared<HashMap<Nonce, Claim>>,
    events: Shared<Option<mpsc::UnboundedReceiver<Event>>>,
    open: Shared<bool>,
}

impl Far {
    /// Sends a request, and waits for its answer for as long as the connection lasts.
    async fn ask<T, F>(
        &self,
        text: String,
        claim: Option<&Claim>,
        request: impl FnOnce(Arc<dyn Backend>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (server, network) = (&self.session.server, &self.session.network);
        let (cuts, kills) = (network.cuts(), server.kills());
        if !server.is_up() {
            return Err(Error::new(ErrorKind::Unavailable, "ask"));
        }
        if let Some(claim) = claim.filter(|claim| claim.progress.reach() == Reach::Unsent) {
            claim.progress.report(Reach::Sent);
        }
        let (reply, answer) = oneshot::channel();
        let (session, sent) = (Arc::clone(&self.session), text.clone());
        let executing = async move {
            // Who asked may have gone.
            let _ = reply.send(session.execute(&sent, request).await);
        };
        network.carry(&text, executing.boxed());
        let answered = async {
            match answer.await {
                Ok(outcome) => {
                    network.reply().await;
                    outcome
                }
                // It never arrived.
                Err(_) => pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = answered => outcome,
            () = network.cut_since(cuts) => Err(Error::new(ErrorKind::Indeterminate, "ask")),
            () = server.killed_since(kills) => Err(Error::new(ErrorKind::Indeterminate, "ask")),
        }
    }

    /// The claim as the server has it.
    fn known(&self, claim: &Claim) -> Claim {
        let mut book = self.book.lock();
        let known = book.entry(claim.nonce).or_insert_with(|| unobserved(claim));
        known.clone()
    }

    /// Has the claim ask under another nonce: what ended with a session is over for good.
    /// Pushes about it then name a nonce that core does not know; it hears by its validity and renewals.
    fn begin_anew(&self, claim: &Claim) {
        self.book.lock().insert(claim.nonce, fresh(claim));
    }

    /// Puts the claim into the queue unless it is there, and says how it stands. Its grant, if it comes
    /// later, is pushed.
    async fn stand(&self, claim: &Claim, push: oneshot::Sender<Grant>) -> Result<Standing> {
        let (known, session) = (self.known(claim), Arc::clone(&self.session));
        let text = format!("stand {}", claim.name);
        self.ask(text, Some(claim), move |store| async move {
            session.server.carried.add(&known, &session.ends);
            let waiting = known.clone();
            let mut acquiring: BoxFuture<'static, _> =
                async move { store.acquire(&waiting).await }.boxed();
            match futures_util::poll!(&mut acquiring) {
                std::task::Poll::Ready(grant) => {
                    let grant = grant?;
                    session.server.granted(&grant);
                    Ok(Standing::Granted(grant))
                }
                std::task::Poll::Pending => {
                    tokio::spawn(push_grant(session, acquiring, push));
                    Ok(Standing::Queued)
                }
            }
        })
        .await
    }

    /// Stays in the queue until the claim is granted, and reports how far it has come, there and to `heard`.
    pub(super) async fn wait(
        &self,
        claim: &Claim,
        heard: impl Fn(Reach) + Send + Sync,
    ) -> Result<Grant> {
        let report = |reach| {
            claim.progress.report(reach);
            heard(reach);
        };
        let mut ended = self.session.ended.subscribe();
        loop {
            let (push, pushed) = oneshot::channel();
            match self.stand(claim, push).await {
                Ok(Standing::Granted(grant)) => return Ok(Self::heard(claim, &grant)),
                Ok(Standing::Queued) => report(Reach::Queued),
                Err(error) => {
                    let in_queue = matches!(claim.progress.reach(), Reach::Queued | Reach::Adrift);
                    if !in_queue || !error.is_retryable() {
                        return Err(error);
                    }
                    report(Reach::Adrift);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            tokio::select! {
                Ok(grant) = pushed => return Ok(Self::heard(claim, &grant)),
                () = tokio::time::sleep(PLACE_RENEWAL) => {}
                Ok(()) = ended.changed() => self.begin_anew(claim),
            }
        }
    }

    /// The grant as core asked for it.
    fn heard(claim: &Claim, grant: &Grant) -> Grant {
        passed_on(claim, grant)
    }

    fn heard_standing(claim: &Claim, standing: Standing) -> Standing {
        match standing {
            Standing::Granted(grant) => Standing::Granted(Self::heard(claim, &grant)),
            Standing::Queued => Standing::Queued,
        }
    }

    fn leave(&self) {
        if std::mem::take(&mut *self.open.lock()) {
            let connections = &self.session.server.connections;
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Waits for a grant on behalf of a waiter, for as long as there is one and the store it stands in.
async fn push_grant(
    session: Arc<Session>,
    acquiring: BoxFuture<'static, Result<Grant>>,
    mut push: oneshot::Sender<Grant>,
) {
    let losses = session.server.losses();
    let grant = tokio::select! {
        grant = acquiring => grant,
        () = push.closed() => return,
        () = session.server.lost_since(losses) => return,
    };
    if let Ok(grant) = grant {
        session.server.granted(&grant);
        if session.network.push().await {
            // Whoever waited may have gone.
            let _ = push.send(grant);
        } else {
            // Lost on the way: the waiter is not told that nothing will come.
            push.closed().await;
        }
    }
}

#[async_trait]
impl Backend for Far {
    fn capabilities(&self) -> Capabilities {
        capabilities(self.session.server.has_window)
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        let (known, session) = (self.known(claim), Arc::clone(&self.session));
        let text = format!("try {}", claim.name);
        let grant = self
            .ask(text, Some(claim), move |store| async move {
                let grant = store.try_acquire(&known).await?;
                if let Some(grant) = &grant {
                    session.server.carried.add(&known, &session.ends);
                    session.server.granted(grant);
                }
                Ok(grant)
            })
            .await?;
        Ok(grant.map(|grant| Self::heard(claim, &grant)))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        self.wait(claim, |_| {}).await
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let names: Vec<_> = grants.iter().map(|g| g.claim().name.as_str()).collect();
        let text = format!("renew {}", names.join(" "));
        let known: Vec<_> = grants
            .iter()
            .map(|grant| Grant::new(&self.known(grant.claim()), grant.token(), grant.validity()))
            .collect();
        let answers = self.ask(text, None, move |store| async move {
            Ok(store.renew(&known.iter().collect::<Vec<_>>()).await)
        });
        match answers.await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); grants.len()],
        }
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let known = self.known(claim);
        let text = format!("release {}", claim.name);
        let server = Arc::clone(&self.session.server);
        let held = self
            .ask(text, None, move |store| async move {
                let held = store.release(&known).await?;
                server.carried.forget(&known);
                Ok(held)
            })
            .await?;
        self.book.lock().remove(&claim.nonce);
        Ok(held)
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        let (known, after) = (self.known(held), self.known(next));
        let session = Arc::clone(&self.session);
        let text = format!("pass {}", held.name);
        let passed = self
            .ask(text, Some(next), move |store| async move {
                let passed = store.pass(&known, &after).await?;
                session.replaced(&known, &after);
                if let Standing::Granted(grant) = &passed.next {
                    session.server.granted(grant);
                }
                Ok(passed)
            })
            .await?;
        self.book.lock().remove(&held.nonce);
        Ok(Passed {
            released: passed.released,
            next: Self::heard_standing(next, passed.next),
        })
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let (known, after) = (self.known(waiting), self.known(next));
        let text = format!("replace {}", waiting.name);
        let session = Arc::clone(&self.session);
        let replaced = self
            .ask(text, Some(next), move |store| async move {
                let replaced = store.replace(&known, &after).await?;
                session.replaced(&known, &after);
                Ok(replaced)
            })
            .await?;
        self.book.lock().remove(&waiting.nonce);
        Ok(match replaced {
            Replaced::Now(standing) => Replaced::Now(Self::heard_standing(next, standing)),
            Replaced::Gone => Replaced::Gone,
        })
    }

    fn events(&self) -> BoxStream<'static, Event> {
        pushed(self.events.lock().take())
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let asked = name.clone();
        self.ask(format!("inspect {name}"), None, move |store| async move {
            store.inspect(&asked).await
        })
        .await
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        let asked = prefix.to_owned();
        self.ask(format!("list {prefix}"), None, move |store| async move {
            store.list(&asked, cursor).await
        })
        .await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        let asked = name.clone();
        self.ask(format!("break {name}"), None, move |store| async move {
            store.break_hold(&asked, token).await
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        let closed = self.ask(
            "close".into(),
            None,
            |store| async move { store.close().await },
        );
        closed.await?;
        self.leave();
        Ok(())
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.leave();
    }
}
