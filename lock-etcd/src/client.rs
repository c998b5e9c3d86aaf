//! One client: what is sent for it, and what comes back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcd_client::{GetResponse, KeyValue, Txn};
use lock_core::{
    BootInstant, Claim, Error, ErrorKind, Event, Lease as Keeping, Nonce, Reach, Result,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::base::Learned;
use crate::book::{Asked, Book, Outcome};
use crate::connection::{Connection, Stopped};
use crate::endpoint::{Calls, nothing_asked};
use crate::error::{protocol, unavailable};
use crate::key::{Came, Keys};
use crate::lease::{Chosen, Lease, LeaseUse, Leases};
use crate::record::Record;
use crate::txn::{self, Answers, Held, Put};
use crate::wait::Ahead;

/// How long a request waits for the answer to the grant of its new lease, before it follows it
/// unheard: on a slow network the two cost one round trip together.
const HEAD_START: Duration = Duration::from_millis(25);

/// What the backend and its tasks share.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) connection: Arc<Connection>,
    pub(crate) keys: Keys,
    pub(crate) book: Book,
    pub(crate) leases: Arc<Leases>,
    /// A look has found what the watch should have told.
    pub(crate) missed: Notify,
    events: mpsc::UnboundedSender<Event>,
}

/// How a claim asks for the lock.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// If it is free.
    Try,
    /// And queues otherwise.
    Join,
    /// In the place of a hold of this client, which ends. `released` is set when the answer says
    /// whether it was there.
    Pass {
        held: Held,
        released: Arc<OnceLock<bool>>,
    },
}

impl Client {
    pub(crate) fn new(
        connection: Arc<Connection>,
        keys: Keys,
        book: Book,
        leases: Arc<Leases>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            connection,
            keys,
            book,
            leases,
            missed: Notify::new(),
            events,
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listens any more when the client is being closed.
        let _ = self.events.send(event);
    }

    pub(crate) fn now(&self) -> BootInstant {
        self.connection.clock.now()
    }

    /// When a call that begins now has to be answered.
    pub(crate) fn by(&self) -> BootInstant {
        self.now() + self.connection.call_timeout
    }

    /// Runs a transaction.
    pub(crate) async fn txn(
        &self,
        op: &'static str,
        txn: Txn,
        by: BootInstant,
    ) -> Result<Answers, Stopped> {
        let sent = |calls: &Calls| {
            let (calls, txn) = (calls.clone(), txn.clone());
            async move {
                let response = calls.kv().txn(txn).await?;
                calls.heard(response.header());
                Ok(response)
            }
        };
        let response = self.connection.call(op, by, sent).await?;
        Answers::of(op, &response).map_err(Stopped::Early)
    }

    /// Runs a transaction that changes nothing, or nothing if it is run late.
    pub(crate) async fn read(&self, op: &'static str, txn: Txn) -> Result<Answers> {
        self.txn(op, txn, self.by())
            .await
            .map_err(|stopped| stopped.into_error(op))
    }

    /// Reads what is added to revisions, and raises it to `wanted` if it is less.
    pub(crate) async fn learn_base(&self, wanted: u64) -> Result<()> {
        let by = self.by();
        loop {
            let base = self.book.bases.latest();
            let look = Txn::new().and_then([base.look()]);
            let found = self.txn("connect", look, by).await;
            let mut found = found.map_err(|stopped| stopped.into_error("connect"))?;
            self.book.bases.learn(found.one()?.as_ref())?;
            let base = self.book.bases.latest();
            if base.value >= wanted {
                return Ok(());
            }
            let raised = self.txn("connect", base.raise(wanted), by).await;
            // Whether it was raised, by us or by another, is seen by the next look.
            raised.map_err(|stopped| nothing_asked(stopped.into_error("connect")))?;
        }
    }

    /// A lease for `claim`; what is granted on it is made whole by [`freshen`](Self::freshen).
    pub(crate) async fn lease_for(self: &Arc<Self>, claim: &Claim) -> Result<LeaseUse> {
        let secs = claim.ttl.as_secs();
        let Chosen { lease, new } = match claim.lease {
            Keeping::Kept => self.leases.shared(secs),
            Keeping::Fixed => self.leases.own(secs),
        };
        if new {
            self.spawn_grant(Arc::clone(&lease));
        }
        let known = lease.confirmed();
        if let Some(known) = self.connection.clock.timeout(HEAD_START, known).await {
            known?;
        }
        Ok(lease)
    }

    /// Registers `claim` and asks for the lock in a task of its own: what a dropped caller leaves
    /// behind is then known, and not guessed at. From here to the task's start there is no await.
    pub(crate) fn ask(self: &Arc<Self>, claim: &Claim, lease: LeaseUse, ask: Ask) -> Result<()> {
        let came = match ask {
            Ask::Try | Ask::Join => Came::Joined,
            Ask::Pass { .. } => Came::Passed,
        };
        self.book.begin(claim, lease, came)?;
        claim.progress.report(Reach::Sent);
        self.spawn_asking(claim, ask);
        Ok(())
    }

    fn spawn_asking(self: &Arc<Self>, claim: &Claim, ask: Ask) {
        let (client, claim) = (Arc::clone(self), claim.clone());
        tokio::spawn(async move {
            let asked = client.asked(&claim, ask).await;
            client.book.asked(claim.nonce, asked, client.now());
        });
    }

    /// The server has forgotten a waiting claim: its lease is over, or somebody has deleted its key.
    /// It joins the queue again, at its end.
    pub(crate) fn join_again(self: &Arc<Self>, claim: &Claim) {
        if self.book.begin_again(claim.nonce, self.now()) {
            let (client, claim) = (Arc::clone(self), claim.clone());
            tokio::spawn(async move {
                let asked = client.asked(&claim, Ask::Join).await;
                client.book.asked(claim.nonce, asked, client.now());
            });
        }
    }

    /// Asks until there is an answer that counts.
    async fn asked(self: &Arc<Self>, claim: &Claim, ask: Ask) -> Asked {
        let by = self.by();
        while self.now() < by {
            let Some((put, lease)) = self.book.put(claim.nonce) else {
                break;
            };
            match self.ask_once(&put, &lease, &ask, by).await {
                Ok(Answer::Final(asked)) => return asked,
                Ok(Answer::Again) => {}
                Ok(Answer::BaseLost(base)) => {
                    if let Err(error) = self.learn_base(base).await {
                        return refused(error);
                    }
                }
                Ok(Answer::KeyTaken) => self.book.take_other_slot(claim.nonce),
                Ok(Answer::LeaseGone) => {
                    self.lease_ended(&lease, &[]);
                    match self.lease_for(claim).await {
                        Ok(lease) => self.book.take_other_lease(claim.nonce, lease),
                        Err(error) => return refused(error),
                    }
                }
                Err(failed) => return failed,
            }
        }
        refused(unavailable("acquire", "asked again and again, to no avail"))
    }

    async fn ask_once(
        self: &Arc<Self>,
        put: &Put,
        lease: &Arc<Lease>,
        ask: &Ask,
        by: BootInstant,
    ) -> Result<Answer, Asked> {
        let txn = match ask {
            Ask::Try => put.attempt(),
            Ask::Join => put.join(),
            Ask::Pass { held, .. } => put.pass(held),
        };
        let sent = self.now();
        let lease_was_there = lease.validity().is_some();
        let freshening = self.freshen(lease);
        let mut found = match self.txn("acquire", txn, by).await {
            Ok(found) => found,
            // Or not there yet: this request may have overtaken the one for the lease.
            Err(stopped) if stopped.is_lease_gone() => {
                return match lease.confirmed().await {
                    Ok(()) if lease_was_there => Ok(Answer::LeaseGone),
                    Ok(()) => Ok(Answer::Again),
                    Err(error) => Err(refused(error)),
                };
            }
            Err(stopped) => {
                return Err(Asked::Failed {
                    unanswered: !stopped.is_certain(),
                    error: stopped.into_error("acquire"),
                });
            }
        };
        if !found.succeeded {
            return self.not_put(put, lease, ask, &mut found);
        }
        let created = found.revision;
        // A grant is nothing without knowing for how long.
        if let Err(error) = lease.confirmed().await {
            return Err(unknown(error));
        }
        if let Ask::Pass { released, .. } = ask {
            // Set once: a request that was executed is not sent again.
            let _ = released.set(found.txn().map_err(unknown)?);
        }
        let asked = match ask {
            Ask::Try => Asked::Granted { created },
            Ask::Join | Ask::Pass { .. } => {
                found.skip();
                let tail = found.get().map_err(unknown)?;
                match self.standing(created, sent, &tail) {
                    Ok(asked) => asked,
                    Err(error) => return Err(self.withdraw(put, created, error).await),
                }
            }
        };
        if let (Asked::Granted { .. }, Some(freshening)) = (&asked, freshening) {
            // An error leaves the grant with what is left of its lease.
            let ended = matches!(freshening.await, Ok(Ok(false)));
            if ended {
                return Ok(Answer::LeaseGone);
            }
        }
        Ok(Answer::Final(asked))
    }

    /// Renews a lease of which less than two thirds are left, while something else is asked on it.
    fn freshen(self: &Arc<Self>, lease: &Arc<Lease>) -> Option<JoinHandle<Result<bool>>> {
        lease.ages_at().filter(|at| *at <= self.now())?;
        let (client, lease) = (Arc::clone(self), Arc::clone(lease));
        Some(tokio::spawn(async move { client.extend(&lease).await }))
    }

    /// Where a claim stands that was put at `created`, by the tail of its queue.
    fn standing(&self, created: i64, sent: BootInstant, tail: &GetResponse) -> Result<Asked> {
        let mine = tail.kvs().first();
        if mine.is_none_or(|mine| mine.create_revision() != created) {
            return Err(protocol("acquire", "a queue without its last"));
        }
        let Some(before) = tail.kvs().get(1) else {
            return Ok(Asked::Granted { created });
        };
        // Whoever is before has to be a lock for the others to wait for.
        if tail
            .kvs()
            .iter()
            .any(|kv| Record::decode(kv.value()).is_none())
        {
            return Err(Error::new(ErrorKind::WrongType, "acquire"));
        }
        let ahead = Ahead {
            holds: tail.count() == 2,
            ..self.ahead("acquire", before, tail.count(), (created, sent))?
        };
        Ok(Asked::Queued { created, ahead })
    }

    /// Why nothing was put.
    fn not_put(
        self: &Arc<Self>,
        put: &Put,
        lease: &Lease,
        ask: &Ask,
        found: &mut Answers,
    ) -> Result<Answer, Asked> {
        // Nothing was written, so there is nothing to clean up, whatever the answer is.
        let base = found.one().map_err(refused)?;
        match self.book.bases.learn(base.as_ref()).map_err(refused)? {
            Learned::Nothing => {}
            Learned::Newer => return Ok(Answer::Again),
            Learned::Lost(base) => return Ok(Answer::BaseLost(base)),
        }
        let generation = found.one().map_err(refused)?.map_or(0, |kv| kv.version());
        let own = found.one().map_err(refused)?;
        if generation > put.generation {
            lease.adopt(generation);
            return Ok(Answer::Again);
        }
        if generation < put.generation {
            // Somebody has deleted the record of it: copies that were given up could win again.
            return Ok(Answer::LeaseGone);
        }
        if let Ask::Try = ask {
            return match found.one().map_err(refused)? {
                Some(first) if Record::decode(first.value()).is_none() => {
                    Err(refused(Error::new(ErrorKind::WrongType, "try_acquire")))
                }
                _ => Ok(Answer::Final(Asked::Busy)),
            };
        }
        match own {
            Some(own) => {
                self.remove_stray(&own);
                Ok(Answer::KeyTaken)
            }
            None => Ok(Answer::Again),
        }
    }

    /// Something that is no lock is in the way: takes the claim out of the queue again, so that the
    /// refusal is the truth.
    async fn withdraw(&self, put: &Put, created: i64, error: Error) -> Asked {
        let held = Held {
            key: put.key.clone(),
            created,
        };
        match self.read("acquire", txn::leave(&held, None)).await {
            Ok(_) => refused(error),
            Err(failed) => unknown(failed),
        }
    }

    /// A key of this client that none of its claims knows: it was given up when its lease seemed to
    /// have ended, and had not.
    fn remove_stray(self: &Arc<Self>, own: &KeyValue) {
        let stray = Held {
            key: own.key().to_vec(),
            created: own.create_revision(),
        };
        tracing::debug!(created = stray.created, "removing a key that nobody claims");
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let removed = client.read("release", txn::leave(&stray, None)).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "its lease will end it");
            }
        });
    }

    /// Writes `next` over `waiting`, in the same place of the queue; whether that was there.
    pub(crate) async fn replace(
        self: &Arc<Self>,
        waiting: &Claim,
        next: &Claim,
        lease: LeaseUse,
    ) -> Result<bool> {
        lease.confirmed().await?;
        let id = lease.id;
        let Some((held, value)) = self.book.begin_replacing(waiting.nonce, next, lease) else {
            return Ok(false);
        };
        next.progress.report(Reach::Sent);
        let (client, waiting, next) = (Arc::clone(self), waiting.nonce, next.nonce);
        // In a task of its own, as all that writes a claim.
        let writing = tokio::spawn(async move {
            let txn = txn::replace(&held, value, id);
            let written = client.txn("replace", txn, client.by()).await;
            match &written {
                Ok(found) if found.succeeded => client.book.replaced(waiting, next, client.now()),
                Ok(_) => client.book.not_replaced(next, true),
                Err(stopped) => client.book.not_replaced(next, stopped.is_certain()),
            }
            written
                .map(|found| found.succeeded)
                .map_err(|stopped| stopped.into_error("replace"))
        });
        writing
            .await
            .unwrap_or_else(|ended| Err(protocol("replace", ended.to_string())))
    }

    /// Waits until the request of `nonce` has been answered or given up.
    pub(crate) async fn answered(&self, nonce: Nonce) -> Outcome {
        loop {
            match self.book.outcome(nonce) {
                Outcome::NotYet(mut heard) => {
                    // An error says that the entry is gone; so does the next look.
                    let _ = heard.changed().await;
                }
                outcome => return outcome,
            }
        }
    }

    /// An operator has written into our inbox.
    pub(crate) fn told_of_break(self: &Arc<Self>, message: &KeyValue) {
        let nonce = message.value_str().ok().and_then(|text| text.parse().ok());
        if let Some(nonce) = nonce
            && self.book.breaks(nonce, message.mod_revision())
        {
            self.tell(Event::Broken { nonce });
        }
        // Read is read: it would stay as long as the lease otherwise.
        self.remove_stray(message);
    }
}

/// What came of asking once.
enum Answer {
    Final(Asked),
    /// The lease has moved on: the same again, with what is known now.
    Again,
    /// The server has lost the base of tokens.
    BaseLost(u64),
    /// Something is at the key that this client does not know.
    KeyTaken,
    LeaseGone,
}

/// Nothing was written, and nothing will be.
fn refused(error: Error) -> Asked {
    Asked::Failed {
        error,
        unanswered: false,
    }
}

/// It may have been written.
fn unknown(source: Error) -> Asked {
    let error = Error::new(ErrorKind::Indeterminate, "acquire")
        .with_detail(source.to_string())
        .with_source(source);
    Asked::Failed {
        error,
        unanswered: true,
    }
}
