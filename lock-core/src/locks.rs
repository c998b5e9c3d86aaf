//! What users hold: the way to every lock of one backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Connect;
use crate::capability::{Capabilities, Guarantee};
use crate::client::{Client, ShutdownReport};
use crate::error::{Error, ErrorKind, Result};
use crate::mutex::Mutex;
use crate::name::LockName;
use crate::options::ClientOptions;
use crate::registry::Registry;
use crate::state::{Cursor, LockState, Page};
use crate::token::FencingToken;

/// A client of a lock backend. Cheap to clone; clones share one client.
///
/// Each client has one background thread with a runtime of its own, for its connection, renewals
/// and cleanups: they go on while the program's own runtime is busy, blocked or gone. The thread ends
/// after the last clone and the last guard are dropped, or with [`shutdown`](Self::shutdown).
///
/// Futures of this crate run on any executor.
#[derive(Clone)]
pub struct Locks {
    client: Arc<Client>,
}

impl Locks {
    /// Connects to the backend that `url` names, with what `registry` knows.
    ///
    /// # Errors
    /// * [`ErrorKind::Invalid`], [`ErrorKind::Unsupported`]: the URL cannot be used; see
    ///   [`Registry::read`].
    /// * [`ErrorKind::Unavailable`]: nobody answered within the operation timeout.
    /// * [`ErrorKind::Denied`]: wrong credentials.
    ///
    /// # Cancel safety
    /// Cancel safe. A connection that is made after the future was dropped is closed.
    pub async fn connect_with(registry: &Registry, url: &str) -> Result<Self> {
        let (connect, options) = registry.read(url)?;
        Self::open(connect, options).await
    }

    /// Connects to a backend by its own configuration.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    ///
    /// # Cancel safety
    /// Cancel safe. A connection that is made after the future was dropped is closed.
    pub async fn open(connect: impl Connect, options: ClientOptions) -> Result<Self> {
        Ok(Self {
            client: Client::open(Box::new(connect), options).await?,
        })
    }

    /// The way to a client that somebody else keeps alive.
    #[cfg(test)]
    pub(crate) fn of(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// What this backend promises.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.client.shared.capabilities.clone()
    }

    /// Refuses a backend that promises less than `guarantee`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] naming what is missing.
    pub fn require(self, guarantee: Guarantee) -> Result<Self> {
        let capabilities = &self.client.shared.capabilities;
        if capabilities.promises(guarantee) {
            return Ok(self);
        }
        Err(
            Error::new(ErrorKind::Unsupported, "require").with_detail(format!(
                "{} does not promise {guarantee}",
                capabilities.backend
            )),
        )
    }

    /// An exclusive lock on `name`. A name that cannot be used is refused by the acquire.
    pub fn mutex(&self, name: impl AsRef<str>) -> Mutex {
        Mutex::new(Arc::clone(&self.client), name.as_ref())
    }

    /// Looks at a lock: holders, queue, tokens, ages. A snapshot for people and tests.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that cannot be used; [`ErrorKind::Unavailable`] when the
    /// backend does not answer within the operation timeout.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn inspect(&self, name: impl AsRef<str>) -> Result<LockState> {
        let name = LockName::new(name.as_ref()).map_err(|error| error.with_op("inspect"))?;
        self.client
            .shared
            .call(
                "inspect",
                ErrorKind::Unavailable,
                move |backend| async move { backend.inspect(&name).await },
            )
            .await
    }

    /// Lists the names in use that begin with `prefix`, a page at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the backend does not declare it; [`ErrorKind::Unavailable`]
    /// when it does not answer within the operation timeout.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        if !self.client.shared.capabilities.list {
            return Err(self.unsupported("list"));
        }
        let prefix = prefix.to_owned();
        self.client
            .shared
            .call("list", ErrorKind::Unavailable, move |backend| async move {
                backend.list(&prefix, cursor).await
            })
            .await
    }

    /// Takes the lock by force from the holder that has exactly this token; `false` when nobody has.
    ///
    /// The one way in which a lock passes on while its holder may still believe in it: the victim is
    /// told, but possibly after the next grant. Later tokens are larger, so a fenced resource is safe.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the backend does not declare it; [`ErrorKind::Indeterminate`]
    /// when it does not answer within the operation timeout: it may or may not have happened.
    ///
    /// # Cancel safety
    /// Not cancel safe: a dropped break may still happen.
    pub async fn break_hold(&self, name: impl AsRef<str>, token: FencingToken) -> Result<bool> {
        if !self.client.shared.capabilities.break_hold {
            return Err(self.unsupported("break"));
        }
        let name = LockName::new(name.as_ref()).map_err(|error| error.with_op("break"))?;
        self.client
            .shared
            .call(
                "break",
                ErrorKind::Indeterminate,
                move |backend| async move { backend.break_hold(&name, token).await },
            )
            .await
    }

    /// Closes the client, for all its clones: new work is refused and waiters are sent away with
    /// [`ErrorKind::Closed`] at once; guards may be given back and releases finish for up to
    /// `within`. Then whoever still holds a guard is told that it is lost, and the backend ends
    /// those leases with their TTL. Closing the connection takes at most an operation timeout more.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when it has been shut down before.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future lets the shutdown go on.
    pub async fn shutdown(&self, within: Duration) -> Result<ShutdownReport> {
        self.client.shutdown(within).await
    }

    /// What this client has going on.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.client.shared;
        Stats {
            lines: shared.line_gauge.now(),
            waiting: shared.waiting.now(),
            holds: shared.book.len(),
            cleanups: shared.cleanups.now(),
            tasks: shared.runtime.metrics().num_alive_tasks(),
        }
    }

    fn unsupported(&self, op: &'static str) -> Error {
        Error::new(ErrorKind::Unsupported, op).with_detail(format!(
            "{} does not offer it",
            self.client.shared.capabilities.backend
        ))
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks")
            .field("backend", &self.client.shared.capabilities.backend)
            .field("stats", &self.stats())
            .finish()
    }
}

/// What a client has going on: none of it grows with the number of operations or names ever used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Names that are held, waited for or being given back.
    pub lines: usize,
    /// Calls that wait for a lock, in line here or in the backend's queue.
    pub waiting: usize,
    /// Locks that are held.
    pub holds: usize,
    /// Nonces that are being cleaned up in the background.
    pub cleanups: usize,
    /// Tasks on the client's runtime, its backend's among them.
    pub tasks: usize,
}
