//! Every hold of a client, by when it has to be looked at. No I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::BootInstant;
use crate::hold::Hold;
use crate::lease::{LeaseEvent, LossReason};
use crate::owner::Nonce;

/// How many ends of unknown holds are remembered. Most of them are of holds that were released just
/// before; of a grant that is on its way, it is one of the last.
const MOST_EARLY: usize = 1024;

/// Every hold of a client, by when it has to be looked at.
///
/// One keeper serves all locks of a client. It wakes at the earliest due time and takes along what
/// falls due within the same interval, so that a thousand locks cost a backend that can batch a few
/// requests per third of a TTL (DESIGN: "in batches, each lock judged alone").
#[derive(Debug, Default)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    holds: BTreeMap<Nonce, Entry>,
    schedule: BTreeSet<(BootInstant, Nonce)>,
    /// What the keeper sleeps for; entries that fall due later need not wake it.
    asleep_until: Option<BootInstant>,
    closed: bool,
    /// What was said to have ended before it was here: a push can overtake the grant it is about.
    early: VecDeque<(Nonce, LossReason)>,
}

#[derive(Debug)]
struct Entry {
    hold: Arc<Hold>,
    due: BootInstant,
}

impl Book {
    /// Takes `hold` into care. What has ended already, or cannot be kept any more, is not taken: why
    /// it ends at once is answered.
    pub(crate) fn add(&self, hold: &Arc<Hold>) -> Result<(), LossReason> {
        let mut pages = self.pages();
        if pages.closed {
            return Err(LossReason::Closed);
        }
        let nonce = hold.claim().nonce;
        if let Some(reason) = pages.take_early(&nonce) {
            return Err(reason);
        }
        if let Some(due) = hold.due() {
            pages.insert(hold, due);
            self.wake_if_earlier(&pages, due);
        }
        Ok(())
    }

    /// Remembers for a while that `nonce`, which is not here, has ended: its grant may be on its way.
    pub(crate) fn ended_early(&self, nonce: Nonce, reason: LossReason) {
        let mut pages = self.pages();
        // A push may come twice; taken back it is once.
        pages.take_early(&nonce);
        if pages.early.len() == MOST_EARLY {
            pages.early.pop_front();
        }
        pages.early.push_back((nonce, reason));
    }

    /// Why `nonce` was said to have ended before it was here, if it was; from now on that is forgotten.
    pub(crate) fn take_early(&self, nonce: &Nonce) -> Option<LossReason> {
        self.pages().take_early(nonce)
    }

    /// Takes `nonce` out of care.
    pub(crate) fn remove(&self, nonce: &Nonce) -> Option<Arc<Hold>> {
        let mut pages = self.pages();
        let entry = pages.holds.remove(nonce)?;
        pages.schedule.remove(&(entry.due, *nonce));
        Some(entry.hold)
    }

    pub(crate) fn get(&self, nonce: &Nonce) -> Option<Arc<Hold>> {
        self.pages()
            .holds
            .get(nonce)
            .map(|entry| Arc::clone(&entry.hold))
    }

    pub(crate) fn len(&self) -> usize {
        self.pages().holds.len()
    }

    /// Every hold there is.
    pub(crate) fn all(&self) -> Vec<Arc<Hold>> {
        let pages = self.pages();
        pages
            .holds
            .values()
            .map(|entry| Arc::clone(&entry.hold))
            .collect()
    }

    /// Ends every hold, now and in future: nobody is left to renew them.
    pub(crate) fn close(&self) -> Vec<Arc<Hold>> {
        let mut pages = self.pages();
        pages.closed = true;
        pages.schedule.clear();
        let holds = std::mem::take(&mut pages.holds);
        drop(pages);
        let holds: Vec<_> = holds.into_values().map(|entry| entry.hold).collect();
        for hold in &holds {
            hold.apply(LeaseEvent::End(LossReason::Closed));
        }
        holds
    }

    /// Notes when `hold` is due now.
    pub(crate) fn reschedule(&self, hold: &Arc<Hold>) {
        let mut pages = self.pages();
        let nonce = hold.claim().nonce;
        let Some(entry) = pages.holds.get(&nonce) else {
            return;
        };
        let old = (entry.due, nonce);
        pages.schedule.remove(&old);
        match hold.due() {
            Some(due) => {
                pages.insert(hold, due);
                self.wake_if_earlier(&pages, due);
            }
            None => {
                pages.holds.remove(&nonce);
            }
        }
    }

    /// Resolves when something falls due earlier than what the keeper fell asleep for.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    fn wake_if_earlier(&self, pages: &Pages, due: BootInstant) {
        if pages.asleep_until.is_none_or(|until| due < until) {
            self.earlier.notify_one();
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is due at `now`: everything whose validity is over or whose renewal is planned, and
    /// with a renewal, everything whose own is planned within the same interval.
    pub(crate) fn due(&self, now: BootInstant) -> Vec<Arc<Hold>> {
        let mut pages = self.pages();
        pages.asleep_until = None;
        let due: Vec<_> = pages.until(now).collect();
        let interval = due
            .iter()
            .filter(|hold| hold.renew_at().is_some())
            .map(|hold| interval(hold))
            .min();
        match interval {
            Some(interval) => pages.until(now + interval).collect(),
            None => due,
        }
    }

    /// What to sleep for, at most.
    pub(crate) fn fall_asleep(&self) -> Option<BootInstant> {
        let mut pages = self.pages();
        pages.asleep_until = pages.schedule.first().map(|(due, _)| *due);
        pages.asleep_until
    }
}

/// The time from one renewal of `hold` to the next, at the least.
fn interval(hold: &Hold) -> Duration {
    hold.claim().ttl / 3
}

impl Pages {
    fn take_early(&mut self, nonce: &Nonce) -> Option<LossReason> {
        let at = self.early.iter().position(|(early, _)| early == nonce)?;
        self.early.remove(at).map(|(_, reason)| reason)
    }

    fn insert(&mut self, hold: &Arc<Hold>, due: BootInstant) {
        let nonce = hold.claim().nonce;
        self.holds.insert(
            nonce,
            Entry {
                hold: Arc::clone(hold),
                due,
            },
        );
        self.schedule.insert((due, nonce));
    }

    fn until(&self, end: BootInstant) -> impl Iterator<Item = Arc<Hold>> + '_ {
        self.schedule
            .iter()
            .take_while(move |(due, _)| *due <= end)
            .filter_map(|(_, nonce)| self.holds.get(nonce).map(|entry| Arc::clone(&entry.hold)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_that_was_pushed_twice_is_taken_once() {
        let book = Book::default();
        let nonce = Nonce::new();
        book.ended_early(nonce, LossReason::NotHeld);
        book.ended_early(nonce, LossReason::Broken);
        assert_eq!(book.take_early(&nonce), Some(LossReason::Broken));
        assert_eq!(book.take_early(&nonce), None);
    }
}
