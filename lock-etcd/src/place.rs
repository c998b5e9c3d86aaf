//! The look at places in queues: the net under the watch, and what keeps a waiter a waiter.
//!
//! All places of a client that are due are read in one transaction, which writes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lock_core::{ErrorKind, Result};

use crate::book::Due;
use crate::client::Client;
use crate::txn::{self, Answers, LOOK_OPERATIONS, MOST_OPERATIONS};
use crate::wait::Ahead;

/// Places that are due this much later are looked at together with the first one: a client that waits
/// for many locks asks a few times a second, not once for each.
const TOGETHER: Duration = Duration::from_millis(200);
/// When a look is repeated that failed though there is a connection.
const RETRY: Duration = Duration::from_millis(250);

/// Looks at places for as long as the client lives.
pub(crate) async fn keep(client: Arc<Client>) {
    let clock = &client.connection.clock;
    loop {
        let next = client.book.next_due();
        let due = async {
            match next {
                Some(next) => clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            // Look again at what is due next.
            () = client.book.hurried() => {}
        }
        let now = clock.now();
        if client.book.next_due().is_none_or(|next| next > now) {
            continue;
        }
        let places = client.book.take_due(now + TOGETHER);
        let batches = places.chunks(MOST_OPERATIONS / LOOK_OPERATIONS);
        join_all(batches.map(|batch| look(&client, batch))).await;
    }
}

async fn look(client: &Arc<Client>, places: &[Due]) {
    let request = txn::look(places.iter().map(|due| (&due.held, due.name.as_slice())));
    let answers = client.read("acquire", request).await;
    let mut found = match answers {
        Ok(answers) => answers,
        Err(error) => {
            for due in places {
                failed(client, due, &error);
            }
            return;
        }
    };
    for due in places {
        if let Err(error) = settle(client, due, &mut found) {
            failed(client, due, &error);
        }
    }
}

fn settle(client: &Arc<Client>, due: &Due, found: &mut Answers) -> Result<()> {
    let now = client.connection.clock.now();
    let (own, before, first) = (found.one()?, found.get()?, found.one()?);
    let there = own.is_some_and(|own| own.create_revision() == due.held.created);
    if !there {
        tracing::debug!(name = %due.claim.name, nonce = %due.claim.nonce, "place lost, joining the queue again");
        client.join_again(&due.claim);
        return Ok(());
    }
    let ahead = match before.kvs().first() {
        None => None,
        Some(kv) => Some(Ahead {
            holds: first.is_some_and(|first| first.create_revision() == kv.create_revision()),
            ..client.ahead("acquire", kv, before.count(), found.revision)?
        }),
    };
    if client.book.looked(due, ahead, now) {
        client.missed.notify_one();
    }
    Ok(())
}

fn failed(client: &Client, due: &Due, error: &lock_core::Error) {
    let now = client.connection.clock.now();
    match error.kind() {
        // An operator may set a right again, so a waiter lives through that for as long as core
        // lets it.
        ErrorKind::Unavailable | ErrorKind::Indeterminate | ErrorKind::Denied => {
            client.book.retry(due.claim.nonce, now + RETRY);
        }
        _ => {
            let error = error.clone().with_name(&due.claim.name);
            client.book.fail(due.claim.nonce, error, now);
        }
    }
}

/// Who is before a claim, from its own key and how many there are.
impl Client {
    pub(crate) fn ahead(
        &self,
        op: &'static str,
        kv: &etcd_client::KeyValue,
        count: i64,
        seen: i64,
    ) -> Result<Ahead> {
        // Something else under a lock's name is in the way for good.
        let parts = self.keys.parts(kv.key());
        let (Some(parts), Some(_)) = (parts, crate::record::Record::decode(kv.value())) else {
            return Err(lock_core::Error::new(ErrorKind::WrongType, op));
        };
        Ok(Ahead {
            key: kv.key().to_vec(),
            created: kv.create_revision(),
            start: self.keys.start_of(parts),
            holds: false,
            seen,
            place: u32::try_from(count - 1).unwrap_or(u32::MAX).max(1),
        })
    }
}
