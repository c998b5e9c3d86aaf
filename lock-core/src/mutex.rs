//! Asking for an exclusive lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{Instrument, debug_span};

use crate::claim::Lease;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::message::{Message, Waiter};
use crate::name::LockName;
use crate::owner::OwnerId;

/// An exclusive lock, named but not yet held: set options, then acquire, as often as you like.
#[derive(Clone, Debug)]
#[must_use = "a lock is held only after an acquire"]
pub struct Mutex {
    client: Arc<Client>,
    name: Result<LockName>,
    ttl: Option<Duration>,
    owner: Option<OwnerId>,
    lease: Lease,
}

impl Mutex {
    pub(crate) fn new(client: Arc<Client>, name: &str) -> Self {
        Self {
            client,
            name: LockName::new(name),
            ttl: None,
            owner: None,
            lease: Lease::Kept,
        }
    }

    /// The length of the lease: after at most this (and the backend's slack) a holder that died is
    /// replaced. Counted by the backend. Defaults to the client's, which defaults to 10 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Makes the lock re-entrant for `owner`: while it holds the lock, another acquire by it in the
    /// same client gets a further guard of the same hold, with the same token, at once and without
    /// a network call; the length and the kind of the lease stay as they are. The lock is free when the last of them is released; a loss hits all.
    /// Defaults to no owner, and so to no re-entrancy.
    pub fn owner(mut self, owner: OwnerId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Takes a lease that is not renewed and just ends. Defaults to one that the client keeps alive.
    pub fn fixed(mut self) -> Self {
        self.lease = Lease::Fixed;
        self
    }

    /// Acquires the lock, waiting for as long as it takes.
    ///
    /// On `Ok` nobody else holds the lock; see [`Guard`] for how long. Waiters are served in the
    /// order that the backend declares. Once queued, the wait lives through an outage of the backend
    /// up to the client's outage limit.
    ///
    /// # Errors
    /// * [`ErrorKind::Invalid`]: the name or the TTL cannot be used. Nothing was sent.
    /// * [`ErrorKind::Unavailable`]: the backend did not answer within the operation timeout, or an
    ///   outage lasted too long. The lock is not held.
    /// * [`ErrorKind::Indeterminate`]: sent, no answer. The client cleans up in the background; until
    ///   it has, and at the longest until the TTL has passed, the lock may look held.
    /// * [`ErrorKind::Denied`], [`ErrorKind::WrongType`], [`ErrorKind::Protocol`]: as they say.
    /// * [`ErrorKind::Closed`]: the client was shut down.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future gives up the place in line; a waiter entry, or a grant that
    /// arrives just then, is removed in the background, at the latest after the TTL.
    ///
    /// # Examples
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let locks = lock_core::Locks::open(lock_core::MemoryStore::new(), Default::default()).await?;
    /// let guard = locks.mutex("order/42").acquire().await?;
    /// println!("held with token {}", guard.token());
    /// guard.release().await?;
    /// # Ok::<(), lock_core::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn acquire(&self) -> Result<Guard> {
        match self.ask(true, None).await? {
            Some(guard) => Ok(guard),
            // A wait without a deadline does not end with "busy".
            None => Err(Error::new(ErrorKind::Protocol, "acquire").with_detail("no answer")),
        }
    }

    /// Acquires the lock if that succeeds within `wait`; `None` when it was busy for all of it.
    ///
    /// Returns when `wait` is over on this machine's clock; cleanup goes on in the background. A
    /// grant at the same instant wins. Zero is [`try_acquire`](Self::try_acquire).
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire). A backend that never answered is
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Indeterminate`], not `None`.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_within(&self, wait: Duration) -> Result<Option<Guard>> {
        if wait.is_zero() {
            return self.try_acquire().await;
        }
        self.ask(true, Some(wait)).await
    }

    /// Tries once; `None` when somebody holds the lock or waits for it.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), within the operation timeout.
    ///
    /// # Cancel safety
    /// Cancel safe. A grant that nobody waits for any more is given back in the background.
    pub async fn try_acquire(&self) -> Result<Option<Guard>> {
        self.ask(false, None).await
    }

    async fn ask(&self, waits: bool, wait: Option<Duration>) -> Result<Option<Guard>> {
        static TICKETS: AtomicU64 = AtomicU64::new(0);
        let shared = &self.client.shared;
        let name = self
            .name
            .clone()
            .map_err(|error| error.with_op("acquire"))?;
        let ttl = self.ttl.unwrap_or(shared.default_ttl);
        self.validate(&name, self.lease, ttl)?;
        shared
            .usable("acquire")
            .map_err(|error| error.with_name(&name))?;

        let started = shared.clock.now();
        let (reply, answer) = oneshot::channel();
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter {
            ticket,
            owner: self.owner,
            ttl,
            lease: self.lease,
            waits,
            started,
            deadline: wait.map(|wait| started + wait),
            _counted: shared.waiting.count(),
            reply: Some(reply),
        };
        let span = debug_span!("acquire", %name, waits);
        let mut withdrawal = Withdrawal {
            client: &self.client,
            name: &name,
            ticket,
            armed: true,
        };
        self.client.submit(&name, Message::Ask(Box::new(waiter)));
        let answer = answer.instrument(span).await;
        withdrawal.armed = false;
        let level = answer.unwrap_or_else(|_| {
            // Dropped without a word: the client has ended, or its line died in a panic of the
            // backend and is being cleaned up after.
            let kind = if shared.is_closing() {
                ErrorKind::Closed
            } else {
                ErrorKind::Indeterminate
            };
            Err(Error::new(kind, "acquire")
                .with_name(&name)
                .with_detail("abandoned by the client"))
        })?;
        Ok(level.map(|level| Guard::new(Arc::clone(&self.client), level)))
    }

    fn validate(&self, name: &LockName, lease: Lease, ttl: Duration) -> Result<()> {
        let capabilities = &self.client.shared.capabilities;
        let invalid = |why: String| {
            Err(Error::new(ErrorKind::Invalid, "acquire")
                .with_name(name)
                .with_detail(why))
        };
        if ttl.is_zero() {
            return invalid("a TTL of zero cannot be kept".into());
        }
        if let Some(why) = capabilities.ttl_refusal(lease, ttl) {
            return invalid(why);
        }
        if name.as_str().len() > capabilities.name_max {
            return invalid(format!(
                "{} takes names of at most {} bytes",
                capabilities.backend, capabilities.name_max
            ));
        }
        Ok(())
    }
}

/// Tells the line when the future that waits is dropped.
struct Withdrawal<'a> {
    client: &'a Client,
    name: &'a LockName,
    ticket: u64,
    armed: bool,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let shared = &self.client.shared;
        if self.armed && !shared.is_forked() {
            // Without a line there is nothing to withdraw.
            let _ = shared.notify(
                self.name,
                Message::Withdraw {
                    ticket: self.ticket,
                },
            );
        }
    }
}
