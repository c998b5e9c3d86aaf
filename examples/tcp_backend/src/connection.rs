//! One connection at a time, opened when it is needed, given up when it does not answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::{Error, ErrorKind, Event, Progress, Reach, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::protocol::{Answer, Ask, Request};

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Connection {
    addr: String,
    /// How long one answer is waited for. Less than core's operation timeout, so that the verdict is ours.
    patience: Duration,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Connection {
    pub(crate) fn new(
        addr: String,
        patience: Duration,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            addr,
            patience,
            link: tokio::sync::Mutex::default(),
            events,
        }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks, and tells `progress` before anything leaves.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when nothing was sent, [`ErrorKind::Indeterminate`] when something may have been.
    pub(crate) async fn ask(
        &self,
        op: &'static str,
        ask: Ask,
        progress: Option<&Progress>,
    ) -> Result<Answer> {
        let link = self.link(op).await?;
        if let Some(progress) = progress.filter(|progress| progress.reach() == Reach::Unsent) {
            progress.report(Reach::Sent);
        }
        let answer = link.send(ask);
        let answer = answer.ok_or_else(|| Error::new(ErrorKind::Unavailable, op))?;
        match timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            // Whatever was sent may still be executed: the next connection must not believe otherwise.
            Ok(Err(_)) | Err(_) => {
                link.close();
                Err(Error::new(ErrorKind::Indeterminate, op))
            }
        }
    }

    pub(crate) async fn close(&self) {
        if let Some(link) = self.link.lock().await.take() {
            link.close();
        }
    }

    /// The connection there is, or a new one.
    async fn link(&self, op: &'static str) -> Result<Arc<Link>> {
        let mut current = self.link.lock().await;
        if let Some(link) = current.as_ref().filter(|link| link.is_open()) {
            return Ok(Arc::clone(link));
        }
        let unavailable = || Error::new(ErrorKind::Unavailable, op);
        let connecting = timeout(self.patience, TcpStream::connect(&self.addr)).await;
        let socket = connecting
            .map_err(|_| unavailable().with_detail("no connection in time"))?
            .map_err(|error| unavailable().with_source(error))?;
        let link = Arc::new(Link::new(socket));
        if current.replace(Arc::clone(&link)).is_some() {
            // Every hold is looked at now: the server may be another one.
            let _ = self.events.send(Event::Reconnected);
        }
        Ok(link)
    }
}

/// One TCP connection. A task writes and reads: nobody who is dropped leaves half a request behind.
#[derive(Debug)]
struct Link {
    next: AtomicU64,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    pending: Arc<Pending>,
    driver: AbortHandle,
}

impl Link {
    fn new(socket: TcpStream) -> Self {
        let (outgoing, requests) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending::default());
        let driver = tokio::spawn(drive(socket, requests, Arc::clone(&pending)));
        Self {
            next: AtomicU64::new(0),
            outgoing,
            pending,
            driver: driver.abort_handle(),
        }
    }

    fn is_open(&self) -> bool {
        self.pending.lock().is_some()
    }

    /// Sends a request; `None` when the connection is closed, and nothing is sent.
    fn send(&self, ask: Ask) -> Option<oneshot::Receiver<Answer>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Request { id, ask }).expect("strings and numbers");
        line.push(b'\n');
        let (asker, answer) = oneshot::channel();
        self.pending.lock().as_mut()?.insert(id, asker);
        // If the driver has just ended, the asker is dropped: as after a request without an answer.
        let _ = self.outgoing.send(line);
        Some(answer)
    }

    fn close(&self) {
        self.driver.abort();
        *self.pending.lock() = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Who waits for which answer; nothing once the connection is closed.
#[derive(Debug)]
struct Pending(Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>);

impl Default for Pending {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drive(
    socket: TcpStream,
    mut requests: mpsc::UnboundedReceiver<Vec<u8>>,
    pending: Arc<Pending>,
) {
    // It only makes things slower if this is refused.
    let _ = socket.set_nodelay(true);
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { break };
                let Ok(answer) = serde_json::from_str::<Answer>(&line) else { break };
                let asker = pending.lock().as_mut().and_then(|pending| pending.remove(&answer.id));
                if let Some(asker) = asker {
                    let _ = asker.send(answer);
                }
            }
            Some(request) = requests.recv() => {
                if write.write_all(&request).await.is_err() {
                    break;
                }
            }
        }
    }
    *pending.lock() = None;
}
