//! What a client has at the server: its connection to the store, and what is pushed to it.

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::carried::Ends;
use super::network::Network;
use super::server::Server;
use crate::prelude::*;

/// What the server has of one client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) server: Arc<Server>,
    pub(super) network: Arc<Network>,
    context: Context,
    sends_scripts_again: bool,
    /// The connection to what is stored, and how often the server had lost its data before.
    store: AsyncMutex<Option<(u64, Arc<dyn Backend>)>>,
    pushes: mpsc::UnboundedSender<Event>,
    pub(super) ends: Ends,
    /// How often it has ended; the client goes on in the next one.
    pub(super) ended: watch::Sender<u64>,
}

impl Session {
    /// Begins one, and says what is pushed in it.
    pub(super) fn begin(
        server: Arc<Server>,
        network: Arc<Network>,
        context: Context,
        sends_scripts_again: bool,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let (pushes, events) = mpsc::unbounded_channel();
        let (ends, ended) = mpsc::unbounded_channel();
        let session = Arc::new(Self {
            server,
            network,
            context,
            sends_scripts_again,
            store: AsyncMutex::new(None),
            pushes,
            ends,
            ended: watch::Sender::new(0),
        });
        tokio::spawn(tell_of_reconnects(Arc::clone(&session)));
        tokio::spawn(tell_of_ends(Arc::clone(&session), ended));
        (session, events)
    }

    async fn store(&self) -> Result<Arc<dyn Backend>> {
        let losses = self.server.losses();
        let mut store = self.store.lock().await;
        if let Some((before, backend)) = &*store
            && *before == losses
        {
            return Ok(Arc::clone(backend));
        }
        let backend = self.server.open(self.context.clone()).await?;
        let (network, pushes) = (Arc::clone(&self.network), self.pushes.clone());
        let mut events = backend.events();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if network.push().await {
                    // A client that has gone hears nothing.
                    let _ = pushes.send(event);
                }
            }
        });
        *store = Some((losses, Arc::clone(&backend)));
        Ok(backend)
    }

    /// Takes note that one claim of it stands for another.
    pub(super) fn replaced(&self, before: &Claim, after: &Claim) {
        self.server.carried.forget(before);
        self.server.carried.add(after, &self.ends);
    }

    /// Executes a request, as soon as the server attends to it.
    pub(super) async fn execute<T, F>(
        &self,
        text: &str,
        request: impl FnOnce(Arc<dyn Backend>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.server.attends().await?;
        // Asked by its digest, and then once more with its text.
        if !self.server.knows_scripts(false) && !self.server.knows_scripts(self.sends_scripts_again)
        {
            return Err(Error::new(ErrorKind::Protocol, "ask").with_detail("no such script"));
        }
        self.server.received(text)?;
        request(self.store().await?).await
    }
}

async fn tell_of_reconnects(session: Arc<Session>) {
    loop {
        let (cuts, kills) = (session.network.cuts(), session.server.kills());
        tokio::select! {
            () = session.network.cut_since(cuts) => {}
            () = session.server.killed_since(kills) => {}
        }
        session.server.is_back().await;
        session.network.passes().await;
        if session.pushes.send(Event::Reconnected).is_err() {
            return;
        }
    }
}

async fn tell_of_ends(session: Arc<Session>, mut ended: mpsc::UnboundedReceiver<Vec<Nonce>>) {
    while let Some(nonces) = ended.recv().await {
        if session.pushes.send(Event::SessionEnded { nonces }).is_err() {
            return;
        }
        session.ended.send_modify(|count| *count += 1);
    }
}
