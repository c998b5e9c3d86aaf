//! The one watch stream of a client, and the task that keeps it.
//!
//! A stream does not outlive its connection, does not resume by itself, and can fall silent. None of
//! that loses a waiter its place: a new stream is opened, everything is watched anew from "now" (the
//! server takes up to 100 ms for a watch that begins in the past), and every waiter looks once.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    EventType, GetOptions, GetResponse, WatchFilterType, WatchOptions, WatchRequestSender,
    WatchResponse, WatchResponseStream,
};
use lock_core::{Error, ErrorKind, Event, Result};
use tokio::sync::mpsc;

use crate::book::Due;
use crate::client::Client;
use crate::connection::Live;
use crate::endpoint::Calls;
use crate::error::{Failure, Meaning, unavailable};
use crate::follow::{INBOX, Order};

/// The pause before a stream is opened again, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A stream that ended sooner than this counts as a failed attempt.
const STABLE: Duration = Duration::from_secs(1);
/// A stream is replaced when it has missed so many deletions in a row, and is that old. One alone may
/// have been on its way.
const MOST_MISSED: u32 = 2;
const LEAST_AGE: Duration = Duration::from_secs(2);

/// A stream on which the inbox is watched.
pub(crate) struct Stream {
    connection: u64,
    calls: Calls,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
}

/// Opens a stream, within the call timeout. On `Ok` the server watches the inbox.
pub(crate) async fn open(client: &Client, live: Live) -> Result<Stream> {
    let connection = &client.connection;
    let (id, calls) = (live.id, live.calls);
    let opening = async {
        let mut watch = calls.watch.clone();
        let options = WatchOptions::new()
            .with_watch_id(INBOX)
            .with_filters([WatchFilterType::NoDelete]);
        let stream = watch
            .watch(client.keys.inbox(), Some(options))
            .await
            .map_err(|source| Failure::from(source).into_error("watch"))?;
        let (requests, mut responses) = stream.split();
        let first = responses
            .message()
            .await
            .map_err(|source| Failure::from(source).into_error("watch"))?;
        match first {
            Some(answer) if answer.created() && !answer.canceled() => Ok(Stream {
                connection: id,
                calls: calls.clone(),
                requests,
                responses,
            }),
            // A token that is too old looks like a missing right here.
            Some(answer) => {
                let denied = Error::new(ErrorKind::Denied, "watch")
                    .with_detail(answer.cancel_reason().to_owned());
                match calls.log_in_again().await {
                    Err(failure) if failure.meaning == Meaning::Denied => {
                        Err(failure.into_error("watch"))
                    }
                    _ => Err(denied),
                }
            }
            None => Err(unavailable("watch", "the stream ended")),
        }
    };
    let opened = connection
        .clock
        .timeout(connection.call_timeout, opening)
        .await;
    opened.unwrap_or_else(|| {
        connection.lost(id, "no answer to a watch");
        Err(unavailable("watch", "no answer in time"))
    })
}

/// Keeps a stream open for as long as the client lives, beginning with `stream`.
pub(crate) async fn keep(
    client: Arc<Client>,
    stream: Stream,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let clock = client.connection.clock.clone();
    let mut next = Some(stream);
    let mut pause = BACKOFF.0;
    loop {
        if let Some(stream) = next.take() {
            let since = clock.now();
            serve(&client, stream, &mut orders).await;
            if clock.now().saturating_since(since) >= STABLE {
                pause = BACKOFF.0;
            }
        }
        clock.sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
        let Some(live) = client.connection.up().await else {
            return;
        };
        match open(&client, live).await {
            Ok(stream) => {
                next = Some(stream);
                // Pushes may have been lost: holds are verified, and waiters look.
                client.tell(Event::Reconnected);
                client.book.look_all(clock.now());
            }
            Err(error) => tracing::debug!(%error, "no watch stream"),
        }
    }
}

/// Serves a stream until it ends or is of no more use.
async fn serve(
    client: &Arc<Client>,
    mut stream: Stream,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) {
    let clock = &client.connection.clock;
    let opened = clock.now();
    // Whatever was ordered until now is among what is to be watched anyway.
    while orders.try_recv().is_ok() {}
    for order in client.book.watch_again() {
        if !say(client, &mut stream.requests, order).await {
            return;
        }
    }
    let mut missed = 0;
    loop {
        tokio::select! {
            response = stream.responses.message() => {
                let Ok(Some(response)) = response else { return };
                if !response.events().is_empty() {
                    missed = 0;
                }
                match hear(client, &stream.calls, &response) {
                    Heard::Fine => {}
                    Heard::Say(order) => {
                        if !say(client, &mut stream.requests, order).await {
                            return;
                        }
                    }
                    Heard::Ended => return,
                }
            }
            Some(order) = orders.recv() => {
                if !say(client, &mut stream.requests, order).await {
                    return;
                }
            }
            () = client.connection.replaced(stream.connection) => return,
            () = client.missed.notified() => {
                missed += 1;
                if missed >= MOST_MISSED && clock.now().saturating_since(opened) >= LEAST_AGE {
                    tracing::debug!("the watch has missed something");
                    return;
                }
            }
        }
    }
}

/// Whether it could be said.
async fn say(client: &Client, requests: &mut WatchRequestSender, order: Order) -> bool {
    let connection = &client.connection;
    let saying = async {
        match order {
            Order::Watch { id, start } => {
                let options = WatchOptions::new()
                    .with_prefix()
                    .with_watch_id(id)
                    .with_filters([WatchFilterType::NoPut]);
                requests.watch(start, Some(options)).await
            }
            Order::Cancel { id } => requests.cancel(id).await,
        }
    };
    let said = connection
        .clock
        .timeout(connection.call_timeout, saying)
        .await;
    matches!(said, Some(Ok(())))
}

/// The holder before `next` is gone, so `next` holds the lock if its own key was there at that
/// revision: somebody may have deleted both. The member that has told us of one knows of the other, so
/// it is asked for what it has, without a quorum.
async fn confirm(client: Arc<Client>, calls: Calls, next: Due, revision: i64) {
    let mut kv = calls.kv;
    let options = GetOptions::new().with_keys_only().with_serializable();
    let reading = kv.get(next.held.key.clone(), Some(options));
    let connection = &client.connection;
    let read = connection
        .clock
        .timeout(connection.call_timeout, reading)
        .await;
    let is_there = |found: &GetResponse| {
        let recent = found
            .header()
            .is_some_and(|header| header.revision() >= revision);
        let own = found.kvs().first();
        recent && own.is_some_and(|own| own.create_revision() == next.held.created)
    };
    match read {
        Some(Ok(found)) if is_there(&found) => client.book.next_in_line(&next, client.now()),
        _ => client.book.look_at(next.claim.nonce, client.now()),
    }
}

enum Heard {
    Fine,
    Say(Order),
    Ended,
}

fn hear(client: &Arc<Client>, calls: &Calls, response: &WatchResponse) -> Heard {
    let now = client.connection.clock.now();
    let id = response.watch_id();
    if response.canceled() {
        // By our own order, because of a compaction, for want of a right or of a leader.
        return match client.book.watch_refused(id) {
            _ if id == INBOX || id < 0 => Heard::Ended,
            Some(_) if !response.cancel_reason().is_empty() && response.compact_revision() == 0 => {
                tracing::warn!(reason = response.cancel_reason(), "a watch was refused");
                Heard::Ended
            }
            Some(order) => Heard::Say(order),
            None => Heard::Fine,
        };
    }
    if response.created() {
        let revision = response
            .header()
            .map_or(i64::MAX, etcd_client::ResponseHeader::revision);
        client.book.watch_confirmed(id, revision, now);
        return Heard::Fine;
    }
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        match event.event_type() {
            EventType::Delete => {
                let revision = kv.mod_revision();
                for next in client.book.deleted(id, kv.key(), revision, now) {
                    tokio::spawn(confirm(Arc::clone(client), calls.clone(), next, revision));
                }
            }
            EventType::Put if id == INBOX => client.told_of_break(kv),
            EventType::Put => {}
        }
    }
    Heard::Fine
}
