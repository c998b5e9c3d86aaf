//! What the author of a backend implements.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::capability::Capabilities;
use crate::claim::Claim;
use crate::clock::Clock;
use crate::error::Result;
use crate::grant::{Grant, Passed, Renewal, Replaced};
use crate::name::LockName;
use crate::owner::{Identity, Nonce};
use crate::state::{Cursor, LockState, Page};
use crate::token::FencingToken;

/// A lock service, or a way to reach one.
///
/// Core keeps what is the same for all: waiting budgets, operation timeouts, renewal, loss, cleanup
/// after dropped futures, local queues, re-entrancy. A backend answers single requests and pushes
/// [`Event`]s. Every method is called on the client's own runtime, is dropped when its operation
/// timeout is over, and may be dropped at any await; core then calls [`release`](Self::release) for
/// the nonces concerned.
///
/// Every method is required: a default body that a wrapper forgets to forward is a bug that nobody
/// sees. Prove a backend with the crate `lock-conformance`.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What this backend promises. Constant for its life.
    fn capabilities(&self) -> Capabilities;

    /// Tries once to get the lock; `None` when somebody holds it or, where waiters are served in order,
    /// is queued for it.
    ///
    /// Never queues. Before sending, reports [`Reach::Sent`](crate::Reach::Sent). `None` is final: core
    /// does not release that nonce, so no copy of the request may win later.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) only when the request certainly did not reach
    /// the server, or was certainly not executed; [`Indeterminate`](crate::ErrorKind::Indeterminate)
    /// when it may have been. [`Denied`](crate::ErrorKind::Denied),
    /// [`WrongType`](crate::ErrorKind::WrongType), [`Invalid`](crate::ErrorKind::Invalid) and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) are refusals: nothing was written, and core
    /// does not clean up.
    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>>;

    /// Gets the lock, waiting in the backend's queue for as long as it takes.
    ///
    /// Reports its [`Progress`](crate::Progress). A nonce that [`pass`](Self::pass) or
    /// [`replace`](Self::replace) has queued is attached to, without a command of its own. Once
    /// queued, it stays through lost connections and comes back to its place, or joins the queue
    /// again when the backend has forgotten it.
    ///
    /// Need not be cancel safe: core drops it at any await and calls [`release`](Self::release).
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    async fn acquire(&self, claim: &Claim) -> Result<Grant>;

    /// Extends these grants by the TTL of their claims; one answer each, in their order.
    ///
    /// A nonce that does not hold its lock, or whose lease has ended, is [`Renewal::Gone`] and is
    /// never given it back.
    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>>;

    /// Makes sure that this nonce neither holds nor waits, now and for ever.
    ///
    /// Answers whether the nonce held the lock until now. Removes a hold and a place in the queue
    /// alike, hands a freed lock to the next waiter, is idempotent, and keeps a copy of the claim's
    /// request that is still under way from winning later. So it also answers the question "did my
    /// lost request win?".
    ///
    /// # Errors
    /// Any error means that it may or may not have happened; core repeats it.
    async fn release(&self, claim: &Claim) -> Result<bool>;

    /// Releases `held` and puts `next` at the end of the queue, in one step.
    ///
    /// Both are of the same name and the same client. When nobody else waits, `next` is granted.
    ///
    /// # Errors
    /// Any error means that either half may or may not have happened; core releases both.
    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed>;

    /// Gives the place of `waiting` in the queue to `next`, in one step.
    ///
    /// Both are of the same name and the same client. If `waiting` has been granted meanwhile, that
    /// grant ends and `next` gets one of its own, with a larger token. Afterwards `waiting` is as
    /// after [`release`](Self::release).
    ///
    /// # Errors
    /// Any error means that it may or may not have happened; core releases both.
    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced>;

    /// What the backend pushes. Called once, before the first request.
    fn events(&self) -> BoxStream<'static, Event>;

    /// Looks at one lock.
    ///
    /// # Errors
    /// As of the connection.
    async fn inspect(&self, name: &LockName) -> Result<LockState>;

    /// Lists names in use that begin with `prefix`, a page at a time.
    ///
    /// # Errors
    /// As of the connection; [`Unsupported`](crate::ErrorKind::Unsupported) when not declared.
    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page>;

    /// Takes the lock from the holder that has exactly this token; `false` when nobody has it.
    ///
    /// The victim's client is told; later tokens are larger.
    ///
    /// # Errors
    /// As of the connection; [`Unsupported`](crate::ErrorKind::Unsupported) when not declared.
    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool>;

    /// Ends connections, sessions and tasks. Called once, last; core has released what it could.
    ///
    /// # Errors
    /// When something may have been left behind; its TTL ends it.
    async fn close(&self) -> Result<()>;
}

/// Something a backend learned without being asked.
///
/// An end is about the grant that the client knows of. A backend that grants a nonce once more, since
/// nobody had looked at the grant before, does not tell the end of that one after the new one is known.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// This nonce does not hold its lock any more.
    Gone {
        /// The acquisition that ended.
        nonce: Nonce,
    },
    /// An operator took the lock from this nonce.
    Broken {
        /// The acquisition that ended.
        nonce: Nonce,
    },
    /// The session that these nonces shared has ended.
    SessionEnded {
        /// The acquisitions that ended with it.
        nonces: Vec<Nonce>,
    },
    /// The connection was away, and pushes may have been lost: every hold is to be verified now.
    Reconnected,
}

/// What a backend is connected with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The client's clock: the only one a backend may measure validity on.
    pub clock: Clock,
    /// How long core waits for one answer. A backend that wants its own verdict first takes less.
    pub op_timeout: Duration,
    /// Every token is to be larger than this; 0 for no base.
    pub fence_base: u64,
    /// The client, as operators see it.
    pub identity: Identity,
}

impl Context {
    /// A context on the system's clock with default timeouts; for tests of a backend by itself.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            clock: Clock::system(),
            op_timeout: crate::options::DEFAULT_OP_TIMEOUT,
            fence_base: 0,
            identity,
        }
    }
}

/// How a backend is reached: its configuration, before there is a connection.
#[async_trait]
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Connects, on the client's own runtime, where the backend may spawn its tasks.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when nobody answers within the operation
    /// timeout, [`Denied`](crate::ErrorKind::Denied) for wrong credentials,
    /// [`Invalid`](crate::ErrorKind::Invalid) for a configuration that cannot work.
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>>;
}

#[async_trait]
impl Connect for Box<dyn Connect> {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        (**self).connect(context).await
    }
}
