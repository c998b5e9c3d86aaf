//! The task that renews every held lock and ends those whose time has come.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::client::Shared;
use crate::clock::BootInstant;
use crate::error::{Error, ErrorKind, Result};
use crate::grant::{Grant, Renewal};
use crate::hold::Hold;
use crate::lease::{LeaseEvent, LossReason};
use crate::owner::Nonce;

/// The least time that a renewal is given, however little of the lease is left.
const LEAST_TIMEOUT: Duration = Duration::from_millis(50);

/// Every hold of a client, by when it has to be looked at.
///
/// One keeper serves all locks of a client. It wakes at the earliest due time and takes along what
/// falls due within the same interval, so that a thousand locks cost a backend that can batch a few
/// requests per third of a TTL (DESIGN: "in batches, each lock judged alone").
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    book: Mutex<Book>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Book {
    holds: HashMap<Nonce, Entry>,
    schedule: BTreeSet<(BootInstant, Nonce)>,
    /// What the keeper sleeps for; entries that fall due later need not wake it.
    asleep_until: Option<BootInstant>,
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    hold: Arc<Hold>,
    due: BootInstant,
}

impl Keeper {
    /// Takes `hold` into care. A keeper that has closed ends it at once.
    pub(crate) fn add(&self, hold: &Arc<Hold>) {
        let mut book = self.book();
        if book.closed {
            drop(book);
            hold.apply(LeaseEvent::End(LossReason::Closed));
            return;
        }
        let Some(due) = hold.due() else { return };
        book.insert(hold, due);
        self.wake_if_earlier(&book, due);
    }

    /// Takes `nonce` out of care.
    pub(crate) fn remove(&self, nonce: &Nonce) -> Option<Arc<Hold>> {
        let mut book = self.book();
        let entry = book.holds.remove(nonce)?;
        book.schedule.remove(&(entry.due, *nonce));
        Some(entry.hold)
    }

    pub(crate) fn get(&self, nonce: &Nonce) -> Option<Arc<Hold>> {
        self.book()
            .holds
            .get(nonce)
            .map(|entry| Arc::clone(&entry.hold))
    }

    pub(crate) fn len(&self) -> usize {
        self.book().holds.len()
    }

    /// Plans a renewal of every kept hold for now.
    pub(crate) fn verify_all(&self, shared: &Shared) {
        let holds: Vec<_> = self
            .book()
            .holds
            .values()
            .map(|entry| Arc::clone(&entry.hold))
            .collect();
        for hold in holds {
            if hold.apply(LeaseEvent::Verify).0 {
                shared.hold_ended(&hold);
            } else {
                self.reschedule(&hold);
            }
        }
    }

    /// Ends every hold, now and in future: nobody is left to renew them.
    pub(crate) fn close(&self) -> Vec<Arc<Hold>> {
        let mut book = self.book();
        book.closed = true;
        book.schedule.clear();
        let holds: Vec<_> = book.holds.drain().map(|(_, entry)| entry.hold).collect();
        drop(book);
        for hold in &holds {
            hold.apply(LeaseEvent::End(LossReason::Closed));
        }
        holds
    }

    fn reschedule(&self, hold: &Arc<Hold>) {
        let mut book = self.book();
        let nonce = hold.claim().nonce;
        let Some(entry) = book.holds.get(&nonce) else {
            return;
        };
        let old = (entry.due, nonce);
        book.schedule.remove(&old);
        match hold.due() {
            Some(due) => {
                book.insert(hold, due);
                self.wake_if_earlier(&book, due);
            }
            None => {
                book.holds.remove(&nonce);
            }
        }
    }

    fn wake_if_earlier(&self, book: &Book, due: BootInstant) {
        if book.asleep_until.is_none_or(|until| due < until) {
            self.earlier.notify_one();
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is due at `now`: everything whose validity is over or whose renewal is planned, and
    /// with a renewal, everything whose own is planned within the same interval.
    fn due(&self, now: BootInstant) -> Vec<Arc<Hold>> {
        let mut book = self.book();
        book.asleep_until = None;
        let due: Vec<_> = book.until(now).collect();
        let interval = due
            .iter()
            .filter(|hold| hold.renew_at().is_some())
            .map(|hold| interval(hold))
            .min();
        match interval {
            Some(interval) => book.until(now + interval).collect(),
            None => due,
        }
    }

    fn fall_asleep(&self) -> Option<BootInstant> {
        let mut book = self.book();
        book.asleep_until = book.schedule.first().map(|(due, _)| *due);
        book.asleep_until
    }
}

/// The time from one renewal of `hold` to the next, at the least.
fn interval(hold: &Hold) -> Duration {
    hold.claim().ttl / 3
}

impl Book {
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

/// Runs until the client's runtime ends. If it ends early, every guard is told.
pub(crate) async fn keep(shared: Arc<Shared>) {
    /// Ends all holds also when the keeper panics.
    struct TellAll(Arc<Shared>);
    impl Drop for TellAll {
        fn drop(&mut self) {
            for hold in self.0.keeper.close() {
                self.0.hold_ended(&hold);
            }
        }
    }
    let tell_all = TellAll(shared);
    let shared = &tell_all.0;
    loop {
        let next = shared.keeper.fall_asleep();
        tokio::select! {
            () = shared.keeper.earlier.notified() => {}
            () = shared.clock.sleep_until_some(next) => {}
        }
        let now = shared.clock.now();
        let mut renew = Vec::new();
        for hold in shared.keeper.due(now) {
            let (ended_now, ended) = hold.apply(LeaseEvent::Tick);
            if ended_now {
                shared.hold_ended(&hold);
            } else if ended.is_some() {
                shared.keeper.remove(&hold.claim().nonce);
            } else if hold.renew_at().is_some() {
                hold.renewal_started();
                shared.keeper.reschedule(&hold);
                renew.push(hold);
            }
        }
        if !renew.is_empty() {
            // A task of its own: a batch that hangs must not hold up the others.
            tokio::spawn(renew_batch(Arc::clone(shared), renew));
        }
    }
}

async fn renew_batch(shared: Arc<Shared>, holds: Vec<Arc<Hold>>) {
    let now = shared.clock.now();
    let shortest = holds
        .iter()
        .map(|hold| hold.validity().expires_at().saturating_since(now))
        .min();
    let patience = shortest
        .map_or(shared.op_timeout, |left| shared.op_timeout.min(left / 2))
        .max(LEAST_TIMEOUT);
    let mut batch = Batch {
        shared,
        holds,
        answers: Vec::new(),
    };
    let grants: Vec<&Grant> = batch.holds.iter().map(|hold| hold.grant()).collect();
    let asking = batch.shared.backend.renew(&grants);
    let answers = batch.shared.clock.timeout(patience, asking).await;
    batch.answers = answers.unwrap_or_default();
}

/// Renewals under way. Each is settled when this is dropped, also when the backend panics: one that
/// was never settled would not be tried again.
struct Batch {
    shared: Arc<Shared>,
    holds: Vec<Arc<Hold>>,
    answers: Vec<Result<Renewal>>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut answers = std::mem::take(&mut self.answers).into_iter();
        for hold in &self.holds {
            let answer = answers.next().unwrap_or_else(|| Err(unanswered(hold)));
            self.shared.keeper.settle(&self.shared, hold, &answer);
        }
    }
}

fn unanswered(hold: &Hold) -> Error {
    Error::new(ErrorKind::Indeterminate, "renew").with_name(&hold.claim().name)
}

impl Keeper {
    /// Takes note of the answer to one renewal.
    fn settle(&self, shared: &Shared, hold: &Arc<Hold>, answer: &Result<Renewal>) {
        let name = &hold.claim().name;
        let event = match answer {
            Ok(Renewal::Extended(validity)) => {
                debug!(%name, token = %hold.token(), "lease renewed");
                LeaseEvent::Renewed(*validity)
            }
            Ok(Renewal::Gone) => LeaseEvent::End(LossReason::NotHeld),
            // A failed renewal is no loss: the lease on the server runs on, and so does ours.
            Err(error) => {
                warn!(%name, token = %hold.token(), %error, "renewal failed");
                LeaseEvent::RenewalFailed
            }
        };
        if hold.apply(event).0 {
            shared.hold_ended(hold);
        } else {
            self.reschedule(hold);
        }
    }

    /// Renews `hold` by hand, once.
    pub(crate) async fn renew_now(shared: &Shared, hold: &Arc<Hold>) -> Result<()> {
        let name = hold.claim().name.clone();
        let lost = |reason: LossReason| {
            Err(Error::new(ErrorKind::Lost, "renew")
                .with_name(&name)
                .with_detail(reason.to_string()))
        };
        if let Some(reason) = shared.ended(hold) {
            return lost(reason);
        }
        hold.renewal_sent();
        let grants = [hold.grant()];
        let answers = shared
            .clock
            .timeout(shared.op_timeout, shared.backend.renew(&grants))
            .await;
        let answer = answers.and_then(|answers| answers.into_iter().next());
        let answer = answer.unwrap_or_else(|| Err(unanswered(hold)));
        shared.keeper.settle(shared, hold, &answer);
        match (shared.ended(hold), answer) {
            (Some(reason), _) => lost(reason),
            (None, Ok(_)) => Ok(()),
            (None, Err(error)) => Err(error.with_name(&name)),
        }
    }
}
