//! The proxy as the suite uses it.

use std::io;
use std::time::Duration;

use async_trait::async_trait;

use super::{Connections, Proxy};
use crate::harness::{HeldRequest, Wire};

/// How long a request, or an answer, may take to come; it only matters when something is broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a late copy is waited for on a connection that its client may have left.
const LATE: Duration = Duration::from_secs(1);

impl Wire for Proxy {
    fn cut(&self) {
        Connections::cut(self);
    }

    fn reset(&self) {
        Connections::reset(self);
    }

    fn delay(&self, each_way: Duration) {
        Connections::delay(self, each_way);
    }

    fn black_hole(&self, on: bool) {
        match on {
            true => Connections::black_hole(self),
            false => self.heal(),
        }
    }

    fn hold_replies(&self, on: bool) {
        match on {
            true => Connections::hold_replies(self),
            false => self.release_replies(),
        }
    }

    fn drop_replies(&self, on: bool) {
        match on {
            true => Connections::drop_replies(self),
            false => self.release_replies(),
        }
    }

    fn drop_pushes(&self, on: bool) {
        match on {
            true => Connections::drop_pushes(self),
            false => self.pass_pushes(),
        }
    }

    fn half_open(&self, on: bool) {
        match on {
            true => {
                Connections::half_open(self);
                self.cut_server();
            }
            false => self.tell_closes(),
        }
    }

    fn drop_nth_request(&self, nth: u64) {
        Connections::drop_nth_request(self, nth);
    }
}

impl Proxy {
    /// The next request that `matches`, held back, for [`Faults::hold_next_request`](crate::Faults::hold_next_request).
    /// Delivered, it is answered: a server that answers nothing fails the case.
    pub fn hold_next(
        &self,
        matches: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Box<dyn HeldRequest + '_> {
        self.hold_requests_matching(matches);
        Box::new(Held(self))
    }
}

/// A request that the proxy keeps.
struct Held<'a>(&'a Proxy);

#[async_trait]
impl HeldRequest for Held<'_> {
    async fn caught(&self) -> io::Result<()> {
        self.0
            .until(PATIENCE, |stats| stats.held_requests > 0)
            .await;
        Ok(())
    }

    async fn deliver(&self) -> io::Result<()> {
        let before = self.0.stats();
        let count = self.0.deliver_held();
        let late = self.0.until(PATIENCE, |stats| {
            stats.late_replies >= before.late_replies + count
        });
        // The client may still be there: then its reply is one like any other.
        if tokio::time::timeout(LATE, late).await.is_err() {
            self.0
                .until(PATIENCE, |stats| stats.replies >= before.replies + count)
                .await;
        }
        Ok(())
    }
}
