//! The claims of this client that are under way, and the pushes that arrive for them.
//!
//! A claim has a record here from before its first request is sent until it is granted or released.
//! The record answers three questions: may a grant that arrives be adopted; from when on does its
//! lease count; and is there a request that was never answered, so that the release has to bury the
//! nonce. Nothing in here waits or sends.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::{
    BootInstant, Claim, Error, ErrorKind, FencingToken, Grant, Nonce, Reach, Validity,
};
use tokio::sync::Notify;

/// How long a tombstone stays: longer than a copy of a request can be under way.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(120);

/// What the server pushes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Push {
    /// A hand-off.
    Granted(HandOff),
    /// An operator took the lock from this nonce.
    Broken(Nonce),
}

/// A lock that was handed to one of our waiters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HandOff {
    pub(crate) nonce: Nonce,
    pub(crate) token: FencingToken,
    /// The claim window.
    pub(crate) lease: Duration,
    /// The server's clock at the grant.
    pub(crate) server: Duration,
}

impl Push {
    /// Reads a message; `None` when it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('\t');
        let mut next = || parts.next();
        match next()? {
            "granted" => Some(Self::Granted(HandOff {
                nonce: next()?.parse().ok()?,
                token: FencingToken::new(next()?.parse().ok()?).ok()?,
                lease: Duration::from_micros(next()?.parse().ok()?),
                server: Duration::from_micros(next()?.parse().ok()?),
            })),
            "broken" => Some(Self::Broken(next()?.parse().ok()?)),
            _ => None,
        }
    }
}

/// A request that was answered: where its sending was on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    /// The connection it was sent on.
    pub(crate) connection: u64,
    /// Taken before it was sent.
    pub(crate) sent: BootInstant,
    /// The server's clock while it ran.
    pub(crate) server: Duration,
}

#[derive(Debug)]
struct Record {
    claim: Claim,
    stage: Stage,
    /// Requests that could make this nonce hold or wait and that were not answered.
    unanswered: u32,
    /// When the first of them was sent.
    enqueued: BootInstant,
    reference: Option<Reference>,
    heard: Arc<Notify>,
}

#[derive(Debug)]
enum Stage {
    /// The request is under way.
    Asking,
    /// It stands in the queue; `due` is when its place is renewed, `None` while that is under way.
    Waiting { due: Option<BootInstant> },
    /// Granted, and nobody has come for it yet.
    Granted(Grant),
    /// Granted by an answer that was too slow; whoever comes for it has to renew it first.
    Stale(Grant),
    /// It cannot be waited for any longer.
    Failed(Error),
    /// Core knows the outcome. The record is there only because of an unanswered request.
    Taken,
    /// A release has begun: no grant is adopted any more.
    Leaving,
}

/// All records of one client.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    records: Mutex<Records>,
    /// The largest token that this client has seen.
    seen: AtomicU64,
    /// Some place is due earlier than before.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Records {
    by_nonce: HashMap<Nonce, Record>,
    /// What is over and stays only because of an unanswered request, with when it was over. Copies
    /// are not under way for ever, so neither do these stay.
    over: VecDeque<(BootInstant, Nonce)>,
    /// When the renewal of places wakes next, if nobody hurries it.
    planned: Option<BootInstant>,
}

/// What stands between a waiting claim and its outcome.
pub(crate) enum Outcome {
    Ready(lock_core::Result<Grant>),
    NotYet(Arc<Notify>),
}

impl Inbox {
    /// Notes that a request is about to be sent that can make `claim` hold or wait.
    pub(crate) fn sending(&self, claim: &Claim, now: BootInstant) {
        let mut records = self.lock();
        records.forget_old(now);
        let record = records
            .by_nonce
            .entry(claim.nonce)
            .or_insert_with(|| Record {
                claim: claim.clone(),
                stage: Stage::Asking,
                unanswered: 0,
                enqueued: now,
                reference: None,
                heard: Arc::new(Notify::new()),
            });
        // Asked for once more under the same nonce, to find out what became of the first time.
        if matches!(record.stage, Stage::Taken) {
            record.stage = Stage::Asking;
        }
        record.unanswered += 1;
    }

    /// As [`sending`](Self::sending), for a claim that the server has forgotten; answers whether it
    /// is still wanted.
    pub(crate) fn sending_again(&self, nonce: Nonce) -> bool {
        let mut records = self.lock();
        match records.by_nonce.get_mut(&nonce) {
            Some(record) if matches!(record.stage, Stage::Waiting { .. }) => {
                record.unanswered += 1;
                true
            }
            _ => false,
        }
    }

    /// Notes that the request was answered, whatever the answer was.
    pub(crate) fn answered(&self, nonce: Nonce) {
        if let Some(record) = self.lock().by_nonce.get_mut(&nonce) {
            record.unanswered = record.unanswered.saturating_sub(1);
        }
    }

    /// Whether this claim is registered and will have an outcome, so that one can wait for it.
    pub(crate) fn expects(&self, nonce: Nonce) -> bool {
        self.lock().by_nonce.get(&nonce).is_some_and(|record| {
            matches!(
                record.stage,
                Stage::Waiting { .. } | Stage::Granted(_) | Stage::Stale(_) | Stage::Failed(_)
            )
        })
    }

    /// The server said that the claim stands in the queue, and is to ask again at `due`.
    pub(crate) fn queued(&self, nonce: Nonce, reference: Reference, due: BootInstant) {
        let mut records = self.lock();
        let Some(record) = records.by_nonce.get_mut(&nonce) else {
            return;
        };
        let due = match record.stage {
            Stage::Asking | Stage::Waiting { due: None } => due,
            Stage::Waiting { due: Some(earlier) } => earlier.min(due),
            // The push overtook this answer.
            _ => return,
        };
        record.reference = Some(reference);
        record.stage = Stage::Waiting { due: Some(due) };
        record.claim.progress.report(Reach::Queued);
        self.hurry_for(&records, Some(due));
    }

    /// The server answered that the claim holds the lock.
    ///
    /// One whose validity is over is handed on as well: see [`Stage::Stale`].
    pub(crate) fn granted(&self, grant: Grant, now: BootInstant) {
        self.saw(grant.token());
        let mut records = self.lock();
        let Some(record) = records.by_nonce.get_mut(&grant.claim().nonce) else {
            return;
        };
        match &record.stage {
            Stage::Asking | Stage::Waiting { .. } => {}
            Stage::Granted(before) | Stage::Stale(before) if before.token() < grant.token() => {}
            _ => return,
        }
        let stale = grant.validity().expires_at() <= now;
        // The answer took longer than the lease. Asking again would take as long, and keep the lock
        // from everybody else meanwhile; core makes the lease whole before it uses such a grant.
        record.stage = if stale {
            Stage::Stale(grant)
        } else {
            Stage::Granted(grant)
        };
        record.heard.notify_one();
    }

    /// The server pushed a grant, which arrived at `arrived`.
    pub(crate) fn pushed(&self, connection: u64, arrived: BootInstant, hand_off: HandOff) {
        self.saw(hand_off.token);
        let mut records = self.lock();
        let Some(record) = records.by_nonce.get_mut(&hand_off.nonce) else {
            tracing::debug!(nonce = %hand_off.nonce, "grant for a claim that was given up");
            return;
        };
        if !matches!(record.stage, Stage::Asking | Stage::Waiting { .. }) {
            return;
        }
        let since = record.granted_since(connection, arrived, hand_off.server);
        let validity = Validity::new(since, arrived, hand_off.lease);
        let grant = Grant::new(&record.claim, hand_off.token, validity).provisional();
        // One that may be over already is neither used nor thrown away: the next place renewal
        // says what has become of it.
        if grant.validity().expires_at() > arrived {
            tracing::debug!(
                name = %record.claim.name,
                token = %grant.token(),
                nonce = %hand_off.nonce,
                "lock handed on to this client"
            );
            record.stage = Stage::Granted(grant);
            record.heard.notify_one();
        } else {
            record.stage = Stage::Waiting { due: Some(arrived) };
            self.hurry_for(&records, Some(arrived));
        }
    }

    /// What became of a claim that is waited for.
    pub(crate) fn outcome(&self, nonce: Nonce, now: BootInstant) -> Outcome {
        let mut records = self.lock();
        let Some(record) = records.by_nonce.get_mut(&nonce) else {
            return Outcome::Ready(Err(given_up()));
        };
        let result = match std::mem::replace(&mut record.stage, Stage::Taken) {
            // The process may have been paused between the push and now.
            Stage::Granted(grant) if grant.validity().expires_at() <= now => {
                record.stage = Stage::Waiting { due: Some(now) };
                let heard = Arc::clone(&record.heard);
                self.hurry_for(&records, Some(now));
                return Outcome::NotYet(heard);
            }
            Stage::Granted(grant) | Stage::Stale(grant) => Ok(grant),
            Stage::Failed(error) => Err(error),
            stage @ (Stage::Asking | Stage::Waiting { .. }) => {
                record.stage = stage;
                return Outcome::NotYet(Arc::clone(&record.heard));
            }
            stage @ (Stage::Taken | Stage::Leaving) => {
                record.stage = stage;
                return Outcome::Ready(Err(given_up()));
            }
        };
        records.over(nonce, now);
        Outcome::Ready(result)
    }

    /// Core knows the outcome of this claim.
    pub(crate) fn taken(&self, nonce: Nonce, now: BootInstant) {
        let mut records = self.lock();
        if let Some(record) = records.by_nonce.get_mut(&nonce)
            && !matches!(record.stage, Stage::Leaving)
        {
            record.stage = Stage::Taken;
            records.over(nonce, now);
        }
    }

    /// This claim cannot be waited for.
    pub(crate) fn fail(&self, nonce: Nonce, error: Error) {
        let mut records = self.lock();
        if let Some(record) = records.by_nonce.get_mut(&nonce)
            && matches!(record.stage, Stage::Asking | Stage::Waiting { .. })
        {
            record.stage = Stage::Failed(error);
            record.heard.notify_one();
        }
    }

    /// No claim can be waited for any longer.
    pub(crate) fn fail_all(&self, error: &Error) {
        let waiting: Vec<_> = self.lock().by_nonce.keys().copied().collect();
        for nonce in waiting {
            self.fail(nonce, error.clone());
        }
    }

    /// A release begins: from now on no grant of this nonce is adopted. Answers whether a copy of
    /// one of its requests may still be under way.
    pub(crate) fn leaving(&self, nonce: Nonce, now: BootInstant) -> bool {
        let mut records = self.lock();
        let Some(record) = records.by_nonce.get_mut(&nonce) else {
            return false;
        };
        let bury = record.unanswered > 0;
        if !matches!(record.stage, Stage::Leaving) {
            record.stage = Stage::Leaving;
            records.over.push_back((now, nonce));
        }
        bury
    }

    /// The release was answered.
    pub(crate) fn left(&self, nonce: Nonce) {
        let mut records = self.lock();
        if records.by_nonce.remove(&nonce).is_some() {
            records.over.retain(|(_, other)| *other != nonce);
        }
    }

    /// The claims whose places are to be renewed by `until`; their renewal is under way from now on.
    pub(crate) fn take_due(&self, until: BootInstant) -> Vec<Claim> {
        let mut records = self.lock();
        records
            .by_nonce
            .values_mut()
            .filter_map(|record| match &mut record.stage {
                Stage::Waiting { due } if due.is_some_and(|due| due <= until) => {
                    *due = None;
                    Some(record.claim.clone())
                }
                _ => None,
            })
            .collect()
    }

    /// When the next place is to be renewed.
    pub(crate) fn next_due(&self) -> Option<BootInstant> {
        let mut records = self.lock();
        let dues = records
            .by_nonce
            .values()
            .filter_map(|record| match record.stage {
                Stage::Waiting { due } => due,
                _ => None,
            });
        records.planned = dues.min();
        records.planned
    }

    /// Wakes the renewal of places when it has planned to wake later than `due`. A hand-off, the
    /// usual end of a wait, wakes nobody but its waiter.
    fn hurry_for(&self, records: &Records, due: Option<BootInstant>) {
        if due.is_some_and(|due| records.planned.is_none_or(|planned| due < planned)) {
            self.hurry.notify_one();
        }
    }

    /// Resolves when some place may have become due earlier.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// A renewal of this place has failed; it is tried again at `at`.
    pub(crate) fn retry(&self, nonce: Nonce, at: BootInstant) {
        let mut records = self.lock();
        if let Some(record) = records.by_nonce.get_mut(&nonce)
            && let Stage::Waiting { due } = &mut record.stage
        {
            let at = due.map_or(at, |earlier| earlier.min(at));
            *due = Some(at);
            self.hurry_for(&records, Some(at));
        }
    }

    /// The connection is away.
    pub(crate) fn adrift(&self) {
        for record in self.lock().by_nonce.values() {
            if matches!(record.stage, Stage::Waiting { .. }) {
                record.claim.progress.report(Reach::Adrift);
            }
        }
    }

    /// There is a new connection: pushes may have been lost, so every waiter asks.
    pub(crate) fn verify_all(&self, now: BootInstant) {
        for record in self.lock().by_nonce.values_mut() {
            if let Stage::Waiting { due } = &mut record.stage {
                *due = Some(now);
            }
        }
        self.hurry.notify_one();
    }

    /// The largest token that this client has seen, 0 for none.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Notes a token, so that no later one is smaller even if the server forgets.
    pub(crate) fn saw(&self, token: FencingToken) {
        self.seen.fetch_max(token.get(), Ordering::Relaxed);
    }

    /// How many claims are registered.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_nonce.len()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // No code in here panics between two writes that belong together.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    /// A claim whose outcome is known is forgotten: at once, or when no copy can be under way.
    fn over(&mut self, nonce: Nonce, now: BootInstant) {
        match self.by_nonce.get(&nonce) {
            Some(record) if record.unanswered > 0 => self.over.push_back((now, nonce)),
            _ => drop(self.by_nonce.remove(&nonce)),
        }
    }

    fn forget_old(&mut self, now: BootInstant) {
        while let Some((since, nonce)) = self.over.front().copied() {
            if now.saturating_since(since) < TOMBSTONE {
                break;
            }
            self.over.pop_front();
            if let Some(record) = self.by_nonce.get(&nonce)
                && matches!(record.stage, Stage::Taken | Stage::Leaving)
            {
                self.by_nonce.remove(&nonce);
            }
        }
    }
}

impl Record {
    /// A point that is certainly not later than a grant that the server dates `granted`.
    ///
    /// The arrival of a push says nothing: it may have lain in a buffer for as long as the lease. So
    /// it is counted from the last request of this claim that was answered on this connection: the
    /// server ran it after it was sent, and the grant later than that by the difference on the
    /// server's own clock, less what that clock may run fast.
    fn granted_since(
        &self,
        connection: u64,
        arrived: BootInstant,
        granted: Duration,
    ) -> BootInstant {
        let since = match self.reference {
            Some(reference) if reference.connection == connection => {
                let later = granted.saturating_sub(reference.server);
                reference.sent + Validity::least_local(later)
            }
            _ => self.enqueued,
        };
        // After a forward step of the server's clock the difference is too large.
        since.min(arrived)
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Invalid, "acquire").with_detail("this claim was released")
}

#[cfg(test)]
mod tests;
