//! What is asked for one client: a transaction or two for each operation, and what its answer means.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lock_core::{
    BootInstant, Claim, Clock, Context, Error, ErrorKind, Event, FencingToken, Grant, Passed,
    Progress, Reach, Renewal, Replaced, Result, Standing as Stands, Validity,
};
use tokio::sync::mpsc;

use crate::connection::Connection;
use crate::protocol::{Answer, Ask, Branch, Change, Entry, Txn, When};
use crate::queue::{Standing, place, queue, record, spent};

/// The lease of a waiter, which is renewed at every look: a dead one is in the way for so long.
const WAITER: Duration = Duration::from_secs(3);
/// How often a waiter looks by itself, if nothing is heard.
const LOOK: Duration = Duration::from_millis(500);
/// How long a copy of a request may still be under way when its claim was given up. One that comes later gets a hold that
/// nobody renews.
const SPENT: Duration = Duration::from_secs(60);

/// One client of the server.
#[derive(Debug)]
pub(crate) struct TcpClient {
    connection: Connection,
    clock: Clock,
    /// Every token is to be larger: the base, and then the largest one seen, for a server that has forgotten it.
    above: AtomicU64,
}

/// How a claim stands that has asked for the lock.
pub(crate) enum Stand {
    Granted(Grant),
    /// Behind this one.
    Behind(Entry),
    /// It stood somewhere, and does not any more.
    Nowhere,
}

impl TcpClient {
    pub(crate) fn new(
        addr: String,
        context: Context,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            connection: Connection::new(addr, context.op_timeout * 3 / 4, events),
            clock: context.clock,
            above: AtomicU64::new(context.fence_base),
        }
    }

    /// Asks for nothing, to see whether there is anybody.
    pub(crate) async fn hello(&self) -> Result<()> {
        let hello = self.txn("connect", None, None, vec![]).await;
        hello
            .map(drop)
            .map_err(|error| Error::new(ErrorKind::Unavailable, "connect").with_source(error))
    }

    async fn txn(
        &self,
        op: &'static str,
        progress: Option<&Progress>,
        list: Option<String>,
        branches: Vec<Branch>,
    ) -> Result<Answer> {
        let txn = Txn {
            list,
            branches,
            above: self.above.load(Ordering::Relaxed),
        };
        let answer = self.connection.ask(op, Ask::Txn(txn), progress).await?;
        self.above.fetch_max(answer.revision, Ordering::Relaxed);
        Ok(answer)
    }

    /// A transaction about one claim in its queue.
    async fn in_queue(
        &self,
        op: &'static str,
        claim: &Claim,
        branches: Vec<Branch>,
    ) -> Result<Answer> {
        let list = Some(queue(&claim.name));
        self.txn(op, Some(&claim.progress), list, branches).await
    }

    /// What an answer to a request that was sent at `sent` grants.
    fn grant(&self, claim: &Claim, answer: &Answer, sent: BootInstant) -> Result<Grant> {
        let token = FencingToken::new(answer.revision)?;
        Ok(Grant::new(claim, token, self.validity(claim, sent)))
    }

    fn validity(&self, claim: &Claim, sent: BootInstant) -> Validity {
        Validity::new(sent, self.clock.now(), claim.ttl)
    }

    /// Keeps the claim's place in the queue; without one, takes a lock that nobody has or waits for, or joins the queue.
    pub(crate) async fn look(&self, claim: &Claim) -> Result<Stand> {
        let touch = Change::Touch {
            key: place(claim),
            ttl_ms: millis(WAITER),
        };
        let stay = branch([When::Present(place(claim))], [touch]);
        let join = branch([When::Absent(spent(claim))], [put(claim, false, WAITER)]);
        // Before the request leaves: the server counts from later.
        let sent = self.clock.now();
        let branches = vec![stay, take(claim), join];
        let answer = self.in_queue("acquire", claim, branches).await?;
        let (ahead, revision) = match answer.branch {
            Some(0) => {
                let at = answer.listed.iter().position(|entry| is_of(entry, claim));
                let Some(at) = at else {
                    return Ok(Stand::Nowhere);
                };
                let revision = answer.listed[at].modified;
                (&answer.listed[..at], revision)
            }
            Some(1) => return self.grant(claim, &answer, sent).map(Stand::Granted),
            Some(_) => (&answer.listed[..], answer.revision),
            None => {
                return Err(Error::new(ErrorKind::Lost, "acquire")
                    .with_name(&claim.name)
                    .with_detail("this acquisition has been given up"));
            }
        };
        self.stand("acquire", claim, ahead, revision).await
    }

    /// How a claim in the queue stands, with these in front of it: without any, it takes the lock.
    ///
    /// The server knew the claim at this revision. It takes the lock only from there, so that a late copy of the same
    /// request does not give it another token.
    async fn stand(
        &self,
        op: &'static str,
        claim: &Claim,
        ahead: &[Entry],
        revision: u64,
    ) -> Result<Stand> {
        if let Some(last) = ahead.last() {
            return Ok(Stand::Behind(last.clone()));
        }
        let sent = self.clock.now();
        let when = [When::At(place(claim), revision)];
        let confirm = branch(when, [put(claim, true, claim.ttl)]);
        let answer = self.in_queue(op, claim, vec![confirm]).await?;
        match answer.branch {
            Some(_) => self.grant(claim, &answer, sent).map(Stand::Granted),
            None => Ok(Stand::Nowhere),
        }
    }

    /// Waits for what is in front to go, for as long as it is right to wait without a look.
    pub(crate) async fn until_gone(&self, front: Entry) -> Result<()> {
        let at_most = LOOK.min(self.connection.patience() / 2);
        let until_gone = Ask::UntilGone {
            key: front.key,
            created: front.created,
            at_most_ms: millis(at_most),
        };
        let answer = self.connection.ask("acquire", until_gone, None).await;
        answer.map(drop)
    }

    /// How a claim stands that core asked to be put somewhere.
    async fn put_behind(
        &self,
        op: &'static str,
        claim: &Claim,
        ahead: &[Entry],
        revision: u64,
    ) -> Result<Stands> {
        Ok(match self.stand(op, claim, ahead, revision).await? {
            Stand::Granted(grant) => Stands::Granted(grant),
            Stand::Behind(_) | Stand::Nowhere => {
                claim.progress.report(Reach::Queued);
                Stands::Queued
            }
        })
    }

    /// Refuses a queue in which something else stands, which is left as it is.
    pub(crate) async fn refuse_foreign(&self, claim: &Claim, front: &Entry) -> Result<()> {
        let Err(error) = Standing::read(front, "acquire") else {
            return Ok(());
        };
        self.leave(claim).await?;
        Err(error.with_name(&claim.name))
    }

    /// The lock if nobody has it or waits for it.
    pub(crate) async fn try_take(&self, claim: &Claim) -> Result<Option<Grant>> {
        let sent = self.clock.now();
        let branches = vec![take(claim)];
        let answer = self.in_queue("try_acquire", claim, branches).await?;
        if answer.branch.is_some() {
            return self.grant(claim, &answer, sent).map(Some);
        }
        for entry in &answer.listed {
            Standing::read(entry, "try_acquire").map_err(|error| error.with_name(&claim.name))?;
        }
        Ok(None)
    }

    /// A longer lease for the holder that has this grant, and for nobody else.
    pub(crate) async fn extend(&self, grant: &Grant) -> Result<Renewal> {
        let claim = grant.claim();
        let touch = Change::Touch {
            key: place(claim),
            ttl_ms: millis(claim.ttl),
        };
        let extend = branch([When::At(place(claim), grant.token().get())], [touch]);
        let sent = self.clock.now();
        let answer = self.txn("renew", None, None, vec![extend]).await?;
        Ok(match answer.branch {
            Some(_) => Renewal::Extended(self.validity(claim, sent)),
            None => Renewal::Gone,
        })
    }

    /// Neither holds nor waits from now on; whether it held.
    pub(crate) async fn leave(&self, claim: &Claim) -> Result<bool> {
        let leave = branch([], give_up(claim));
        let list = Some(queue(&claim.name));
        let answer = self.txn("release", None, list, vec![leave]).await?;
        Ok(held(claim, &answer))
    }

    /// One leaves, the other joins at the end.
    pub(crate) async fn pass(&self, held_claim: &Claim, next: &Claim) -> Result<Passed> {
        let mut then = give_up(held_claim);
        then.push(put(next, false, WAITER));
        let hand_on = branch([When::Absent(spent(next))], then);
        let answer = self.in_queue("pass", next, vec![hand_on]).await?;
        if answer.branch.is_none() {
            return Err(Error::new(ErrorKind::Lost, "pass").with_name(&next.name));
        }
        let released = held(held_claim, &answer);
        let mut ahead = answer.listed;
        ahead.retain(|entry| !is_of(entry, held_claim));
        let next = self
            .put_behind("pass", next, &ahead, answer.revision)
            .await?;
        Ok(Passed { released, next })
    }

    /// One leaves, the other has its place.
    pub(crate) async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let mut then = vec![Change::Rename {
            from: place(waiting),
            to: place(next),
        }];
        then.extend(give_up(waiting));
        // As a waiter, whatever the other one was: a grant is the next claim's own, with a token of its own.
        then.push(put(next, false, WAITER));
        let when = [When::Present(place(waiting)), When::Absent(spent(next))];
        let answer = self
            .in_queue("replace", next, vec![branch(when, then)])
            .await?;
        if answer.branch.is_none() {
            return Ok(Replaced::Gone);
        }
        let ahead = answer
            .listed
            .iter()
            .take_while(|entry| !is_of(entry, waiting));
        let ahead: Vec<_> = ahead.cloned().collect();
        let standing = self
            .put_behind("replace", next, &ahead, answer.revision)
            .await?;
        Ok(Replaced::Now(standing))
    }

    /// The claims under a prefix, the oldest first.
    pub(crate) async fn list(&self, op: &'static str, prefix: String) -> Result<Vec<Entry>> {
        Ok(self.txn(op, None, Some(prefix), vec![]).await?.listed)
    }

    pub(crate) async fn close(&self) {
        self.connection.close().await;
    }
}

fn is_of(entry: &Entry, claim: &Claim) -> bool {
    entry.key == place(claim)
}

/// Whether the claim was the holder when this was listed.
fn held(claim: &Claim, answer: &Answer) -> bool {
    let first = answer.listed.first().filter(|entry| is_of(entry, claim));
    first.is_some_and(|first| Standing::read(first, "release").is_ok_and(|it| it.granted))
}

fn branch(when: impl Into<Vec<When>>, then: impl Into<Vec<Change>>) -> Branch {
    Branch {
        when: when.into(),
        then: then.into(),
    }
}

/// Takes a lock that nobody has or waits for.
fn take(claim: &Claim) -> Branch {
    let when = [When::Vacant(queue(&claim.name)), When::Absent(spent(claim))];
    branch(when, [put(claim, true, claim.ttl)])
}

fn put(claim: &Claim, granted: bool, ttl: Duration) -> Change {
    Change::Put {
        key: place(claim),
        value: record(claim, granted),
        ttl_ms: millis(ttl),
    }
}

/// Neither holds nor waits from now on, and cannot come back.
fn give_up(claim: &Claim) -> Vec<Change> {
    let tombstone = Change::Put {
        key: spent(claim),
        value: String::new(),
        ttl_ms: millis(SPENT),
    };
    vec![tombstone, Change::Delete(place(claim))]
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
