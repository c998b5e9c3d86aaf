//! A thread that runs only when somebody runs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Tasks that run when somebody runs them.
pub(super) struct Strand {
    runtime: Option<Runtime>,
    idle: Arc<Idle>,
}

impl Strand {
    pub(super) fn new() -> Self {
        let idle = Arc::new(Idle::default());
        let parked = Arc::clone(&idle);
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || parked.reached())
            .build()
            .expect("a runtime without I/O and timers takes nothing");
        Self {
            runtime: Some(runtime),
            idle,
        }
    }

    /// Runs every task until none can go on.
    pub(super) fn run(&mut self) {
        self.runtime().block_on(self.idle.wait());
    }

    pub(super) fn is_runnable(&self) -> bool {
        // All wake-ups come from outside of it, since it was idle when it was run last.
        self.runtime
            .as_ref()
            .is_some_and(|runtime| runtime.metrics().global_queue_depth() > 0)
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime().spawn(work)
    }

    pub(super) fn end(&mut self) {
        self.runtime = None;
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime().handle()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it has not ended")
    }
}

/// Tells when a runtime has no task to run: it is about to park its thread.
#[derive(Default)]
struct Idle {
    reached: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Idle {
    fn reached(&self) {
        self.reached.store(true, Ordering::Release);
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn wait(&self) {
        self.reached.store(false, Ordering::Release);
        std::future::poll_fn(|context| {
            if self.reached.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
