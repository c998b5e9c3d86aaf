//! The renewal of places in queues: the net under every push, and what keeps a waiter a waiter.
//!
//! All places of a partition that are due go in one script. It answers for each whether the claim
//! still waits, holds by now, or is not known any more; and it hands on locks whose holder has died.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lock_core::{Claim, Error, ErrorKind, Reach, Result};

use crate::client::Client;
use crate::error::protocol;
use crate::key::partition;
use crate::reply::{self, Reply};
use crate::scripts;

/// Places that are due this much later are renewed together with the first one.
const TOGETHER: Duration = Duration::from_millis(10);
/// When a renewal is tried again that failed though the connection is there.
const RETRY: Duration = Duration::from_millis(250);
/// How many places one script renews at most: it blocks the server while it runs.
const LARGEST_BATCH: usize = 128;

/// Renews places for as long as the client lives.
pub(crate) async fn keep(client: Arc<Client>) {
    let clock = &client.connection.clock;
    loop {
        let next = client.inbox.next_due();
        let due = async {
            match next {
                Some(next) => clock.sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            // Look again at what is due next.
            () = client.inbox.hurried() => {}
        }
        let mut partitions: BTreeMap<u64, Vec<Claim>> = BTreeMap::new();
        let now = clock.now();
        if client.inbox.next_due().is_none_or(|next| next > now) {
            continue;
        }
        for claim in client.inbox.take_due(now + TOGETHER) {
            partitions
                .entry(partition(&claim.name))
                .or_default()
                .push(claim);
        }
        let batches: Vec<&[Claim]> = partitions
            .values()
            .flat_map(|claims| claims.chunks(LARGEST_BATCH))
            .collect();
        join_all(batches.into_iter().map(|batch| renew(&client, batch))).await;
    }
}

async fn renew(client: &Client, claims: &[Claim]) {
    let mut call = client.script(&scripts::PLACE);
    for claim in claims {
        call = call.keys(client.lock_keys(&claim.name)).arg(claim.nonce);
    }
    let answer = match client.call("acquire", &call).await {
        Ok(answer) => answer,
        Err(error) => {
            for claim in claims {
                failed(client, claim, &error);
            }
            return;
        }
    };
    let replies = match reply::list("acquire", &answer.value) {
        Ok(replies) if replies.len() == claims.len() => replies,
        _ => {
            let error = protocol("acquire", format!("answer {:?}", answer.value));
            for claim in claims {
                failed(client, claim, &error);
            }
            return;
        }
    };
    let mut forgotten = Vec::new();
    for (claim, value) in claims.iter().zip(replies) {
        let settled = match Reply::read("acquire", value) {
            Ok(Reply::Gone) => {
                forgotten.push(claim);
                Ok(())
            }
            Ok(reply) => client.settle(claim, reply, &answer),
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            failed(client, claim, &error);
        }
    }
    join_all(forgotten.into_iter().map(|claim| join(client, claim))).await;
}

/// The server has forgotten this claim: it lost its data, or the claim could not be renewed for
/// longer than its lease. It joins the queue again, at its end.
async fn join(client: &Client, claim: &Claim) {
    tracing::debug!(name = %claim.name, nonce = %claim.nonce, "place lost, joining the queue again");
    if let Err(error) = join_again(client, claim).await {
        failed(client, claim, &error);
    }
}

async fn join_again(client: &Client, claim: &Claim) -> Result<()> {
    let answer = client.claim_again(claim).await?;
    client.settle(claim, Reply::read("acquire", &answer.value)?, &answer)
}

fn failed(client: &Client, claim: &Claim, error: &Error) {
    match error.kind() {
        // An operator may set a right again, so a waiter lives through that for as long as core
        // lets it.
        ErrorKind::Unavailable | ErrorKind::Indeterminate | ErrorKind::Denied => {
            claim.progress.report(Reach::Adrift);
            let at = client.connection.clock.now() + RETRY;
            client.inbox.retry(claim.nonce, at);
        }
        _ => client
            .inbox
            .fail(claim.nonce, error.clone().with_name(&claim.name)),
    }
}
