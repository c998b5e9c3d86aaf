//! Every nonce of this client that has a node, may have one, or is to be rid of one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lock_core::{BootInstant, Claim, Nonce};
use tokio::sync::Notify;

use crate::node::Node;
use crate::session::Session;

/// How a claim stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// Asked for, or waiting in the queue.
    Waiting,
    /// Holds the lock.
    Held,
    /// Is being given up; whether it held.
    Leaving { held: bool },
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    standing: Standing,
    /// When it is given up unless it is renewed or in the queue by then.
    ends: Option<BootInstant>,
}

/// A claim's node, and how the claim stands.
#[derive(Clone, Debug)]
pub(crate) struct Booked {
    pub(crate) node: Arc<Node>,
    pub(crate) standing: Standing,
}

/// The claims of one client. A nonce is booked before anything is sent for it, and stays until the
/// server has confirmed that nothing of it is left, or the session that owned it is over.
#[derive(Debug, Default)]
pub(crate) struct Book {
    inner: Mutex<Inner>,
    /// An end has come nearer.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Nonce, Entry>,
    ends: BTreeSet<(BootInstant, Nonce)>,
}

impl Inner {
    fn set_end(&mut self, nonce: Nonce, ends: Option<BootInstant>) {
        let Some(entry) = self.entries.get_mut(&nonce) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut entry.ends, ends) {
            self.ends.remove(&(before, nonce));
        }
        if let Some(ends) = ends {
            self.ends.insert((ends, nonce));
        }
    }
}

impl Book {
    /// Books a request that is about to be sent. It is given up after its TTL if nothing is heard of it.
    pub(crate) fn put(&self, claim: &Claim, node: &Arc<Node>) {
        let mut inner = self.lock();
        inner.set_end(claim.nonce, None);
        let entry = Entry {
            node: Arc::clone(node),
            standing: Standing::Waiting,
            ends: None,
        };
        inner.entries.insert(claim.nonce, entry);
        inner.set_end(claim.nonce, Some(node.sent + claim.ttl));
        drop(inner);
        self.sooner.notify_one();
    }

    pub(crate) fn get(&self, nonce: Nonce) -> Option<Booked> {
        self.lock().entries.get(&nonce).map(|entry| Booked {
            node: Arc::clone(&entry.node),
            standing: entry.standing,
        })
    }

    /// It stands in the queue: from now on its caller's patience counts.
    pub(crate) fn queued(&self, nonce: Nonce) {
        let mut inner = self.lock();
        if inner
            .entries
            .get(&nonce)
            .is_some_and(|entry| entry.standing == Standing::Waiting)
        {
            inner.set_end(nonce, None);
        }
    }

    /// It holds the lock until `ends` unless it is renewed; `false` when it was given up meanwhile.
    pub(crate) fn held(&self, nonce: Nonce, ends: BootInstant) -> bool {
        let mut inner = self.lock();
        match inner.entries.get_mut(&nonce) {
            Some(entry) if entry.standing == Standing::Waiting => entry.standing = Standing::Held,
            _ => return false,
        }
        inner.set_end(nonce, Some(ends));
        drop(inner);
        self.sooner.notify_one();
        true
    }

    /// It is being renewed: it does not end before `ends`. `None` when it does not hold.
    pub(crate) fn renewed(&self, nonce: Nonce, ends: BootInstant) -> Option<Arc<Node>> {
        let mut inner = self.lock();
        let entry = inner.entries.get(&nonce)?;
        if entry.standing != Standing::Held {
            return None;
        }
        let node = Arc::clone(&entry.node);
        let ends = entry.ends.map_or(ends, |before| before.max(ends));
        inner.set_end(nonce, Some(ends));
        Some(node)
    }

    /// It is given up from now on; what it was until now, and its node.
    pub(crate) fn leaving(&self, nonce: Nonce) -> Option<Booked> {
        let mut inner = self.lock();
        inner.set_end(nonce, None);
        let entry = inner.entries.get_mut(&nonce)?;
        entry.standing = match entry.standing {
            Standing::Waiting => Standing::Leaving { held: false },
            Standing::Held => Standing::Leaving { held: true },
            leaving @ Standing::Leaving { .. } => leaving,
        };
        Some(Booked {
            node: Arc::clone(&entry.node),
            standing: entry.standing,
        })
    }

    /// What is being given up under this nonce; `None` also when it was asked for again since.
    pub(crate) fn still_leaving(&self, nonce: Nonce) -> Option<Booked> {
        let booked = self.get(nonce)?;
        matches!(booked.standing, Standing::Leaving { .. }).then_some(booked)
    }

    /// Gives the node of `waiting` to `next`, with its place; `None` when it does not wait.
    pub(crate) fn renamed(&self, waiting: Nonce, next: Nonce) -> Option<Arc<Node>> {
        let mut inner = self.lock();
        if inner.entries.get(&waiting)?.standing != Standing::Waiting {
            return None;
        }
        inner.set_end(waiting, None);
        let entry = inner.entries.remove(&waiting)?;
        let node = Arc::clone(&entry.node);
        inner.entries.insert(next, entry);
        Some(node)
    }

    /// Nothing is left of what this nonce asked for with `node`; what it has asked for since stays.
    pub(crate) fn left(&self, nonce: Nonce, node: &Arc<Node>) {
        let mut inner = self.lock();
        let same = inner
            .entries
            .get(&nonce)
            .is_some_and(|entry| Arc::ptr_eq(&entry.node, node));
        if same {
            inner.set_end(nonce, None);
            inner.entries.remove(&nonce);
        }
    }

    /// Nothing of it is left.
    pub(crate) fn remove(&self, nonce: Nonce) {
        let mut inner = self.lock();
        inner.set_end(nonce, None);
        inner.entries.remove(&nonce);
    }

    /// Removes what holds by this node, and says whether it did: nobody is told twice.
    pub(crate) fn lost(&self, nonce: Nonce, node: &Arc<Node>) -> bool {
        let mut inner = self.lock();
        let lost = inner.entries.get(&nonce).is_some_and(|entry| {
            entry.standing == Standing::Held && Arc::ptr_eq(&entry.node, node)
        });
        if lost {
            inner.set_end(nonce, None);
            inner.entries.remove(&nonce);
        }
        lost
    }

    /// The holds of a session, each with its node.
    pub(crate) fn holds_of(&self, session: &Arc<Session>) -> Vec<(Nonce, Arc<Node>)> {
        let inner = self.lock();
        let holds = inner.entries.iter().filter(|(_, entry)| {
            entry.standing == Standing::Held && Arc::ptr_eq(&entry.node.session, session)
        });
        holds
            .map(|(nonce, entry)| (*nonce, Arc::clone(&entry.node)))
            .collect()
    }

    /// The holds of a session that is over; they are leaving from now on, and held nothing.
    ///
    /// Who waits comes again by itself.
    pub(crate) fn session_over(&self, session: &Arc<Session>) -> Vec<Nonce> {
        let mut inner = self.lock();
        let mut over = Vec::new();
        for (nonce, entry) in &mut inner.entries {
            if entry.standing == Standing::Held && Arc::ptr_eq(&entry.node.session, session) {
                entry.standing = Standing::Leaving { held: false };
                over.push(*nonce);
            }
        }
        for nonce in &over {
            inner.set_end(*nonce, None);
        }
        over
    }

    /// The tags of the nodes that claims have, or may have.
    pub(crate) fn tags(&self) -> HashSet<Nonce> {
        self.lock()
            .entries
            .values()
            .map(|entry| entry.node.tag)
            .collect()
    }

    /// The queues that claims are in.
    pub(crate) fn queues(&self) -> HashSet<String> {
        self.lock()
            .entries
            .values()
            .map(|entry| entry.node.queue.clone())
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// The claims whose time is over at `now`; they are leaving from now on.
    pub(crate) fn due(&self, now: BootInstant) -> Vec<Nonce> {
        let mut inner = self.lock();
        let mut due = Vec::new();
        while let Some((ends, nonce)) = inner.ends.first().copied() {
            if ends > now {
                break;
            }
            inner.set_end(nonce, None);
            if let Some(entry) = inner.entries.get_mut(&nonce) {
                // Its time is over: whoever asks later did not hold any more.
                entry.standing = Standing::Leaving { held: false };
                due.push(nonce);
            }
        }
        due
    }

    /// When the next claim ends by itself.
    pub(crate) fn next_end(&self) -> Option<BootInstant> {
        self.lock().ends.first().map(|(ends, _)| *ends)
    }

    /// Waits until an end may have come nearer.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
