//! What operators see of locks.

use futures_util::future::join_all;
use lock_core::{
    BootInstant, Cursor, Error, ErrorKind, HolderState, LockName, LockState, Page, Result,
    WaiterState,
};
use zookeeper_client as zk;

use crate::client::Client;
use crate::error::{Failure, foreign};
use crate::name::{queue, unescape};
use crate::node::{LOCKS, queue_path};
use crate::record::Record;
use crate::session::Session;

/// How many nodes are read at once.
const BATCH: usize = 128;
/// A queue whose first node goes while it is looked at is looked at again.
const TRIES: usize = 8;

/// What a node of a queue says.
struct Seen {
    record: Record,
    stat: zk::Stat,
}

impl Client {
    /// Looks at one lock.
    pub(crate) async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let until = self.patience();
        let looking = async {
            let session = self
                .session(until)
                .await
                .map_err(|e| e.into_error("inspect"))?;
            for _ in 0..TRIES {
                if let Some(seen) = self.seen(&session, name, until).await? {
                    return self.state(&session, name, seen);
                }
            }
            Err(Error::new(ErrorKind::Unavailable, "inspect")
                .with_detail("the holder changes faster than it can be looked at"))
        };
        looking.await.map_err(|error: Error| error.with_name(name))
    }

    /// The nodes of a queue in their order; `None` when the first has just gone.
    async fn seen(
        &self,
        session: &Session,
        name: &LockName,
        until: BootInstant,
    ) -> Result<Option<Vec<Seen>>> {
        let failed = |failure: Failure| failure.into_error("inspect");
        let path = queue_path(name);
        let nodes = self.children(session, &path, until).await.map_err(failed)?;
        let members = queue(&nodes).ok_or_else(|| foreign("inspect"))?;
        let handle = session.handle(until).await.map_err(failed)?;
        let mut seen = Vec::new();
        for batch in members.chunks(BATCH) {
            let reads = batch.iter().map(|member| {
                let read = handle.get_data(&format!("{path}/{}", member.node));
                session.answer(until, read)
            });
            for answer in join_all(reads).await {
                match answer {
                    Ok((data, stat)) => seen.push(Seen {
                        record: Record::decode(&data).ok_or_else(|| foreign("inspect"))?,
                        stat,
                    }),
                    Err(Failure::Refused(zk::Error::NoNode)) if seen.is_empty() => return Ok(None),
                    Err(Failure::Refused(zk::Error::NoNode)) => {}
                    Err(failure) => return Err(failed(failure)),
                }
            }
        }
        Ok(Some(seen))
    }

    fn state(&self, session: &Session, name: &LockName, seen: Vec<Seen>) -> Result<LockState> {
        let mut seen = seen.into_iter();
        let mut holders = Vec::new();
        if let Some(first) = seen.next() {
            holders.push(HolderState {
                nonce: first.record.nonce,
                token: self.token("inspect", session, first.stat.czxid)?,
                age: self.age(first.stat.ctime),
                remaining: Some(first.record.remaining()),
                identity: first.record.identity,
                provisional: false,
            });
        }
        let waiters = seen
            .map(|waiter| WaiterState {
                nonce: waiter.record.nonce,
                age: self.age(waiter.stat.ctime),
                identity: waiter.record.identity,
            })
            .collect();
        let last_token = holders.first().map(|holder| holder.token);
        Ok(LockState {
            name: name.clone(),
            holders,
            waiters,
            last_token,
        })
    }

    /// Lists names in use, a page at a time, in the order of their nodes' names.
    pub(crate) async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        let until = self.patience();
        let failed = |failure: Failure| failure.into_error("list");
        let session = self.session(until).await.map_err(failed)?;
        let mut nodes = self
            .children(&session, LOCKS, until)
            .await
            .map_err(failed)?;
        nodes.sort_unstable();
        let mut wanted = nodes
            .into_iter()
            .filter(|node| cursor.place().is_none_or(|place| node.as_str() > place))
            .filter_map(|node| Some((unescape(&node)?, node)))
            .filter(|(name, _)| name.as_str().starts_with(prefix));
        let batch: Vec<(LockName, String)> = wanted.by_ref().take(BATCH).collect();
        let next = match wanted.next() {
            Some(_) => batch.last().map(|(_, node)| Cursor::at(node.as_str())),
            None => None,
        };
        let handle = session.handle(until).await.map_err(failed)?;
        let looks = batch.iter().map(|(_, node)| {
            let look = handle.check_stat(&format!("{LOCKS}/{node}"));
            session.answer(until, look)
        });
        let mut names = Vec::new();
        for ((name, _), look) in batch.iter().zip(join_all(looks).await) {
            if look
                .map_err(failed)?
                .is_some_and(|stat| stat.num_children > 0)
            {
                names.push(name.clone());
            }
        }
        Ok(Page { names, next })
    }
}
