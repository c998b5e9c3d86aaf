//! Keeping leases: for the locks that core renews, and for those who wait.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::GetOptions;
use futures_util::future::join_all;
use lock_core::{BootInstant, Error, ErrorKind, Event, Grant, Nonce, Renewal, Result};
use tokio::sync::{MutexGuard, mpsc};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::connection::Stopped;
use crate::endpoint::{Calls, term_of};
use crate::error::unavailable;
use crate::lease::{Extension, Lease};
use crate::txn::{self, Held, MOST_OPERATIONS};

/// How long a shared lease stays that nobody uses.
const IDLE: Duration = Duration::from_secs(10);
/// When the renewal of a waiter's lease is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often leases and watches are looked over when nothing is planned.
const ROUND: Duration = Duration::from_secs(1);
/// The shortest pause between two such rounds.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// How often a keep-alive is repeated that a change of leaders has made worthless.
const MOST_REPEATS: u32 = 3;

impl Client {
    /// Asks the server for a new lease, in a task of its own.
    pub(crate) fn spawn_grant(self: &Arc<Self>, lease: Arc<Lease>) {
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let connection = &client.connection;
            let by = client.by();
            let asked = i64::try_from(lease.asked).unwrap_or(i64::MAX);
            let sent = std::sync::Mutex::new(client.now());
            let id = lease.id;
            let granting = |calls: &Calls| {
                let calls = calls.clone();
                // The one that is answered was sent last.
                if let Ok(mut sent) = sent.lock() {
                    *sent = connection.clock.now();
                }
                async move {
                    let options = etcd_client::LeaseGrantOptions::new().with_id(id);
                    let granted = calls.lease().grant(asked, Some(options)).await?;
                    calls.heard(granted.header());
                    Ok(granted)
                }
            };
            let answer = connection.call("acquire", by, granting).await;
            let sent = sent
                .into_inner()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            match answer {
                Ok(granted) => {
                    let ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default());
                    lease.granted(sent, client.now(), ttl);
                    // Its claim was dropped meanwhile: it may have been revoked before it was there.
                    if lease.is_over() {
                        client.leases.revoke(lease.id);
                    }
                }
                Err(stopped) => {
                    let certain = stopped.is_certain();
                    // Nothing of the lock itself was asked for on the strength of this.
                    let error = stopped.into_error("acquire");
                    let error = match error.kind() {
                        ErrorKind::Indeterminate => {
                            unavailable("acquire", "no answer to the request for a lease")
                                .with_source(error)
                        }
                        _ => error,
                    };
                    lease.failed(error);
                    if !certain {
                        client.leases.revoke(lease.id);
                    }
                }
            }
        });
    }

    /// Sends one keep-alive. `None` when the lease does not exist any more.
    async fn keep_alive(
        self: &Arc<Self>,
        lease: &Lease,
        by: BootInstant,
    ) -> Result<Option<Extension>> {
        let id = lease.id;
        let sent = self.now();
        // A stream of its own for each: it cannot fall silent between two.
        let keeping = |calls: &Calls| {
            let calls = calls.clone();
            async move {
                // What another connection has heard says nothing of what this one's member knows.
                let term = calls.term();
                calls.lease().keep_alive(id).await.map(|_| term)
            }
        };
        match self.connection.call("renew", by, keeping).await {
            Ok(term) => Ok(Some(Extension {
                sent,
                received: self.now(),
                term,
            })),
            Err(stopped) if stopped.is_lease_gone() => Ok(None),
            Err(stopped) => Err(stopped.into_error("renew")),
        }
    }

    /// Waits until no other keep-alive of this lease is under way.
    async fn turn<'a>(&self, lease: &'a Lease, by: BootInstant) -> Result<MutexGuard<'a, ()>> {
        let turn = self.connection.clock.timeout_at(by, lease.extending.lock());
        let turn = turn.await;
        turn.ok_or_else(|| unavailable("renew", "an earlier keep-alive is not answered"))
    }

    /// Renews a lease that has aged; whether it was there to be renewed.
    pub(crate) async fn extend(self: &Arc<Self>, lease: &Arc<Lease>) -> Result<bool> {
        // In time for another one, if there is no answer.
        let by = self.by().min(self.now() + lease.ttl() / 3);
        let _one_at_a_time = self.turn(lease, by).await?;
        if lease.ages_at().is_some_and(|at| at > self.now()) {
            // By whoever had the turn before.
            return Ok(!lease.is_over());
        }
        for _ in 0..MOST_REPEATS {
            let Some(extension) = self.keep_alive(lease, by).await? else {
                self.lease_ended(lease, &[]);
                return Ok(false);
            };
            let term = self.confirmed_term(by).await?;
            if lease.extended(extension, term) {
                return Ok(true);
            }
        }
        Err(unavailable("renew", "the leader keeps changing"))
    }

    /// The term that a quorum confirms now.
    async fn confirmed_term(&self, by: BootInstant) -> Result<u64> {
        let inbox = self.keys.inbox();
        let reading = |calls: &Calls| {
            let (calls, inbox) = (calls.clone(), inbox.clone());
            let options = GetOptions::new().with_count_only();
            async move {
                let read = calls.kv().get(inbox, Some(options)).await?;
                calls.heard(read.header());
                Ok(term_of(read.header()))
            }
        };
        let read = self.connection.call("renew", by, reading).await;
        read.map_err(|stopped| stopped.into_error("renew"))
    }

    /// Renews the locks of one lease: one keep-alive, and then a look at the keys, which also tells
    /// whether the keep-alive counts.
    pub(crate) async fn renew_lease(
        self: &Arc<Self>,
        lease: &Arc<Lease>,
        grants: &[(Nonce, Held)],
    ) -> Vec<Result<Renewal>> {
        let all = |answer: Result<Renewal>| vec![answer; grants.len()];
        if lease.is_over() {
            return all(Ok(Renewal::Gone));
        }
        let by = self.by();
        let _one_at_a_time = match self.turn(lease, by).await {
            Ok(turn) => turn,
            Err(error) => return all(Err(error)),
        };
        for _ in 0..MOST_REPEATS {
            let extension = match self.keep_alive(lease, by).await {
                Ok(Some(extension)) => extension,
                Ok(None) => {
                    let asked: Vec<Nonce> = grants.iter().map(|(nonce, _)| *nonce).collect();
                    self.lease_ended(lease, &asked);
                    return all(Ok(Renewal::Gone));
                }
                Err(error) => return all(Err(error)),
            };
            let (there, term) = match self.still_there(grants, by).await {
                Ok(found) => found,
                Err(stopped) => return all(Err(stopped.into_error("renew"))),
            };
            if !lease.extended(extension, term) {
                continue;
            }
            let Some(validity) = lease.validity() else {
                break;
            };
            let renewal = |there: &bool| match there {
                true => Ok(Renewal::Extended(validity)),
                false => Ok(Renewal::Gone),
            };
            return there.iter().map(renewal).collect();
        }
        all(Err(unavailable("renew", "the leader keeps changing")))
    }

    /// Which of these keys are there, and the latest term in which that was read. The leases' own list of keys would not do: a leader that lags
    /// behind, or one that was deposed, answers it by itself.
    async fn still_there(
        &self,
        grants: &[(Nonce, Held)],
        by: BootInstant,
    ) -> Result<(Vec<bool>, u64), Stopped> {
        let batches = grants.chunks(MOST_OPERATIONS);
        let reads = batches.map(|batch| async move {
            let request = txn::verify(batch.iter().map(|(_, held)| held));
            let mut found = self.txn("renew", request, by).await?;
            let mut there = Vec::with_capacity(batch.len());
            for (_, held) in batch {
                let own = found.one().map_err(Stopped::Early)?;
                there.push(own.is_some_and(|own| own.create_revision() == held.created));
            }
            Ok((there, found.term))
        });
        let read: Result<Vec<_>, Stopped> = join_all(reads).await.into_iter().collect();
        let (there, terms): (Vec<Vec<bool>>, Vec<u64>) = read?.into_iter().unzip();
        Ok((there.concat(), terms.into_iter().max().unwrap_or_default()))
    }

    /// A lease does not exist any more. Its locks are lost; those in `asked` are about to hear of it.
    pub(crate) fn lease_ended(self: &Arc<Self>, lease: &Lease, asked: &[Nonce]) {
        if !lease.end() {
            return;
        }
        tracing::info!(lease = lease.id, "a lease has ended");
        let mut nonces = self.book.lease_over(lease.id, self.now());
        nonces.retain(|nonce| !asked.contains(nonce));
        if !nonces.is_empty() {
            self.tell(Event::SessionEnded { nonces });
        }
        // A leader that is new to its office may have spoken of it too early.
        self.leases.revoke(lease.id);
    }

    /// Renews what core gave us, lease by lease.
    pub(crate) async fn renew(self: &Arc<Self>, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut answers: Vec<Result<Renewal>> = vec![Ok(Renewal::Gone); grants.len()];
        let mut batches: Vec<Batch> = Vec::new();
        for (at, grant) in grants.iter().enumerate() {
            let nonce = grant.claim().nonce;
            let Some((held, lease)) = self.book.held(nonce) else {
                continue;
            };
            let known = batches.iter().position(|batch| batch.lease.id == lease.id);
            let batch = known.unwrap_or_else(|| {
                batches.push(Batch::new(lease));
                batches.len() - 1
            });
            batches[batch].places.push(at);
            batches[batch].locks.push((nonce, held));
        }
        let renewals = batches
            .iter()
            .map(|batch| self.renew_lease(&batch.lease, &batch.locks));
        for (batch, renewed) in batches.iter().zip(join_all(renewals).await) {
            for (at, answer) in batch.places.iter().zip(renewed) {
                answers[*at] = answer;
            }
        }
        let named = |(answer, grant): (Result<Renewal>, &&Grant)| {
            answer.map_err(|error: Error| error.with_name(&grant.claim().name))
        };
        answers.into_iter().zip(grants).map(named).collect()
    }
}

/// The locks of one lease, and where their answers go.
struct Batch {
    lease: Arc<Lease>,
    places: Vec<usize>,
    locks: Vec<(Nonce, Held)>,
}

impl Batch {
    fn new(lease: Arc<Lease>) -> Self {
        Self {
            lease,
            places: Vec::new(),
            locks: Vec::new(),
        }
    }
}

/// Renews the leases of waiters, and gives up what is idle, for as long as the client lives.
pub(crate) async fn keep(client: Arc<Client>) {
    let clock = &client.connection.clock;
    let (mut renewals, mut under_way) = (JoinSet::new(), HashSet::new());
    loop {
        while let Some(Ok(lease)) = renewals.try_join_next() {
            under_way.remove(&lease);
        }
        let now = clock.now();
        let mut next = now + ROUND;
        for due in [
            client.leases.end_idle(IDLE),
            client.book.end_idle_watches(now),
        ] {
            next = due.map_or(next, |due| next.min(due));
        }
        for lease in client.book.waited_on() {
            if lease.is_over() || under_way.contains(&lease.id) {
                continue;
            }
            match lease.ages_at() {
                Some(ages_at) if ages_at <= now => {
                    under_way.insert(lease.id);
                    // One that is not answered holds up no other.
                    renewals.spawn(renew_waited_on(Arc::clone(&client), lease));
                }
                Some(ages_at) => next = next.min(ages_at),
                None => {}
            }
        }
        // However many begin to wait, they are not looked over more often than this.
        clock.sleep(LEAST_PAUSE).await;
        tokio::select! {
            biased;
            () = clock.sleep_until(next) => {}
            () = client.book.lease_waited_on() => {}
            Some(renewed) = renewals.join_next() => {
                if let Ok(lease) = renewed {
                    under_way.remove(&lease);
                }
            }
        }
    }
}

/// Renews the lease of a waiter; answers which one when it may be looked at again.
async fn renew_waited_on(client: Arc<Client>, lease: Arc<Lease>) -> i64 {
    if let Err(error) = client.extend(&lease).await {
        tracing::debug!(%error, "the lease of a waiter was not renewed");
        client.connection.clock.sleep(RETRY).await;
    }
    lease.id
}

/// Revokes leases that nobody needs, for as long as the client lives. One that cannot be revoked ends
/// with its TTL.
pub(crate) async fn revoke(client: Arc<Client>, mut done: mpsc::UnboundedReceiver<i64>) {
    while let Some(lease) = done.recv().await {
        // One that is not answered holds up no other.
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            // Logged where it failed.
            let _ = client.revoke_now(lease).await;
            client.leases.revoked();
        });
    }
}

impl Client {
    /// A new lease, which nobody keeps.
    pub(crate) async fn lease_apart(&self, secs: u64) -> Result<i64> {
        let secs = i64::try_from(secs).unwrap_or(i64::MAX);
        let granting = |calls: &Calls| {
            let mut leases = calls.lease();
            async move { leases.grant(secs, None).await }
        };
        let granted = self.connection.call("release", self.by(), granting).await;
        granted
            .map(|granted| granted.id())
            .map_err(|stopped| stopped.into_error("release"))
    }

    /// Whether the lease is certainly not there any more.
    pub(crate) async fn revoke_now(&self, lease: i64) -> Result<()> {
        let revoking = |calls: &Calls| {
            let mut leases = calls.lease();
            async move { leases.revoke(lease).await }
        };
        match self.connection.call("release", self.by(), revoking).await {
            Ok(_) => Ok(()),
            Err(stopped) if stopped.is_lease_gone() => Ok(()),
            Err(stopped) => {
                let error = stopped.into_error("release");
                tracing::debug!(lease, %error, "a lease was not revoked");
                Err(error)
            }
        }
    }
}
