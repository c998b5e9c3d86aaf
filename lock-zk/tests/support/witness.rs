//! ZooKeeper's own record: the transaction log of the server that leads.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use lock_conformance::history::Record;
use lock_conformance::servers::{ZooKeeperChange, ZooKeeperServer};
use lock_conformance::{Standing, Witness, async_trait};

/// The log, read when it is asked for.
pub(crate) struct Log {
    pub(crate) server: Arc<ZooKeeperServer>,
    pub(crate) root: String,
}

#[async_trait]
impl Witness for Log {
    async fn records(&self) -> io::Result<Vec<Record>> {
        let server = Arc::clone(&self.server);
        let reading = tokio::task::spawn_blocking(move || server.changes());
        let changes = reading.await.map_err(io::Error::other)??;
        Ok(told(&changes, &format!("{}/l/", self.root)))
    }
}

/// Who stood first of each lock, from transaction to transaction. The token is the transaction that made
/// the node; a fence base, which would be added to it, no case with a witness sets.
fn told(changes: &[ZooKeeperChange], locks: &str) -> Vec<Record> {
    let mut standing = Standing::default();
    let mut queues: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
    // Several changes of one transaction happen at once.
    for transaction in changes.chunk_by(|one, next| one.zxid == next.zxid) {
        let mut changed = Vec::new();
        for change in transaction {
            let Some((name, sequence)) = member(&change.path, locks) else {
                continue;
            };
            let queue = queues.entry(name.clone()).or_default();
            match change.created {
                true => drop(queue.insert(sequence, change.zxid)),
                false => drop(queue.remove(&sequence)),
            }
            changed.push(name);
        }
        for name in changed {
            let first = queues[&name].values().next().copied();
            standing.set(&name, first);
        }
    }
    standing.into_records()
}

/// `ROOT/l/NAME/TAG-SEQUENCE`
fn member(path: &str, locks: &str) -> Option<(String, i64)> {
    let (name, node) = path.strip_prefix(locks)?.split_once('/')?;
    let (_tag, sequence) = node.split_once('-')?;
    let name = name.replace("%2F", "/").replace("%25", "%");
    Some((name, sequence.parse().ok()?))
}
