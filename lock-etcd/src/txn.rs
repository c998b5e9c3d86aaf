//! The transactions, and how their answers are read.
//!
//! Each request that can make a claim hold or wait compares the generation of its lease: a copy that
//! arrives after the claim was given up finds another one, and does nothing.

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use lock_core::Result;

use crate::base::Base;
use crate::error::protocol;

/// What a claim is put with.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    /// What the keys of all claims for the name begin with.
    pub(crate) name: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) lease: i64,
    pub(crate) generation_key: Vec<u8>,
    pub(crate) generation: i64,
    pub(crate) base: Base,
}

/// A key and the revision that tells it from others of its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) key: Vec<u8>,
    pub(crate) created: i64,
}

impl Held {
    fn compare(&self) -> Compare {
        Compare::create_revision(self.key.clone(), CompareOp::Equal, self.created)
    }
}

impl Put {
    fn same_generation(&self) -> Compare {
        // The version of a key that is not there is 0.
        let key = self.generation_key.clone();
        Compare::version(key, CompareOp::Equal, self.generation)
    }

    fn put(&self) -> TxnOp {
        let options = PutOptions::new().with_lease(self.lease);
        TxnOp::put(self.key.clone(), self.value.clone(), Some(options))
    }

    /// Why a claim was not put: the base, the generation, and what is in its own key.
    fn why_not(&self) -> [TxnOp; 3] {
        [
            self.base.look(),
            TxnOp::get(self.generation_key.clone(), None),
            TxnOp::get(self.key.clone(), Some(GetOptions::new().with_keys_only())),
        ]
    }

    /// Holds the lock if nobody does or waits; writes nothing otherwise.
    pub(crate) fn attempt(&self) -> Txn {
        let nobody = Compare::create_revision(self.name.clone(), CompareOp::Equal, 0).with_prefix();
        let [base, generation, own] = self.why_not();
        Txn::new()
            .when([self.same_generation(), self.base.is_latest(), nobody])
            .and_then([self.put()])
            .or_else([base, generation, own, first(&self.name)])
    }

    /// Joins the queue, and reads its [`tail`].
    pub(crate) fn join(&self) -> Txn {
        self.joined([])
    }

    /// Ends `held`, if it is still there, and joins the queue, in one step.
    pub(crate) fn pass(&self, held: &Held) -> Txn {
        let release = Txn::new()
            .when([held.compare()])
            .and_then([TxnOp::delete(held.key.clone(), None)]);
        self.joined([TxnOp::txn(release)])
    }

    fn joined<const N: usize>(&self, before: [TxnOp; N]) -> Txn {
        let absent = Compare::create_revision(self.key.clone(), CompareOp::Equal, 0);
        let mut steps = Vec::from(before);
        steps.extend([self.put(), tail(&self.name)]);
        Txn::new()
            .when([self.same_generation(), self.base.is_latest(), absent])
            .and_then(steps)
            .or_else(self.why_not())
    }

    /// Makes sure that no copy of this request wins any more: moves the generation on, and removes
    /// what may have been put already: whatever is at this key with this lease, for the key is nobody
    /// else's until the claim is released. Reads who is at the head before that. The generation stays as
    /// long as the lease `ground`.
    pub(crate) fn bury(&self, ground: i64) -> Txn {
        let mine = Compare::lease(self.key.clone(), CompareOp::Equal, self.lease);
        let delete = TxnOp::delete(self.key.clone(), None);
        let undo = TxnOp::txn(Txn::new().when([mine]).and_then([delete]));
        let options = PutOptions::new().with_lease(ground);
        let bump = TxnOp::put(self.generation_key.clone(), "", Some(options));
        // Somebody else of this client has moved it on: that is as good. Or this is a copy that comes
        // late, and the key is another claim's by now: what is there is read, and nothing else.
        let look = TxnOp::get(self.generation_key.clone(), None);
        let own = TxnOp::get(self.key.clone(), None);
        Txn::new()
            .when([self.same_generation()])
            .and_then([bump, first(&self.name), undo])
            .or_else([look, first(&self.name), own])
    }
}

/// Ends a claim if it is still there. With `name`, reads first who is at the head of its queue.
pub(crate) fn leave(held: &Held, name: Option<&[u8]>) -> Txn {
    let mut steps: Vec<TxnOp> = name.map(first).into_iter().collect();
    steps.push(TxnOp::delete(held.key.clone(), None));
    Txn::new().when([held.compare()]).and_then(steps)
}

/// Writes another claim over a waiting one, in the same place of the queue.
pub(crate) fn replace(held: &Held, value: Vec<u8>, lease: i64) -> Txn {
    let options = PutOptions::new().with_lease(lease);
    Txn::new()
        .when([held.compare()])
        .and_then([TxnOp::put(held.key.clone(), value, Some(options))])
}

/// Ends a hold by force, and tells its client on `inbox`, which ends with the hold's lease.
pub(crate) fn break_hold(held: &Held, inbox: Vec<u8>, message: Vec<u8>, lease: i64) -> Txn {
    let options = PutOptions::new().with_lease(lease);
    Txn::new().when([held.compare()]).and_then([
        TxnOp::delete(held.key.clone(), None),
        TxnOp::put(inbox, message, Some(options)),
    ])
}

/// How much of a queue a claim that joins it reads: one read of a few keys is cheaper than two of one.
const TAIL: i64 = 8;

/// How many operations a transaction may have.
pub(crate) const MOST_OPERATIONS: usize = 128;
/// How many operations [`look`] takes for one claim.
pub(crate) const LOOK_OPERATIONS: usize = 3;

/// Reads, for each claim, whether it is still there, who is before it, and who is at the head.
pub(crate) fn look<'a>(claims: impl IntoIterator<Item = (&'a Held, &'a [u8])>) -> Txn {
    let mut steps = Vec::new();
    for (held, name) in claims {
        let before = by_age(name, SortOrder::Descend)
            .with_limit(1)
            .with_max_create_revision(held.created - 1);
        steps.push(own(held));
        steps.push(TxnOp::get(name, Some(before)));
        steps.push(first(name));
    }
    Txn::new().and_then(steps)
}

/// Reads, for each claim, whether it is still there.
pub(crate) fn verify<'a>(claims: impl IntoIterator<Item = &'a Held>) -> Txn {
    Txn::new().and_then(claims.into_iter().map(own).collect::<Vec<_>>())
}

fn own(held: &Held) -> TxnOp {
    TxnOp::get(held.key.clone(), Some(GetOptions::new().with_keys_only()))
}

/// Whoever holds the lock.
fn first(name: &[u8]) -> TxnOp {
    let options = by_age(name, SortOrder::Ascend).with_limit(1);
    TxnOp::get(name.to_vec(), Some(options))
}

/// The last ones of a queue, from the end on. In a short one the holder is among them.
fn tail(name: &[u8]) -> TxnOp {
    let options = by_age(name, SortOrder::Descend).with_limit(TAIL);
    TxnOp::get(name.to_vec(), Some(options))
}

/// All claims for a name, in the order in which they came, or backwards.
pub(crate) fn by_age(name: &[u8], order: SortOrder) -> GetOptions {
    debug_assert_eq!(name.last(), Some(&b'/'));
    GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, order)
}

/// The answers to the steps of a transaction, in their order.
#[derive(Debug)]
pub(crate) struct Answers {
    op: &'static str,
    pub(crate) succeeded: bool,
    pub(crate) revision: i64,
    pub(crate) term: u64,
    steps: std::vec::IntoIter<TxnOpResponse>,
}

impl Answers {
    pub(crate) fn of(op: &'static str, response: &TxnResponse) -> Result<Self> {
        let header = response
            .header()
            .ok_or_else(|| protocol(op, "an answer without a header"))?;
        Ok(Self {
            op,
            succeeded: response.succeeded(),
            revision: header.revision(),
            term: header.raft_term(),
            steps: response.op_responses().into_iter(),
        })
    }

    /// Leaves one step out.
    pub(crate) fn skip(&mut self) {
        self.steps.next();
    }

    pub(crate) fn get(&mut self) -> Result<GetResponse> {
        match self.steps.next() {
            Some(TxnOpResponse::Get(found)) => Ok(found),
            other => Err(self.odd(other.as_ref())),
        }
    }

    /// The first key that was found.
    pub(crate) fn one(&mut self) -> Result<Option<KeyValue>> {
        Ok(self.get()?.take_kvs().into_iter().next())
    }

    /// Whether the nested transaction did what it was for.
    pub(crate) fn txn(&mut self) -> Result<bool> {
        match self.steps.next() {
            Some(TxnOpResponse::Txn(inner)) => Ok(inner.succeeded()),
            other => Err(self.odd(other.as_ref())),
        }
    }

    fn odd(&self, step: Option<&TxnOpResponse>) -> lock_core::Error {
        protocol(self.op, format!("answer {step:?}"))
    }
}
