//! A count of what is under way.

use std::sync::Arc;

use tokio::sync::watch;

/// How many of something there are right now. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Gauge(Arc<watch::Sender<usize>>);

/// One of them, for as long as it lives: also when its task is dropped with its runtime.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Gauge {
    pub(crate) fn count(&self) -> Counted {
        self.0.send_modify(|count| *count += 1);
        Counted(self.clone())
    }

    pub(crate) fn now(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there is none.
    pub(crate) async fn drained(&self) {
        // The sender lives in `self`, so this cannot fail while we are here.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.0).0.send_modify(|count| *count -= 1);
    }
}
