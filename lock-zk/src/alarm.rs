//! A one-shot watch that a grant looks at without waiting.
//!
//! A server sends notifications and answers in the order of its transactions. So whoever has an
//! answer in hand can tell, without asking, whether a watched node had changed before what the answer
//! speaks of. That is how a grant knows that nobody has broken locks of this client, and that no
//! larger fence base has been set.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use zookeeper_client::{EventType, OneshotWatcher, WatchedEvent};

/// The watch of one node, or what it said.
#[derive(Default)]
pub(crate) struct Alarm(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    state: State,
    /// Of the task that answers the alarm. A look in between must not take its place in the watch.
    answerer: Option<Waker>,
}

#[derive(Default)]
enum State {
    /// No watch is set: whatever has happened is not known.
    #[default]
    Unset,
    Quiet(BoxFuture<'static, WatchedEvent>),
    Rung(EventType),
}

impl Alarm {
    /// Takes a watch that has just been set.
    pub(crate) fn set(&self, watcher: OneshotWatcher) {
        self.lock().state = State::Quiet(watcher.changed().boxed());
    }

    /// Whether nothing has happened up to the last answer of the server.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut inner = self.lock();
        let waker = inner.answerer.clone();
        inner.poll(&mut Context::from_waker(
            waker.as_ref().unwrap_or(Waker::noop()),
        ));
        matches!(inner.state, State::Quiet(_))
    }

    /// Waits until it rings, and answers what happened to the node. For one task.
    pub(crate) async fn rung(&self) -> EventType {
        poll_fn(|cx| {
            let mut inner = self.lock();
            inner.answerer = Some(cx.waker().clone());
            inner.poll(cx);
            match inner.state {
                State::Rung(event) => Poll::Ready(event),
                State::Unset | State::Quiet(_) => Poll::Pending,
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let State::Quiet(watch) = &mut self.state
            && let Poll::Ready(event) = watch.poll_unpin(cx)
        {
            self.state = State::Rung(event.event_type);
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}
