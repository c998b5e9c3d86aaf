//! The tasks of a client: keeping its session alive and opening the next one, ending holds whose time
//! is over, and removing what nobody wants any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use lock_core::{BootInstant, Event, Nonce};
use tracing::{debug, info, warn};
use zookeeper_client as zk;

use crate::client::Client;
use crate::error::Failure;
use crate::name::Member;
use crate::node::LOCKS;
use crate::open;
use crate::session::{Phase, Session, is_terminal};

/// So many heartbeats come in a tick: one counts after its answer, a tick and a part of one.
const BEATS_IN_A_TICK: u32 = 2;
/// A connection that does not answer is not asked without end.
const MOST_BEATS: usize = 32;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a client looks what it owns, besides the renewals that do the same.
const ROUND: Duration = Duration::from_secs(5);
/// How often parents that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(1);
/// How many requests are under way at once for cleaning up.
const BATCH: usize = 128;

/// Keeps a session as long as it lasts, and opens the next one, until the client is closed.
pub(crate) async fn keep(client: Arc<Client>) {
    let clock = client.context.clock.clone();
    loop {
        let session = Arc::clone(&client.session.borrow());
        tokio::select! {
            () = keep_alive(&client, &session) => {}
            () = watch_over(&client, &session) => {}
        }
        session.end();
        let nonces = client.book.session_over(&session);
        if client.is_closing() {
            return;
        }
        warn!(?session, holds = nonces.len(), "session lost");
        // The servers may show their nodes for a while.
        for nonce in &nonces {
            tokio::spawn(insist(Arc::clone(&client), *nonce));
        }
        client.tell(Event::SessionEnded { nonces });
        let mut pause = FIRST_PAUSE;
        let next = loop {
            match open::open(&client.config, &client.context, client.patience()).await {
                Ok(next) => break next,
                Err(error) => warn!(%error, "no session yet"),
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        info!(session = ?next, "session opened");
        client.session.send_replace(next);
        client.tell(Event::Reconnected);
    }
}

/// Sends heartbeats and follows the connection, until the session is over: by the servers' word, or
/// when the servers can have ended it as far as this machine knows.
async fn keep_alive(client: &Client, session: &Session) {
    let clock = &client.context.clock;
    let every = session.tick() / BEATS_IN_A_TICK;
    let mut states = session.states();
    let mut beats = FuturesUnordered::new();
    let mut next_beat = clock.now();
    let mut broken = false;
    loop {
        let deadline = session.deadline();
        let up = session.phase() == Phase::Up;
        let due = session.heartbeat_due(next_beat);
        tokio::select! {
            biased;
            () = session.ended() => return,
            state = states.changed() => {
                if is_terminal(state) {
                    return;
                }
                broken = true;
                if state == zk::SessionState::SyncConnected {
                    session.moved_to(Phase::Up);
                    broken = false;
                    client.tell(Event::Reconnected);
                } else {
                    session.moved_to(Phase::Away);
                }
                // Those of the connection before say nothing about this one.
                beats = FuturesUnordered::new();
                next_beat = clock.now();
            }
            () = clock.sleep_until(deadline) => return,
            Some(sent) = beats.next(), if !beats.is_empty() => {
                if let Some(sent) = sent {
                    session.heartbeat_answered(sent);
                    if std::mem::take(&mut broken) {
                        client.tell(Event::Reconnected);
                    }
                } else {
                    broken = true;
                }
            }
            () = clock.sleep_until(due), if up && beats.len() < MOST_BEATS => {
                let sent = clock.now();
                next_beat = sent + every;
                if let Ok(handle) = session.handle(sent).await {
                    beats.push(beat(handle, sent));
                }
            }
        }
    }
}

/// One heartbeat: through the leader, unlike a ping. Sent at the first poll.
async fn beat(handle: zk::Client, sent: BootInstant) -> Option<BootInstant> {
    handle.sync("/").await.is_ok().then_some(sent)
}

/// Looks into what rings the session's alarms, and at what the session owns: after each connection
/// that was lost, and every now and then.
async fn watch_over(client: &Client, session: &Arc<Session>) {
    let clock = &client.context.clock;
    let identity = client.context.identity.to_string();
    let mut phases = session.phases();
    let mut next_round = clock.now() + ROUND;
    loop {
        let mut broken = false;
        tokio::select! {
            event = session.own_node.rung() => broken = event == zk::EventType::NodeDataChanged,
            _ = session.base_node.rung() => {}
            changed = phases.changed() => {
                if changed.is_err() || session.is_over() {
                    std::future::pending::<()>().await;
                }
            }
            () = clock.sleep_until(next_round) => {}
        }
        next_round = clock.now() + ROUND;
        let until = client.patience();
        let looked = async {
            // Watched again before the look, so that nothing is missed in between.
            open::settle(session, &client.config, &identity, until).await?;
            verify(client, session, broken, until).await
        };
        if let Err(failure) = looked.await {
            debug!(?failure, "what the session owns could not be looked at");
            clock.sleep(FIRST_PAUSE).await;
            next_round = clock.now();
        }
    }
}

/// Compares what the session owns with what is booked: tells of holds that are gone, and removes nodes
/// that nobody wants.
async fn verify(
    client: &Client,
    session: &Arc<Session>,
    broken: bool,
    until: BootInstant,
) -> Result<(), Failure> {
    let holds = client.book.holds_of(session);
    let handle = session.handle(until).await?;
    let owned = session.answer(until, handle.list_ephemerals(LOCKS)).await?;
    let there: HashSet<&str> = owned.iter().map(String::as_str).collect();
    for (nonce, node) in holds {
        let gone = node
            .place()
            .is_some_and(|place| !there.contains(&*place.path));
        if gone && client.lost(nonce, &node) {
            client.tell(match broken {
                true => Event::Broken { nonce },
                false => Event::Gone { nonce },
            });
        }
    }
    remove_strays(client, session, &handle, &owned, until).await;
    Ok(())
}

/// Removes those of the session's nodes that no claim has asked for, or that it has given up.
pub(crate) async fn remove_strays(
    client: &Client,
    session: &Session,
    handle: &zk::Client,
    owned: &[String],
    until: BootInstant,
) {
    let booked: HashSet<Nonce> = client.book.tags();
    let strays: Vec<&String> = owned
        .iter()
        .filter(|path| {
            let member = path.rsplit('/').next().and_then(Member::parse);
            member.is_some_and(|member| !booked.contains(&member.tag))
        })
        .collect();
    for batch in strays.chunks(BATCH) {
        warn!(count = batch.len(), "removing nodes that nobody asked for");
        let deletes = batch.iter().map(|path| {
            let delete = handle.delete(path, None);
            session.answer(until, delete)
        });
        // Those that fail are met again in the next round.
        drop(join_all(deletes).await);
    }
}

/// Gives up claims whose time is over: holds that nobody has renewed, and requests of which nothing
/// was heard.
pub(crate) async fn end_holds(client: Arc<Client>) {
    let clock = client.context.clock.clone();
    loop {
        let sooner = client.book.sooner();
        match client.book.next_end() {
            Some(end) => tokio::select! {
                () = sooner => {}
                () = clock.sleep_until(end) => {}
            },
            None => sooner.await,
        }
        for nonce in client.book.due(clock.now()) {
            debug!(%nonce, "its time is over");
            tokio::spawn(insist(Arc::clone(&client), nonce));
        }
    }
}

/// Gives a claim that is leaving up until that is confirmed.
pub(crate) async fn insist(client: Arc<Client>, nonce: Nonce) {
    let mut pause = FIRST_PAUSE;
    while let Some(booked) = client.book.still_leaving(nonce) {
        let gave_up = client.give_up_booked(nonce, &booked, client.patience());
        let Err(failure) = gave_up.await else {
            return;
        };
        debug!(%nonce, ?failure, "giving it up is tried again");
        client.context.clock.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if client.is_closing() {
            return;
        }
    }
}

/// Removes parents that nobody uses, now and then.
pub(crate) async fn tidy(client: Arc<Client>) {
    loop {
        client.context.clock.sleep(TIDY).await;
        remove_parents(&client, false, client.patience()).await;
    }
}

/// Removes parents that this client has left for a while, or at all.
pub(crate) async fn remove_parents(client: &Client, at_all: bool, until: BootInstant) {
    loop {
        let now = client.now();
        let idle = client.tidy.take(now, BATCH, at_all);
        if idle.is_empty() || now >= until {
            return;
        }
        let used = client.book.queues();
        let Ok(session) = client.session(until).await else {
            return;
        };
        let Ok(handle) = session.handle(until).await else {
            return;
        };
        let deletes = idle
            .iter()
            .filter(|queue| !used.contains(*queue))
            .map(|queue| {
                let delete = handle.delete(queue, None);
                let session = &session;
                async move {
                    // Whatever else goes wrong, the server removes it in its own time.
                    if let Err(Failure::Refused(zk::Error::NotEmpty)) =
                        session.answer(until, delete).await
                    {
                        client.tidy.shared(queue);
                    }
                }
            });
        drop(join_all(deletes).await);
    }
}

#[cfg(test)]
mod tests;
