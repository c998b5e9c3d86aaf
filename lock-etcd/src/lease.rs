//! Leases of the server: what makes holders and waiters end with their client.
//!
//! The kept claims of a client with one TTL share one lease, so keeping a thousand locks costs one
//! keep-alive. A fixed claim has a lease of its own. A lease that is lost takes exactly its own locks
//! along. Nothing in here waits or sends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::{BootInstant, Clock, Error, Validity};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// One lease of the server.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// What was asked for, in whole seconds.
    pub(crate) asked: u64,
    /// Shared by the kept claims of one TTL, or of one fixed claim.
    pub(crate) shared: bool,
    state: Mutex<State>,
    granting: watch::Sender<Granting>,
    /// One keep-alive at a time.
    pub(crate) extending: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// What the server granted, which may be more than it was asked for.
    ttl: Duration,
    validity: Option<Validity>,
    generation: i64,
    over: bool,
    users: usize,
    idle_since: BootInstant,
}

#[derive(Clone, Debug)]
enum Granting {
    UnderWay,
    Done,
    Failed(Error),
}

/// A keep-alive that was answered, and does not count yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension {
    pub(crate) sent: BootInstant,
    pub(crate) received: BootInstant,
    /// The latest term that its connection had heard of, from a quorum, before it was sent.
    pub(crate) term: u64,
}

impl Lease {
    fn new(asked: u64, shared: bool, now: BootInstant) -> Self {
        Self {
            id: fresh_id(),
            asked,
            shared,
            state: Mutex::new(State {
                ttl: Duration::from_secs(asked),
                validity: None,
                generation: 0,
                over: false,
                users: 0,
                idle_since: now,
            }),
            granting: watch::Sender::new(Granting::UnderWay),
            extending: tokio::sync::Mutex::new(()),
        }
    }

    /// The server has granted it, for `ttl`.
    pub(crate) fn granted(&self, sent: BootInstant, received: BootInstant, ttl: Duration) {
        {
            let mut state = self.lock();
            state.ttl = ttl;
            state.validity = Some(Validity::new(sent, received, ttl));
        }
        self.granting.send_replace(Granting::Done);
    }

    /// It could not be granted, as far as is known.
    pub(crate) fn failed(&self, error: Error) {
        self.lock().over = true;
        self.granting.send_replace(Granting::Failed(error));
    }

    /// Waits until the server has granted it.
    pub(crate) async fn confirmed(&self) -> Result<(), Error> {
        let mut granting = self.granting.subscribe();
        let known = granting
            .wait_for(|granting| !matches!(granting, Granting::UnderWay))
            .await;
        match known.as_deref() {
            Ok(Granting::Failed(error)) => Err(error.clone()),
            // The sender lives as long as `self`.
            Ok(Granting::Done | Granting::UnderWay) | Err(_) => Ok(()),
        }
    }

    /// Counts a keep-alive, if the term that a quorum confirmed *after* its answer is still the one
    /// from before it was sent; answers whether it counts.
    ///
    /// A leader that has been deposed without knowing it, such as one that was stopped for a while,
    /// answers keep-alives of leases that its successor lets expire. In one and the same term there is
    /// no successor.
    ///
    /// # Source
    /// etcd `server/etcdserver/v3_server.go`, `LeaseRenew`: the lessor of the leader answers by itself.
    /// Releases from 3.4.31 and 3.5.13 on have it ask a quorum first.
    pub(crate) fn extended(&self, extension: Extension, term: u64) -> bool {
        if extension.term != term {
            return false;
        }
        let mut state = self.lock();
        let fresh = Validity::new(extension.sent, extension.received, state.ttl);
        let longer = state
            .validity
            .is_none_or(|old| old.expires_at() < fresh.expires_at());
        if longer {
            state.validity = Some(fresh);
        }
        true
    }

    /// As the server has granted it; what it was asked for until then.
    pub(crate) fn ttl(&self) -> Duration {
        self.lock().ttl
    }

    /// Until when locks on it are valid; `None` as long as the server has not granted it.
    pub(crate) fn validity(&self) -> Option<Validity> {
        let state = self.lock();
        let validity = state.validity?;
        if !self.shared {
            return Some(validity);
        }
        // Other claims may renew it as well, and this one does not hear of that until the keeper comes,
        // after a third and a little.
        Some(validity.freed_by(validity.free_by() + state.ttl * 2 / 5))
    }

    /// Whether it may be there at `now`, as far as is known; true before it is granted.
    fn may_be_there(&self, now: BootInstant) -> bool {
        let state = self.lock();
        let ended = |validity: Validity| validity.expires_at() <= now;
        !state.over && !state.validity.is_some_and(ended)
    }

    /// Whether it is certainly there at `now`.
    pub(crate) fn is_valid(&self, now: BootInstant) -> bool {
        let state = self.lock();
        !state.over
            && state
                .validity
                .is_some_and(|validity| validity.expires_at() > now)
    }

    /// When less than two thirds of it are left; `None` as long as the server has not granted it.
    pub(crate) fn ages_at(&self) -> Option<BootInstant> {
        let state = self.lock();
        Some(
            state
                .validity?
                .expires_at()
                .saturating_sub(state.ttl * 2 / 3),
        )
    }

    /// How often its unanswered requests were given up; part of every request to acquire.
    pub(crate) fn generation(&self) -> i64 {
        self.lock().generation
    }

    /// Takes note of the server's generation.
    pub(crate) fn adopt(&self, generation: i64) {
        let mut state = self.lock();
        state.generation = state.generation.max(generation);
    }

    /// It has ended on the server, or is about to be; answers whether that is news.
    pub(crate) fn end(&self) -> bool {
        !std::mem::replace(&mut self.lock().over, true)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().over
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random positive number: chosen here, so that a lease whose grant was not answered has a name.
fn fresh_id() -> i64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    (high >> 1).cast_signed().max(1)
}

/// A holder's or waiter's part in a lease.
#[derive(Debug)]
pub(crate) struct LeaseUse {
    lease: Arc<Lease>,
    leases: Arc<Leases>,
}

impl std::ops::Deref for LeaseUse {
    type Target = Arc<Lease>;

    fn deref(&self) -> &Arc<Lease> {
        &self.lease
    }
}

impl Drop for LeaseUse {
    fn drop(&mut self) {
        let mut state = self.lease.lock();
        state.users -= 1;
        state.idle_since = self.leases.clock.now();
        let last = state.users == 0 && !state.over;
        drop(state);
        // Nobody will be given it any more.
        if last && !self.leases.is_current(&self.lease) {
            self.lease.end();
            self.leases.revoke(self.lease.id);
        }
    }
}

/// All leases of one client.
#[derive(Debug)]
pub(crate) struct Leases {
    clock: Clock,
    /// By TTL.
    shared: Mutex<BTreeMap<u64, Arc<Lease>>>,
    /// What nobody needs any more.
    done: mpsc::UnboundedSender<i64>,
    /// How many of those have not been revoked yet.
    ending: watch::Sender<usize>,
}

/// A lease for a claim.
pub(crate) struct Chosen {
    pub(crate) lease: LeaseUse,
    /// Nobody has asked the server for it yet.
    pub(crate) new: bool,
}

impl Leases {
    pub(crate) fn new(clock: Clock, done: mpsc::UnboundedSender<i64>) -> Self {
        Self {
            clock,
            shared: Mutex::default(),
            done,
            ending: watch::Sender::new(0),
        }
    }

    /// The lease that kept claims of `secs` share at the moment.
    pub(crate) fn shared(self: &Arc<Self>, secs: u64) -> Chosen {
        let now = self.clock.now();
        let mut shared = self.lock();
        // One that may have ended is left to those who wait on it: to find out takes the server as long
        // as it takes to end it.
        if let Some(lease) = shared.get(&secs)
            && lease.may_be_there(now)
        {
            let lease = self.used(Arc::clone(lease));
            return Chosen { lease, new: false };
        }
        let lease = Arc::new(Lease::new(secs, true, now));
        shared.insert(secs, Arc::clone(&lease));
        Chosen {
            lease: self.used(lease),
            new: true,
        }
    }

    /// A lease for one fixed claim.
    pub(crate) fn own(self: &Arc<Self>, secs: u64) -> Chosen {
        let lease = Arc::new(Lease::new(secs, false, self.clock.now()));
        Chosen {
            lease: self.used(lease),
            new: true,
        }
    }

    /// Whether it is the one that new claims share.
    fn is_current(&self, lease: &Lease) -> bool {
        let shared = self.lock();
        lease.shared
            && shared
                .get(&lease.asked)
                .is_some_and(|current| current.id == lease.id)
    }

    fn used(self: &Arc<Self>, lease: Arc<Lease>) -> LeaseUse {
        lease.lock().users += 1;
        LeaseUse {
            lease,
            leases: Arc::clone(self),
        }
    }

    /// Has a lease revoked, now or soon.
    pub(crate) fn revoke(&self, id: i64) {
        self.ending.send_modify(|count| *count += 1);
        // Nobody revokes any more when the client has been closed.
        let _ = self.done.send(id);
    }

    /// A lease that was to be revoked is, or cannot be.
    pub(crate) fn revoked(&self) {
        self.ending.send_modify(|count| *count -= 1);
    }

    /// Waits until no lease is to be revoked any more.
    pub(crate) async fn all_revoked(&self) {
        let mut ending = self.ending.subscribe();
        // The sender lives as long as `self`.
        let _ = ending.wait_for(|count| *count == 0).await;
    }

    /// Ends the shared leases that nobody has used for `patience`, or for two thirds of their TTL, and
    /// answers when the next one may have to be ended.
    pub(crate) fn end_idle(&self, patience: Duration) -> Option<BootInstant> {
        let now = self.clock.now();
        let mut next: Option<BootInstant> = None;
        self.lock().retain(|secs, lease| {
            let mut state = lease.lock();
            if state.users > 0 {
                return !state.over;
            }
            let patience = patience.min(Duration::from_secs(*secs) * 2 / 3);
            let due = state.idle_since + patience;
            if due > now && !state.over {
                next = Some(next.map_or(due, |next| next.min(due)));
                return true;
            }
            // From here on nobody is given it.
            state.over = true;
            self.revoke(lease.id);
            false
        });
        next
    }

    /// Ends all shared leases without a user; the locks of the others end with their TTL.
    pub(crate) fn end_unused(&self) -> Vec<i64> {
        let mut unused = Vec::new();
        self.lock().retain(|_, lease| {
            let mut state = lease.lock();
            if state.users == 0 && !state.over {
                state.over = true;
                unused.push(lease.id);
            }
            false
        });
        unused
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Lease>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
