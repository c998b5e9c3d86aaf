//! The resource that a lock protects: a counter that is read, thought about, and written.
//!
//! It lives in the suite's own process and is reached over a Unix socket, so that worker processes
//! can be paused between reading and writing. With [`Fencing::Checked`] it refuses stale tokens, on
//! reads too: a reader that saw the value under an older token could otherwise overwrite the newer
//! holder's update before that holder's first write has shown its token.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lock_core::{FencingToken, MemoryGate};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::history::{Event, Recorder, What};

/// Whether a resource looks at tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fencing {
    /// Stale tokens are refused.
    Checked,
    /// Every token is taken: what happens to those who have no fence.
    Ignored,
}

/// Counters behind a fence, one per slot. Serves as long as it lives.
#[derive(Debug)]
pub struct Resource {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    dir: TempDir,
}

#[derive(Debug)]
struct Shared {
    fencing: Fencing,
    gate: MemoryGate,
    recorder: Recorder,
    state: Mutex<State>,
    last_reader: watch::Sender<Option<Access>>,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, u64>,
    log: Vec<Event>,
}

/// Who used the resource, and with which token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Access {
    /// The client.
    pub who: String,
    /// What it protects.
    pub slot: String,
    /// The token it showed.
    pub token: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Request {
    access: Access,
    write: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
enum Response {
    Value(u64),
    Stale,
}

impl Resource {
    /// Starts one on the current runtime.
    ///
    /// # Errors
    /// When the machine refuses a directory or a socket.
    pub fn start(fencing: Fencing, recorder: Recorder) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("distlock-resource-")
            .tempdir()?;
        let listener = UnixListener::bind(dir.path().join("socket"))?;
        let shared = Arc::new(Shared {
            fencing,
            gate: MemoryGate::new(),
            recorder,
            state: Mutex::default(),
            last_reader: watch::Sender::new(None),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            server,
            dir,
        })
    }

    /// Where [`ResourceClient::connect`] finds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The value of a slot; 0 when nobody has written it.
    #[must_use]
    pub fn value(&self, slot: &str) -> u64 {
        self.shared.state().values.get(slot).copied().unwrap_or(0)
    }

    /// Every write so far, in the order in which they were decided.
    #[must_use]
    pub fn writes(&self) -> Vec<Event> {
        self.shared.state().log.clone()
    }

    /// How many writes of each client were taken.
    #[must_use]
    pub fn accepted(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for event in &self.shared.state().log {
            if matches!(event.what, What::Wrote { accepted: true, .. }) {
                *counts.entry(event.who.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// How many writes were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        let state = self.shared.state();
        let refused = |event: &&Event| {
            matches!(
                event.what,
                What::Wrote {
                    accepted: false,
                    ..
                }
            )
        };
        state.log.iter().filter(refused).count()
    }

    /// Whoever has read last: it is between its reading and its writing.
    #[must_use]
    pub fn last_reader(&self) -> watch::Receiver<Option<Access>> {
        self.shared.last_reader.subscribe()
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: Request) -> Response {
        let Request { access, write } = request;
        // One mutex over the admission and the write it is for: nothing comes between them.
        let mut state = self.state();
        let admitted = self.fencing == Fencing::Ignored
            || FencingToken::new(access.token)
                .and_then(|token| self.gate.admit_now(&access.slot, token))
                .is_ok();
        let current = state.values.get(&access.slot).copied().unwrap_or(0);
        let Some(value) = write else {
            if !admitted {
                return Response::Stale;
            }
            self.last_reader.send_replace(Some(access));
            return Response::Value(current);
        };
        let event = Event {
            at: self.recorder.now(),
            who: access.who,
            name: access.slot.clone(),
            what: What::Wrote {
                token: access.token,
                value,
                accepted: admitted,
            },
        };
        self.recorder.add(event.clone());
        state.log.push(event);
        if !admitted {
            return Response::Stale;
        }
        state.values.insert(access.slot, value);
        Response::Value(value)
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream
        .read_line(&mut line)
        .await
        .is_ok_and(|length| length > 0)
    {
        let Ok(request) = serde_json::from_str(&line) else {
            return;
        };
        let response = shared.answer(request);
        if send(&mut stream, &response).await.is_err() {
            return;
        }
        line.clear();
    }
}

async fn send(stream: &mut BufReader<UnixStream>, message: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(message)?;
    text.push('\n');
    stream.get_mut().write_all(text.as_bytes()).await
}

/// One client's connection to a [`Resource`].
#[derive(Debug)]
pub struct ResourceClient {
    stream: BufReader<UnixStream>,
    who: String,
}

impl ResourceClient {
    /// Connects as `who`.
    ///
    /// # Errors
    /// When nobody serves at `path`.
    pub async fn connect(path: &Path, who: &str) -> io::Result<Self> {
        Ok(Self {
            stream: BufReader::new(UnixStream::connect(path).await?),
            who: who.to_owned(),
        })
    }

    /// Reads; `None` when the token is stale.
    ///
    /// # Errors
    /// When the resource is gone.
    pub async fn read(&mut self, slot: &str, token: FencingToken) -> io::Result<Option<u64>> {
        self.ask(slot, token, None).await
    }

    /// Writes; whether it was taken.
    ///
    /// # Errors
    /// When the resource is gone.
    pub async fn write(&mut self, slot: &str, token: FencingToken, value: u64) -> io::Result<bool> {
        Ok(self.ask(slot, token, Some(value)).await?.is_some())
    }

    async fn ask(
        &mut self,
        slot: &str,
        token: FencingToken,
        write: Option<u64>,
    ) -> io::Result<Option<u64>> {
        let access = Access {
            who: self.who.clone(),
            slot: slot.to_owned(),
            token: token.get(),
        };
        send(&mut self.stream, &Request { access, write }).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        match serde_json::from_str(&line)? {
            Response::Value(value) => Ok(Some(value)),
            Response::Stale => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{check_resource, lost_updates};

    fn token(value: u64) -> FencingToken {
        FencingToken::new(value).expect("a good token")
    }

    async fn interleaved(fencing: Fencing) -> (Resource, bool) {
        let resource = Resource::start(fencing, Recorder::new()).expect("starts");
        let path = resource.path();
        let mut old = ResourceClient::connect(&path, "old")
            .await
            .expect("connects");
        let mut new = ResourceClient::connect(&path, "new")
            .await
            .expect("connects");
        let seen = old.read("n", token(1)).await.expect("answers");
        assert_eq!(seen, Some(0));
        let seen = new.read("n", token(2)).await.expect("answers");
        assert_eq!(seen, Some(0));
        assert!(new.write("n", token(2), 1).await.expect("answers"));
        let taken = old.write("n", token(1), 1).await.expect("answers");
        (resource, taken)
    }

    #[tokio::test]
    async fn stale_writer_is_refused() {
        let (resource, taken) = interleaved(Fencing::Checked).await;
        assert!(!taken);
        assert_eq!(resource.value("n"), 1);
        assert_eq!(resource.refused(), 1);
        assert_eq!(check_resource(&resource.writes()), Ok(()));
    }

    #[tokio::test]
    async fn stale_writer_overwrites_when_fencing_is_ignored() {
        let (resource, taken) = interleaved(Fencing::Ignored).await;
        assert!(taken);
        assert_eq!(lost_updates(&resource.writes()), 1);
    }
}
