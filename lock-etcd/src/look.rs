//! What an operator sees and does: looking at a lock, listing names, breaking a hold.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, KeyValue, SortOrder};
use lock_core::{
    Cursor, Error, ErrorKind, FencingToken, HolderState, LockName, LockState, Page, Result,
    WaiterState,
};

use crate::base;
use crate::client::Client;
use crate::endpoint::Calls;
use crate::key::end_of;
use crate::record::Record;
use crate::txn::{self, Held};

/// How many keys one step of a listing reads.
const LIST_STEP: i64 = 256;

impl Client {
    pub(crate) async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let claims = self.claims("inspect", name).await?;
        let mut claims = claims.iter();
        let mut holders = Vec::new();
        if let Some(first) = claims.next() {
            let record = record("inspect", first)?;
            holders.push(HolderState {
                nonce: record.nonce,
                token: base::token("inspect", record.base, first.create_revision())?,
                age: record.age(),
                remaining: Some(self.remaining(first.lease()).await?),
                identity: record.identity,
                provisional: false,
            });
        }
        let waiters = claims
            .map(|waiter| {
                let record = record("inspect", waiter)?;
                Ok(WaiterState {
                    nonce: record.nonce,
                    age: record.age(),
                    identity: record.identity,
                })
            })
            .collect::<Result<_>>()?;
        Ok(LockState {
            name: name.clone(),
            last_token: holders.first().map(|holder| holder.token),
            holders,
            waiters,
        })
    }

    /// Everybody who holds or waits, in order.
    async fn claims(&self, op: &'static str, name: &LockName) -> Result<Vec<KeyValue>> {
        let name = self.keys.of_name(name);
        let options = txn::by_age(&name, SortOrder::Ascend);
        self.get(op, name, options).await.map(|(found, _)| found)
    }

    async fn get(
        &self,
        op: &'static str,
        key: Vec<u8>,
        options: GetOptions,
    ) -> Result<(Vec<KeyValue>, bool)> {
        let reading = |calls: &Calls| {
            let (mut kv, key, options) = (calls.kv(), key.clone(), options.clone());
            async move { kv.get(key, Some(options)).await }
        };
        let answer = self.connection.call(op, self.by(), reading).await;
        let mut answer = answer.map_err(|stopped| stopped.into_error(op))?;
        let more = answer.more();
        Ok((answer.take_kvs(), more))
    }

    /// What is left of a lease, at most: the server answers in whole seconds, rounded down.
    async fn remaining(&self, lease: i64) -> Result<Duration> {
        let asking = |calls: &Calls| {
            let mut leases = calls.lease();
            async move { leases.time_to_live(lease, None).await }
        };
        match self.connection.call("inspect", self.by(), asking).await {
            Ok(left) => {
                let secs = u64::try_from(left.ttl().saturating_add(1)).unwrap_or_default();
                Ok(Duration::from_secs(secs))
            }
            Err(stopped) if stopped.is_lease_gone() => Ok(Duration::ZERO),
            Err(stopped) => Err(stopped.into_error("inspect")),
        }
    }

    pub(crate) async fn list(&self, prefix: &str, cursor: &Cursor) -> Result<Page> {
        let start = self.keys.names_from(prefix);
        let end = end_of(&start);
        let from = match cursor.place() {
            // A name is escaped in a key, so a key is text.
            Some(place) => place.as_bytes().to_vec(),
            None => start,
        };
        let options = GetOptions::new()
            .with_range(end)
            .with_keys_only()
            .with_limit(LIST_STEP);
        let (found, more) = self.get("list", from, options).await?;
        let mut names: Vec<LockName> = found
            .iter()
            .filter_map(|kv| self.keys.name_of(kv.key()))
            .collect();
        names.dedup();
        // On behind the last name, of which all is known now that one of its keys is.
        let next = match found.last().filter(|_| more) {
            Some(last) => {
                let behind = match self.keys.name_of(last.key()) {
                    Some(name) => end_of(&self.keys.of_name(&name)),
                    None => [last.key(), b"\0"].concat(),
                };
                let place = String::from_utf8(behind).map_err(|source| {
                    Error::new(ErrorKind::WrongType, "list").with_source(source)
                })?;
                Some(Cursor::at(place))
            }
            None => None,
        };
        Ok(Page { names, next })
    }

    pub(crate) async fn break_hold(
        self: &Arc<Self>,
        name: &LockName,
        token: FencingToken,
    ) -> Result<bool> {
        let range = self.keys.of_name(name);
        let first = txn::by_age(&range, SortOrder::Ascend).with_limit(1);
        let (found, _) = self.get("break_hold", range, first).await?;
        let Some(holder) = found.first() else {
            return Ok(false);
        };
        let record = record("break_hold", holder)?;
        if base::token("break_hold", record.base, holder.create_revision())? != token {
            return Ok(false);
        }
        let held = Held {
            key: holder.key().to_vec(),
            created: holder.create_revision(),
        };
        let parts = self.keys.parts(holder.key());
        let parts = parts.ok_or_else(|| Error::new(ErrorKind::WrongType, "break_hold"))?;
        let inbox = self.keys.inbox_of(parts.client);
        let message = record.nonce.to_string().into_bytes();
        let breaking = txn::break_hold(&held, inbox, message, holder.lease());
        let by = self.by();
        match self.txn("break_hold", breaking, by).await {
            Ok(found) => Ok(found.succeeded),
            // With its lease, between the look and now.
            Err(stopped) if stopped.is_lease_gone() => Ok(false),
            Err(stopped) => Err(stopped.into_error("break_hold")),
        }
    }
}

fn record(op: &'static str, kv: &KeyValue) -> Result<Record> {
    Record::decode(kv.value()).ok_or_else(|| Error::new(ErrorKind::WrongType, op))
}
