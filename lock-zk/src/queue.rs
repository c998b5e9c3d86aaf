//! Waiting in a queue: the watch on whoever is next, and the net below it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lock_core::{Claim, Reach, Result};
use tokio::sync::OwnedSemaphorePermit;
use zookeeper_client as zk;

use crate::client::{Client, Position};
use crate::error::Failure;
use crate::node::Node;
use crate::session::{Phase, Session};

/// How often the first waiter looks whether it has missed its turn; the second half as often, and so on.
const LOOK: Duration = Duration::from_millis(750);
/// The longest that a waiter goes without a look; half a session, and so half of any TTL, where that is
/// less.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// After a look that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// How standing in a queue ended.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nobody is ahead any more.
    Ours,
    /// The node is not there any more: its session is over, or somebody has removed it.
    Lost,
}

/// The watch on the node ahead.
struct Ahead {
    node: String,
    /// Whether that is the holder's: when it goes, nobody else is ahead.
    holds: bool,
    gone: BoxFuture<'static, zk::WatchedEvent>,
    /// `None` where the session has no room for another watch: then only looks tell.
    room: Option<OwnedSemaphorePermit>,
}

/// What ended a wait for the node ahead.
enum Woken {
    Gone,
    Changed,
    LookAgain,
    Over,
}

impl Client {
    /// Waits until the claim's node is the first of its queue.
    ///
    /// `position` is where it stood when it was last seen, if it was.
    ///
    /// # Errors
    /// When the queue cannot be read at all, for rights or for what else is in it.
    pub(crate) async fn wait(
        &self,
        claim: &Claim,
        node: &Arc<Node>,
        position: Option<Position>,
    ) -> Result<Turn> {
        let telling = tell_progress(claim, &node.session);
        tokio::select! {
            biased;
            turn = self.wait_quietly(node, position) => turn,
            never = telling => match never {},
        }
    }

    async fn wait_quietly(&self, node: &Arc<Node>, mut position: Option<Position>) -> Result<Turn> {
        let session = &node.session;
        let mut ahead: Option<Ahead> = None;
        loop {
            if session.is_over() {
                return Ok(Turn::Lost);
            }
            let stands = match position.take() {
                Some(stands) => stands,
                None => match self.look(node).await? {
                    Some(stands) => stands,
                    None => {
                        self.context.clock.sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let (count, next) = match stands {
                Position::First => return Ok(Turn::Ours),
                Position::Absent => return Ok(Turn::Lost),
                Position::Behind { ahead, next } => (ahead, next),
            };
            if ahead.as_ref().is_none_or(|ahead| ahead.node != next) {
                // Dropping the watch before takes it back at the server.
                ahead = match self.watch(node, &next).await {
                    Ok(ahead) => Some(ahead),
                    // It has gone: the next look shows who is ahead now.
                    Err(Failure::Refused(zk::Error::NoNode)) => None,
                    Err(refused @ Failure::Refused(_)) => return Err(refused.into_error("acquire")),
                    Err(Failure::Unsent | Failure::Unknown(_)) => {
                        self.context.clock.sleep(PAUSE).await;
                        None
                    }
                };
            }
            let Some(watched) = ahead.as_mut() else {
                continue;
            };
            watched.holds = count == 1;
            match self.woken(session, watched, count).await {
                Woken::Over => return Ok(Turn::Lost),
                // Nobody can have come in between, and nothing was removed by force: our node is first.
                Woken::Gone if watched.holds && session.is_quiet() => return Ok(Turn::Ours),
                Woken::Gone => {
                    ahead = None;
                    // What rang may have removed ours too.
                    let _ = session.quiet(self.patience()).await;
                }
                Woken::Changed => ahead = None,
                Woken::LookAgain if watched.room.is_none() => ahead = None,
                Woken::LookAgain => {}
            }
        }
    }

    /// Where the node stands; `None` when nobody answers now.
    async fn look(&self, node: &Arc<Node>) -> Result<Option<Position>> {
        let session = &node.session;
        let until = self.patience();
        let Some(place) = node.place() else {
            return Ok(Some(Position::Absent));
        };
        let answer = match session.handle(until).await {
            Ok(handle) => {
                session
                    .answer(until, handle.get_children(&node.queue))
                    .await
            }
            Err(failure) => Err(failure),
        };
        match answer {
            Ok((nodes, _)) => Position::of("acquire", &place, &nodes).map(Some),
            Err(Failure::Refused(zk::Error::NoNode)) => Ok(Some(Position::Absent)),
            Err(Failure::Unsent | Failure::Unknown(_)) => Ok(None),
            Err(refused @ Failure::Refused(_)) => Err(refused.into_error("acquire")),
        }
    }

    /// Watches the node ahead.
    async fn watch(&self, node: &Arc<Node>, next: &str) -> Result<Ahead, Failure> {
        let session = &node.session;
        let until = self.patience();
        let handle = session.handle(until).await?;
        let path = format!("{}/{next}", node.queue);
        let Some(room) = session.room_to_watch(&path) else {
            return Ok(Ahead {
                node: next.to_owned(),
                holds: false,
                gone: std::future::pending().boxed(),
                room: None,
            });
        };
        // Not `exists`, which would leave a watch behind on a node that has gone.
        let watch = handle.get_and_watch_data(&path);
        let (_, _, watcher) = session.answer(until, watch).await?;
        Ok(Ahead {
            node: next.to_owned(),
            holds: false,
            gone: watcher.changed().boxed(),
            room: Some(room),
        })
    }

    async fn woken(&self, session: &Session, watched: &mut Ahead, count: usize) -> Woken {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let longest = LONGEST_LOOK.min(session.timeout() / 2);
        let net = LOOK.saturating_mul(count).min(longest);
        tokio::select! {
            biased;
            () = session.ended() => Woken::Over,
            event = &mut watched.gone => match event.event_type {
                zk::EventType::NodeDeleted => Woken::Gone,
                zk::EventType::Session => Woken::Over,
                _ => Woken::Changed,
            },
            () = self.context.clock.sleep(net) => Woken::LookAgain,
        }
    }
}

/// Tells how far a claim in the queue is known to stand there, as long as it is polled.
async fn tell_progress(claim: &Claim, session: &Session) -> std::convert::Infallible {
    let mut phases = session.phases();
    loop {
        let phase = *phases.borrow_and_update();
        claim.progress.report(match phase {
            Phase::Up => Reach::Queued,
            Phase::Away | Phase::Ended => Reach::Adrift,
        });
        if phases.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
