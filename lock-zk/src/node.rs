//! The request for one node in a queue, and what has become of it.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use lock_core::{BootInstant, LockName, Nonce};
use tokio::sync::watch;
use zookeeper_client as zk;

use crate::error::Failure;
use crate::name::{escape, stem};
use crate::session::Session;

/// Below which the queues are.
pub(crate) const LOCKS: &str = "/l";
/// Below which every client has a node of its own.
pub(crate) const CLIENTS: &str = "/c";
/// Whose data is the largest fence base that was ever set.
pub(crate) const BASE: &str = "/base";

/// The parent of all nodes of this lock.
pub(crate) fn queue_path(name: &LockName) -> String {
    format!("{LOCKS}/{}", escape(name.as_str()))
}

/// Where a node is, and which one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) path: Arc<str>,
    /// The transaction that made it: grows with every transaction of the ensemble.
    pub(crate) czxid: i64,
    /// When that was on the servers' clock, in milliseconds, if it was just now.
    pub(crate) ctime: Option<i64>,
}

impl Place {
    /// The node's own name.
    pub(crate) fn node(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// What is known of a request.
#[derive(Clone, Debug)]
pub(crate) enum Made {
    /// Not answered yet.
    Asked,
    There(Place),
    /// Certainly not there.
    Refused(zk::Error),
    /// Its connection broke: it may be there.
    Unknown,
}

/// The request for one ephemeral node, in one session.
pub(crate) struct Node {
    /// What the node is found by: the nonce that asked for it.
    pub(crate) tag: Nonce,
    /// The path of its parent.
    pub(crate) queue: String,
    pub(crate) session: Arc<Session>,
    /// Before it was sent.
    pub(crate) sent: BootInstant,
    made: watch::Sender<Made>,
}

impl Node {
    pub(crate) fn new(
        tag: Nonce,
        queue: String,
        session: Arc<Session>,
        sent: BootInstant,
    ) -> Arc<Self> {
        Arc::new(Self {
            tag,
            queue,
            session,
            sent,
            made: watch::Sender::new(Made::Refused(zk::Error::NoNode)),
        })
    }

    /// Sends the request, before this returns. Its answer is noted by a task of its own: whoever asks
    /// may be dropped, and the request is executed all the same.
    pub(crate) fn ask(
        self: &Arc<Self>,
        handle: &zk::Client,
        data: Vec<u8>,
        acls: zk::Acls<'static>,
    ) {
        self.made.send_replace(Made::Asked);
        let (node, handle) = (Arc::clone(self), handle.clone());
        let mut asking = async move {
            let path = format!("{}/{}", node.queue, stem(node.tag));
            let options = zk::CreateMode::EphemeralSequential.with_acls(acls);
            let created = tokio::select! {
                biased;
                created = handle.create(&path, &data, &options) => created.map_err(Failure::of),
                () = node.session.ended() => Err(Failure::Unknown(None)),
            };
            let made = match created {
                Ok((stat, sequence)) => Made::There(Place {
                    path: format!("{path}{sequence}").into(),
                    czxid: stat.czxid,
                    ctime: Some(stat.ctime),
                }),
                Err(Failure::Refused(error)) => Made::Refused(error),
                Err(Failure::Unknown(_) | Failure::Unsent) => Made::Unknown,
            };
            node.made.send_replace(made);
        }
        .boxed();
        // The first poll sends.
        if (&mut asking).now_or_never().is_none() {
            tokio::spawn(asking);
        }
    }

    pub(crate) fn made(&self) -> Made {
        self.made.borrow().clone()
    }

    /// Waits for an answer, or until the connection breaks.
    pub(crate) async fn answered(&self) -> Made {
        let mut made = self.made.subscribe();
        let answered = made.wait_for(|made| !matches!(made, Made::Asked)).await;
        // The sender lives in `self`.
        answered.map_or(Made::Unknown, |made| made.clone())
    }

    /// Where it is, if that is known.
    pub(crate) fn place(&self) -> Option<Place> {
        match &*self.made.borrow() {
            Made::There(place) => Some(place.clone()),
            Made::Asked | Made::Refused(_) | Made::Unknown => None,
        }
    }

    /// Takes note of what a search has found.
    pub(crate) fn found(&self, made: Made) {
        self.made.send_replace(made);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("tag", &self.tag)
            .field("made", &self.made())
            .finish_non_exhaustive()
    }
}
