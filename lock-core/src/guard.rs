//! The handle of a held lock.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::hold::Hold;
use crate::keeper;
use crate::lease::LossReason;
use crate::message::{Level, Released};
use crate::name::LockName;
use crate::token::FencingToken;

/// A lock that is held, until it is released, dropped or lost.
///
/// Holding a `Guard` does not mean holding the lock: the lease may have ended. Ask
/// [`check`](Self::check) before each step that must not be done by two, wait on
/// [`lost`](Self::lost) beside long work or let [`run`](Self::run) do it, and send the
/// [`token`](Self::token) with each write, so that the resource refuses what a paused process wakes
/// up to do.
///
/// Dropping a guard gives the lock back in the background: no I/O, no waiting, no runtime needed.
/// [`release`](Self::release) does the same and says what became of it. A guard keeps its client
/// alive; it may outlive every [`Locks`](crate::Locks).
///
/// # Source
/// ADR 0004.
#[must_use = "dropping a guard gives the lock back"]
pub struct Guard {
    client: Arc<Client>,
    level: Level,
}

impl Guard {
    pub(crate) fn new(client: Arc<Client>, level: Level) -> Self {
        Self { client, level }
    }

    fn hold(&self) -> &Arc<Hold> {
        self.level.hold()
    }

    /// The fencing token of this hold: the same for its whole length, larger than every earlier one.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.hold().token()
    }

    /// The name of the lock.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.hold().claim().name
    }

    /// The length of the lease, as asked for.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.hold().claim().ttl
    }

    /// What the backend kept with this grant: the way to its own tools, such as a fence for data in
    /// the same store. `None` when it kept nothing, or something else.
    #[must_use]
    pub fn record<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.hold().grant().record()
    }

    /// How long the lock may still be acted on, if nothing renews it; zero once it is lost.
    ///
    /// On this machine's suspend-aware clock, with the drift allowance taken off. No I/O.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let now = self.client.shared.clock.now();
        match self.ended() {
            Some(_) => Duration::ZERO,
            None => self.hold().validity().expires_at().saturating_since(now),
        }
    }

    /// Whether the lock may be acted on now. No I/O.
    ///
    /// `Ok` means that at this instant nobody else had been granted the lock. It says nothing about
    /// the next instant: the process may be paused right after it, and only the
    /// [`token`](Self::token) protects from that.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] once the lock is lost or released; it never becomes `Ok` again.
    pub fn check(&self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(reason) => Err(self.loss(reason)),
        }
    }

    /// Resolves when the lock may no longer be acted on, and says why.
    ///
    /// Resolves before the backend can grant the lock to another, except for a process that is
    /// paused then and a break by force. After a release it resolves [`LossReason::Released`]. The
    /// future does not borrow the guard; there may be any number of them.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static + use<> {
        let (shared, hold) = (Arc::clone(&self.client.shared), Arc::clone(self.hold()));
        async move {
            // Before the first look, so that no end falls in between.
            let mut told = pin!(hold.end());
            // Whoever polls looks at the clock: the signal comes from another thread, which may be
            // late on a machine that is busy.
            poll_fn(|context| {
                if shared.is_forked() {
                    return Poll::Ready(LossReason::Forked);
                }
                if let Some(reason) = shared.ended(&hold) {
                    return Poll::Ready(reason);
                }
                let told = told.as_mut().poll(context);
                told.map(|()| shared.ended(&hold).unwrap_or(LossReason::Closed))
            })
            .await
        }
    }

    /// Runs `work` and stops polling it when the lock is lost.
    ///
    /// The work is polled first, so a result that is ready when the loss is noticed is not thrown
    /// away but handed over inside of the error. Does not release the lock. Cannot stop code that
    /// blocks its thread: such code asks [`check`](Self::check).
    ///
    /// # Errors
    /// [`RunError`] when the lock was lost before the work had ended.
    ///
    /// # Cancel safety
    /// As cancel safe as `work`; the lock stays held.
    ///
    /// # Examples
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let locks = lock_core::Locks::open(lock_core::MemoryStore::new(), Default::default()).await?;
    /// let guard = locks.mutex("report").acquire().await?;
    /// let sum = guard.run(async { 2 + 2 }).await?;
    /// assert_eq!(sum, 4);
    /// guard.release().await?;
    /// # Ok::<(), lock_core::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, RunError<F::Output>> {
        let lost = |reason, output| RunError {
            name: self.name().clone(),
            reason,
            output,
        };
        if let Some(reason) = self.ended() {
            return Err(lost(reason, None));
        }
        tokio::select! {
            biased;
            output = work => match self.ended() {
                None => Ok(output),
                Some(reason) => Err(lost(reason, Some(output))),
            },
            reason = self.lost() => Err(lost(reason, None)),
        }
    }

    /// Extends the lease by its TTL, counted from now, once.
    ///
    /// Kept locks are renewed by themselves; this is for fixed leases, and to be sure of the whole
    /// TTL before a long step.
    ///
    /// # Errors
    /// * [`ErrorKind::Lost`]: the lock is lost; it was not extended.
    /// * [`ErrorKind::Unavailable`], [`ErrorKind::Indeterminate`]: no confirmation. The lock is held
    ///   for what [`remaining`](Self::remaining) says.
    ///
    /// # Cancel safety
    /// Cancel safe. A renewal that is under way is finished in the background.
    pub async fn renew(&self) -> Result<()> {
        let shared = &self.client.shared;
        if let Some(reason) = self.ended() {
            return Err(self.loss(reason).with_op("renew"));
        }
        let (reply, answer) = oneshot::channel();
        let (shared, hold) = (Arc::clone(shared), Arc::clone(self.hold()));
        self.client.shared.runtime.spawn(async move {
            // The caller may have gone; the hold itself knows.
            let _ = reply.send(keeper::renew_now(&shared, &hold).await);
        });
        answer.await.unwrap_or_else(|_| {
            let kind = self.client.shared.unheard(ErrorKind::Indeterminate);
            Err(Error::new(kind, "renew").with_name(self.name()))
        })
    }

    /// Gives the lock back and says what became of it.
    ///
    /// From the first poll on the lock must not be acted on. Safe to call when it was lost.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] in a forked copy of the process that holds it; nothing is done there.
    ///
    /// # Cancel safety
    /// Cancel safe. Dropping the future lets the release go on in the background.
    pub async fn release(mut self) -> Result<Released> {
        if self.client.shared.is_forked() {
            return Err(Error::new(ErrorKind::Closed, "release")
                .with_name(self.name())
                .with_detail(LossReason::Forked.to_string()));
        }
        if let Some(reason) = self.ended() {
            return Ok(Released::WasLost(reason));
        }
        // Unsent or unanswered: the client is gone, or the lock was lost just now.
        if let Some(answer) = self.level.give()
            && let Ok(released) = answer.await
        {
            return Ok(released);
        }
        Ok(match self.ended() {
            Some(reason) if reason != LossReason::Released => Released::WasLost(reason),
            _ => Released::Unknown {
                free_by: self.hold().free_by(),
            },
        })
    }

    fn ended(&self) -> Option<LossReason> {
        let shared = &self.client.shared;
        if shared.is_forked() {
            return Some(LossReason::Forked);
        }
        shared.ended(self.hold())
    }

    fn loss(&self, reason: LossReason) -> Error {
        Error::new(ErrorKind::Lost, "check")
            .with_name(self.name())
            .with_detail(reason.to_string())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The level gives itself back, but not in a copy of the process that holds it.
        if self.client.shared.is_forked() {
            self.level.forget();
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("name", self.name())
            .field("token", &self.token())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

/// The lock was lost before the work under it had ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunError<T> {
    /// The lock.
    pub name: LockName,
    /// Why it was lost.
    pub reason: LossReason,
    /// What the work had come to, when it had finished but only after the loss.
    pub output: Option<T>,
}

impl<T> From<RunError<T>> for Error {
    fn from(error: RunError<T>) -> Self {
        Self::new(ErrorKind::Lost, "run")
            .with_name(&error.name)
            .with_detail(error.reason.to_string())
    }
}

impl<T> fmt::Display for RunError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {:?}: lock lost: {}", self.name, self.reason)
    }
}

impl<T: fmt::Debug> std::error::Error for RunError<T> {}
