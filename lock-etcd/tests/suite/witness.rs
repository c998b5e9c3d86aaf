//! etcd's own record: every change below a prefix, revision by revision.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lock_conformance::history::Record;
use lock_conformance::{Standing, Witness, async_trait};
use lock_etcd::etcd_client::{Client, Event, EventType, KeyValue, WatchOptions};

use super::TOOLS;

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// A watch that is read from its beginning when it is asked.
pub(crate) struct Past {
    endpoints: Vec<String>,
    prefix: String,
    /// The revision before the first that counts. A server that has seen a hundred rounds would take too long to tell
    /// all of them.
    since: i64,
}

impl Past {
    /// What happens below this prefix from now on.
    pub(crate) async fn from_now_on(endpoints: &[String], prefix: &str) -> io::Result<Self> {
        let mut past = Self {
            endpoints: endpoints.to_vec(),
            prefix: prefix.to_owned(),
            since: 0,
        };
        let marked = tokio::time::timeout(TOOLS, past.mark()).await?;
        past.since = marked.map_err(io::Error::other)?;
        Ok(past)
    }

    /// Everything that was decided before this revision is seen before it.
    async fn mark(&self) -> Result<i64, Trouble> {
        let mut client = Client::connect(&self.endpoints, None).await?;
        let marked = client.put(format!("{}/mark", self.prefix), "", None);
        let marked = marked.await?;
        let header = marked.header().ok_or("an answer without a header")?;
        Ok(header.revision())
    }

    async fn read(&self) -> Result<Vec<Record>, Trouble> {
        let marked = self.mark().await?;
        let mut client = Client::connect(&self.endpoints, None).await?;
        let since = WatchOptions::new()
            .with_prefix()
            .with_start_revision(self.since + 1);
        let mut watch = client
            .watch(format!("{}/", self.prefix), Some(since))
            .await?;
        let mut story = Story::new(&self.prefix);
        while let Some(answer) = watch.message().await? {
            if answer.canceled() {
                return Err(format!("the watch was refused: {}", answer.cancel_reason()).into());
            }
            for event in answer.events() {
                if event.kv().is_some_and(|kv| kv.mod_revision() >= marked) {
                    return Ok(story.end());
                }
                story.take(event)?;
            }
        }
        Err("the watch ended early".into())
    }
}

#[async_trait]
impl Witness for Past {
    async fn records(&self) -> io::Result<Vec<Record>> {
        let read = tokio::time::timeout(TOOLS, self.read()).await;
        read?.map_err(io::Error::other)
    }
}

/// Who stood first of each lock, from revision to revision.
struct Story {
    locks: String,
    /// Of each lock, its keys in the order in which they were created, with the token that each makes.
    queues: BTreeMap<String, BTreeMap<i64, u64>>,
    created: BTreeMap<Vec<u8>, i64>,
    /// The revision that is being told, and the locks that it has changed.
    revision: i64,
    changed: BTreeSet<String>,
    standing: Standing,
}

impl Story {
    fn new(prefix: &str) -> Self {
        Self {
            locks: format!("{prefix}/l/"),
            queues: BTreeMap::new(),
            created: BTreeMap::new(),
            revision: 0,
            changed: BTreeSet::new(),
            standing: Standing::default(),
        }
    }

    fn take(&mut self, event: &Event) -> Result<(), Trouble> {
        let kv = event.kv().ok_or("an event about nothing")?;
        let Some(name) = self.name(kv) else {
            return Ok(());
        };
        if kv.mod_revision() != self.revision {
            self.turn();
            self.revision = kv.mod_revision();
        }
        let queue = self.queues.entry(name.clone()).or_default();
        match event.event_type() {
            EventType::Put => {
                let token = base(kv).ok_or("a record that cannot be read")?
                    + u64::try_from(kv.create_revision())?;
                queue.insert(kv.create_revision(), token);
                self.created.insert(kv.key().to_vec(), kv.create_revision());
            }
            // The event does not say which of the key's lives has ended: it is the last one.
            EventType::Delete => {
                let created = self.created.remove(kv.key());
                queue.remove(&created.ok_or("a key went that never came")?);
            }
        }
        self.changed.insert(name);
        Ok(())
    }

    /// `PREFIX/l/NAME/CLIENT/SLOT`
    fn name(&self, kv: &KeyValue) -> Option<String> {
        let key = std::str::from_utf8(kv.key()).ok()?;
        let (name, _) = key.strip_prefix(&self.locks)?.split_once('/')?;
        Some(name.replace("%2F", "/").replace("%25", "%"))
    }

    /// A revision is over: what it has done is done at once.
    fn turn(&mut self) {
        for name in std::mem::take(&mut self.changed) {
            let first = self.queues[&name].values().next().copied();
            self.standing.set(&name, first);
        }
    }

    fn end(mut self) -> Vec<Record> {
        self.turn();
        self.standing.into_records()
    }
}

/// What is added to the key's revision to make the token: the third part of its value.
fn base(kv: &KeyValue) -> Option<u64> {
    kv.value_str().ok()?.split('\t').nth(2)?.parse().ok()
}
