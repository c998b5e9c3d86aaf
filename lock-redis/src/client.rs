//! One client: what is sent to the server for it, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use lock_core::{
    BootInstant, Claim, Error, ErrorKind, Grant, LockName, Nonce, Reach, Renewal, Result, Standing,
    Validity,
};
use redis::Value;

use crate::connection::Connection;
use crate::error::{invalid, protocol};
use crate::inbox::{Inbox, Reference};
use crate::reply::{self, Reply};
use crate::scripts::{self, Call, Script};

/// What the backend and its tasks share.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) connection: Arc<Connection>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) claim: Duration,
    pub(crate) fence_retention: Duration,
    pub(crate) fence_base: u64,
}

/// An answer, and what a lease in it is counted from.
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// Taken before the request was sent.
    pub(crate) sent: BootInstant,
    /// The connection it was sent on.
    pub(crate) connection: u64,
}

impl Client {
    /// A call that begins as all scripts expect it.
    pub(crate) fn script(&self, script: &'static Script) -> Call {
        Call::new(script)
            .arg(self.inbox.seen().max(self.fence_base))
            .arg(self.fence_retention.as_millis())
            .arg(self.claim.as_millis())
    }

    pub(crate) fn lock_keys(&self, name: &LockName) -> [String; 3] {
        self.connection.keys.of_lock(name)
    }

    pub(crate) fn tombstone(&self, claim: &Claim) -> String {
        self.connection.keys.tombstone(&claim.name, claim.nonce)
    }

    /// One attempt to get the lock, or a place in its queue.
    pub(crate) fn acquire_call(&self, claim: &Claim, mode: &str) -> Call {
        self.script(&scripts::ACQUIRE)
            .keys(self.lock_keys(&claim.name))
            .keys([self.tombstone(claim)])
            .arg(mode)
            .arg(claim.nonce)
            .arg(claim.ttl.as_millis())
            .arg(&self.connection.channel)
            .arg(&claim.identity)
    }

    /// Runs a script that does nothing to a claim if it is run late.
    pub(crate) async fn call(&self, op: &'static str, call: &Call) -> Result<Answer> {
        self.call_after(op, call, || true).await
    }

    /// Runs a script that can make `claim` hold or wait. Until it is answered, a copy of it may be
    /// under way; that is noted before it is sent, and stays noted when this future is dropped.
    pub(crate) async fn claim_call(
        &self,
        op: &'static str,
        claim: &Claim,
        call: &Call,
    ) -> Result<Answer> {
        let note = || {
            self.inbox.sending(claim, self.connection.clock.now());
            claim.progress.report(Reach::Sent);
            true
        };
        self.noted_call(op, claim.nonce, call, note).await
    }

    /// As [`claim_call`](Self::claim_call), for a waiting claim that the server has forgotten.
    pub(crate) async fn claim_again(&self, claim: &Claim) -> Result<Answer> {
        let call = self.acquire_call(claim, "wait");
        let note = || self.inbox.sending_again(claim.nonce);
        self.noted_call("acquire", claim.nonce, &call, note).await
    }

    pub(crate) async fn noted_call(
        &self,
        op: &'static str,
        nonce: Nonce,
        call: &Call,
        note: impl FnOnce() -> bool + Send,
    ) -> Result<Answer> {
        let mut noted = false;
        let note = || {
            noted = note();
            noted
        };
        let answer = self.call_after(op, call, note).await;
        let silent = matches!(&answer, Err(error) if error.kind() == ErrorKind::Indeterminate);
        // One that was not sent is no answer to an earlier one, a copy of which may be under way.
        if noted && !silent {
            self.inbox.answered(nonce);
        }
        answer
    }

    /// `note` is called when there is a connection, before anything is sent; it may call it off.
    pub(crate) async fn call_after(
        &self,
        op: &'static str,
        call: &Call,
        note: impl FnOnce() -> bool + Send,
    ) -> Result<Answer> {
        let by = self.connection.clock.now() + self.connection.command_timeout;
        let live = self.connection.ready(op, by).await?;
        if !note() {
            return Err(invalid(op, "this claim was released"));
        }
        let sent = self.connection.clock.now();
        let value = self.connection.run(op, &live, call, by).await?;
        Ok(Answer {
            value,
            sent,
            connection: live.id,
        })
    }

    /// Puts what was answered about a waiting claim into the inbox.
    pub(crate) fn settle(&self, claim: &Claim, reply: Reply, answer: &Answer) -> Result<()> {
        match reply {
            Reply::Granted { .. } => {
                let grant = self.grant(claim, reply, answer)?;
                self.inbox.granted(grant, self.connection.clock.now());
                Ok(())
            }
            Reply::Queued { server, again } => {
                let reference = Reference {
                    connection: answer.connection,
                    sent: answer.sent,
                    server,
                };
                // From now, not from the sending: a slow server is not to be asked more often.
                let due = self.connection.clock.now() + again;
                self.inbox.queued(claim.nonce, reference, due);
                Ok(())
            }
            Reply::Dead => Err(invalid("acquire", "this claim was released")),
            Reply::Foreign => Err(Error::new(ErrorKind::WrongType, "acquire")),
            Reply::Busy | Reply::Gone => Err(protocol("acquire", format!("answer {reply:?}"))),
        }
        .map_err(|error| error.with_name(&claim.name))
    }

    pub(crate) fn grant(&self, claim: &Claim, reply: Reply, answer: &Answer) -> Result<Grant> {
        let Reply::Granted {
            token,
            left,
            provisional,
        } = reply
        else {
            return Err(protocol("acquire", format!("answer {reply:?}")).with_name(&claim.name));
        };
        self.inbox.saw(token);
        let validity = Validity::new(answer.sent, self.connection.clock.now(), left);
        let grant = Grant::new(claim, token, validity);
        Ok(if provisional {
            grant.provisional()
        } else {
            grant
        })
    }

    /// What became of a claim that was put in the place of another, from the script's answer.
    pub(crate) fn standing(&self, next: &Claim, reply: Reply, answer: &Answer) -> Result<Standing> {
        if matches!(reply, Reply::Granted { .. }) {
            let grant = self.grant(next, reply, answer)?;
            self.inbox.taken(next.nonce, self.connection.clock.now());
            return Ok(Standing::Granted(grant));
        }
        let settled = self.settle(next, reply, answer);
        if settled.is_err() {
            self.inbox.taken(next.nonce, self.connection.clock.now());
        }
        settled.map(|()| Standing::Queued)
    }

    /// Renews locks of one partition.
    pub(crate) async fn renew_batch(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let mut call = self.script(&scripts::RENEW);
        for grant in grants {
            let claim = grant.claim();
            call = call
                .keys(self.lock_keys(&claim.name))
                .arg(claim.nonce)
                .arg(claim.ttl.as_millis());
        }
        let impatience = self.connection.watch_renewal();
        let answer = self.call("renew", &call).await;
        impatience.answered();
        let renewed = answer.and_then(|answer| {
            let received = self.connection.clock.now();
            let left = reply::list("renew", &answer.value)?;
            if left.len() != grants.len() {
                return Err(reply::odd("renew", &answer.value));
            }
            Ok(left
                .iter()
                .map(|left| match left {
                    Value::Int(0) => Ok(Renewal::Gone),
                    Value::Int(-1) => Err(Error::new(ErrorKind::WrongType, "renew")),
                    left => {
                        let left = Duration::from_micros(reply::whole("renew", left)?);
                        Ok(Renewal::Extended(Validity::new(
                            answer.sent,
                            received,
                            left,
                        )))
                    }
                })
                .collect())
        });
        let results: Vec<Result<Renewal>> = match renewed {
            Ok(results) => results,
            Err(error) => grants.iter().map(|_| Err(error.clone())).collect(),
        };
        let named = |(result, grant): (Result<Renewal>, &&Grant)| {
            result.map_err(|error| error.with_name(&grant.claim().name))
        };
        results.into_iter().zip(grants).map(named).collect()
    }

    /// Which of these locks have a holder or a queue; all are of one partition.
    pub(crate) async fn in_use(&self, names: Vec<LockName>) -> Result<Vec<LockName>> {
        let mut call = self.script(&scripts::USED);
        for name in &names {
            let [holder, queue, _] = self.lock_keys(name);
            call = call.keys([holder, queue]);
        }
        let answer = self.call("list", &call).await?;
        let used = reply::list("list", &answer.value)?;
        Ok(names
            .into_iter()
            .zip(used)
            .filter(|(_, used)| **used == Value::Int(1))
            .map(|(name, _)| name)
            .collect())
    }
}
