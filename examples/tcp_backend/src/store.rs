//! The server's data: keys that end, ordered by when they came. No network, no waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lock_core::{BootInstant, Clock};
use tokio::sync::{Mutex, watch};

use crate::protocol::{Answer, Change, Entry, Txn, When};

/// What a server keeps its data on; it outlives the server, as a disk does. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Store>>);

impl Disk {
    /// The data, for nobody else meanwhile: a server that needs it stands still.
    pub async fn store(&self) -> tokio::sync::OwnedMutexGuard<Store> {
        Arc::clone(&self.0).lock_owned().await
    }
}

/// The data.
#[derive(Debug)]
pub struct Store {
    keys: BTreeMap<String, Value>,
    revision: u64,
    clock: Clock,
    /// Nothing ends before.
    next_end: BootInstant,
    /// Rings when a key has gone.
    gone: watch::Sender<()>,
}

#[derive(Debug)]
struct Value {
    text: String,
    created: u64,
    modified: u64,
    since: BootInstant,
    end: BootInstant,
}

impl Default for Store {
    /// An empty one. Revisions begin at the wall clock's microseconds, so that they also grow from one that was lost to
    /// its successor, unless that one's clock stands behind.
    fn default() -> Self {
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let clock = Clock::system();
        Self {
            keys: BTreeMap::new(),
            revision: u64::try_from(wall.as_micros()).unwrap_or_default(),
            next_end: clock.now(),
            clock,
            gone: watch::Sender::new(()),
        }
    }
}

impl Store {
    /// Loses everything, as a new server in place of a broken one has.
    pub fn wipe(&mut self) {
        let lost = std::mem::take(self);
        lost.gone.send_replace(());
    }

    /// The keys there are.
    pub fn keys(&mut self) -> Vec<String> {
        self.settle();
        self.keys.keys().cloned().collect()
    }

    /// Puts `text` in place of every value: somebody else uses the same keys.
    pub fn overwrite(&mut self, text: &str) {
        for value in self.keys.values_mut() {
            text.clone_into(&mut value.text);
        }
    }

    pub(crate) fn run(&mut self, txn: Txn) -> Answer {
        self.settle();
        let listed = txn.list.map(|prefix| self.list(&prefix));
        let mut branches = txn.branches.into_iter().enumerate();
        let taken = branches.find(|(_, branch)| branch.when.iter().all(|when| self.holds(when)));
        let branch = taken.as_ref().map(|(number, _)| *number);
        self.revision = self.revision.max(txn.above);
        for change in taken.into_iter().flat_map(|(_, branch)| branch.then) {
            self.change(change);
        }
        Answer {
            id: 0,
            branch,
            revision: self.revision,
            listed: listed.unwrap_or_default(),
        }
    }

    /// Until when this key stands, unless it is touched, and the bell for when one goes; `None` when it is gone.
    pub(crate) fn until(
        &mut self,
        key: &str,
        created: u64,
    ) -> Option<(Duration, watch::Receiver<()>)> {
        self.settle();
        let value = self
            .keys
            .get(key)
            .filter(|value| value.created == created)?;
        let left = value.end.saturating_since(self.clock.now());
        Some((left, self.gone.subscribe()))
    }

    /// Removes what has ended. To be called before everything else: nobody ever sees such a key.
    fn settle(&mut self) {
        let now = self.clock.now();
        if now < self.next_end {
            return;
        }
        let before = self.keys.len();
        self.keys.retain(|_, value| value.end > now);
        let ends = self.keys.values().map(|value| value.end);
        self.next_end = ends.min().unwrap_or(now);
        if self.keys.len() < before {
            self.gone.send_replace(());
        }
    }

    fn list(&self, prefix: &str) -> Vec<Entry> {
        let now = self.clock.now();
        let mut entries: Vec<Entry> = self
            .under(prefix)
            .map(|(key, value)| Entry {
                key: key.clone(),
                value: value.text.clone(),
                created: value.created,
                modified: value.modified,
                age_ms: millis(now.saturating_since(value.since)),
                left_ms: millis(value.end.saturating_since(now)),
            })
            .collect();
        entries.sort_by_key(|entry| entry.created);
        entries
    }

    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let from = self.keys.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix))
    }

    fn holds(&self, when: &When) -> bool {
        match when {
            When::Present(key) => self.keys.contains_key(key),
            When::Absent(key) => !self.keys.contains_key(key),
            When::Vacant(prefix) => self.under(prefix).next().is_none(),
            When::At(key, revision) => {
                let value = self.keys.get(key);
                value.is_some_and(|value| value.modified == *revision)
            }
        }
    }

    fn change(&mut self, change: Change) {
        let now = self.clock.now();
        match change {
            Change::Put { key, value, ttl_ms } => {
                self.revision += 1;
                let before = self.keys.get(&key);
                let value = Value {
                    text: value,
                    created: before.map_or(self.revision, |before| before.created),
                    modified: self.revision,
                    since: now,
                    end: now + Duration::from_millis(ttl_ms),
                };
                self.next_end = self.next_end.min(value.end);
                self.keys.insert(key, value);
            }
            Change::Touch { key, ttl_ms } => {
                if let Some(value) = self.keys.get_mut(&key) {
                    // A late one must not take from a later one.
                    value.end = value.end.max(now + Duration::from_millis(ttl_ms));
                }
            }
            Change::Delete(key) => {
                self.keys.remove(&key);
                self.gone.send_replace(());
            }
            Change::Rename { from, to } => {
                if let Some(value) = self.keys.remove(&from) {
                    self.keys.insert(to, value);
                    self.gone.send_replace(());
                }
            }
        }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
