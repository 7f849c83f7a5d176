//! Several writes as one: all of them become visible together, at every PoP, or none is done.

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::api::batch::{self, BatchKind, BatchOp, BatchWrite, BatchWritten};
use crate::error::Error;
use crate::namespace::{Ack, Namespace};
use crate::request::Request;

/// Writes that are gathered here and done by [`Batch::commit`]: 1 to 100, each of another entry, with at most 256 KiB of
/// keys, members, fields, values and metadata. At every PoP they become visible together.
///
/// It is no transaction over reads: nothing is locked, and what another PoP writes at the same moment merges with each of
/// the writes as it would without a batch. What was read before is made sure of by a condition, of which all are decided
/// before anything is written, by the PoP that is asked, or by the home of the namespace.
///
/// ```no_run
/// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
/// let cart = kv.get_versioned("cart:7").await?.expect("there is one");
/// let done = kv
///     .batch()
///     .put("order:7", cart.bytes.clone()).if_absent()
///     .delete("cart:7").if_match(&cart.etag)
///     .add("orders", 1)
///     .insert("open", "order:7").expiration_ttl_s(86_400)
///     .put_field("customer:3", "last", "order:7")
///     .commit()
///     .await;
/// match done {
///     Ok(done) => println!("all is done, by {}", done.receipt),
///     Err(error) if error.is_precondition_failed() => println!("nothing is done: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before commit"]
pub struct Batch {
    namespace: Namespace,
    writes: Vec<BatchWrite>,
    ack: Ack,
    /// Why it cannot be sent.
    wrong: Option<String>,
}

impl Namespace {
    /// A batch without writes. Sends nothing yet.
    pub fn batch(&self) -> Batch {
        Batch { namespace: self.clone(), writes: Vec::new(), ack: Ack::default(), wrong: None }
    }
}

/// What is done: each of these adds a write.
impl Batch {
    /// Writes a value, of at most 16 KiB. What was stored along with the old one is replaced too.
    pub fn put(self, key: &str, value: impl Into<Bytes>) -> Self {
        self.write(BatchWrite::new(BatchKind::Value, BatchOp::Put, key).bytes(&value.into()))
    }

    /// Deletes a value; also where there is none.
    pub fn delete(self, key: &str) -> Self {
        self.write(BatchWrite::new(BatchKind::Value, BatchOp::Delete, key))
    }

    /// Adds to a counter, at most 2^53 - 1 either way.
    pub fn add(self, counter: &str, amount: i64) -> Self {
        let write = BatchWrite::new(BatchKind::Counter, BatchOp::Add, counter);
        self.write(BatchWrite { amount: Some(amount), ..write })
    }

    /// Has a counter begin anew, as far as the PoP has seen it.
    pub fn reset(self, counter: &str) -> Self {
        self.write(BatchWrite::new(BatchKind::Counter, BatchOp::Delete, counter))
    }

    /// Adds to a bounded counter, at most 2^53 - 1.
    pub fn add_bounded(self, bounded: &str, amount: u64) -> Self {
        self.amount(BatchOp::Add, bounded, amount)
    }

    /// Takes from a bounded counter, 1 to 2^53 - 1. Where the PoP does not hold the rights to that, nothing of the batch is
    /// done: it asks no other PoP for more, as a taking by itself does ([`Error::lacks_rights`]).
    pub fn take(self, bounded: &str, amount: u64) -> Self {
        self.amount(BatchOp::Take, bounded, amount)
    }

    /// Deletes a bounded counter.
    pub fn delete_bounded(self, bounded: &str) -> Self {
        self.write(BatchWrite::new(BatchKind::Bounded, BatchOp::Delete, bounded))
    }

    /// Puts a member into a set.
    pub fn insert(self, set: &str, member: &str) -> Self {
        let write = BatchWrite::new(BatchKind::Set, BatchOp::Add, set);
        self.write(BatchWrite { member: Some(member.to_owned()), ..write })
    }

    /// Takes a member out of a set, as far as the PoP has seen it.
    pub fn remove(self, set: &str, member: &str) -> Self {
        let write = BatchWrite::new(BatchKind::Set, BatchOp::Remove, set);
        self.write(BatchWrite { member: Some(member.to_owned()), ..write })
    }

    /// Removes all members that the PoP has seen, and what is stored along with the set. Members that the batch writes come
    /// after this.
    pub fn clear_set(self, set: &str) -> Self {
        self.write(BatchWrite::new(BatchKind::Set, BatchOp::Delete, set))
    }

    /// Gives a field of a map this value, of at most 16 KiB.
    pub fn put_field(self, map: &str, field: &str, value: impl Into<Bytes>) -> Self {
        let write = BatchWrite::new(BatchKind::Map, BatchOp::Put, map).bytes(&value.into());
        self.write(BatchWrite { field: Some(field.to_owned()), ..write })
    }

    /// Takes a field of a map away, as far as the PoP has seen it.
    pub fn remove_field(self, map: &str, field: &str) -> Self {
        let write = BatchWrite::new(BatchKind::Map, BatchOp::Remove, map);
        self.write(BatchWrite { field: Some(field.to_owned()), ..write })
    }

    /// As [`Batch::clear_set`], of a map.
    pub fn clear_map(self, map: &str) -> Self {
        self.write(BatchWrite::new(BatchKind::Map, BatchOp::Delete, map))
    }

    /// Adds a write as it is.
    pub fn write(mut self, write: BatchWrite) -> Self {
        self.writes.push(write);
        self
    }

    fn amount(mut self, op: BatchOp, key: &str, amount: u64) -> Self {
        match i64::try_from(amount) {
            Ok(amount) => {
                let write = BatchWrite::new(BatchKind::Bounded, op, key);
                self.write(BatchWrite { amount: Some(amount), ..write })
            }
            Err(_) => {
                self.wrong.get_or_insert(format!("{amount} is more than a bounded counter counts: 2^53 - 1"));
                self
            }
        }
    }
}

/// How the last write is done.
impl Batch {
    /// The batch is done only where what this write is about is in this state: an `etag`, with its quotes.
    pub fn if_match(self, etag: &str) -> Self {
        self.last("if_match", |write| write.if_match = Some(etag.to_owned()))
    }

    /// The batch is done only where there is nothing that this write would replace.
    pub fn if_absent(self) -> Self {
        self.last("if_absent", |write| write.if_none_match = Some("*".to_owned()))
    }

    /// What this write says expires so many seconds from now, at least 1.
    pub fn expiration_ttl_s(self, seconds: u64) -> Self {
        self.last("expiration_ttl_s", |write| write.expiration_ttl = Some(seconds))
    }

    /// What this write says expires at this Unix second, at least 1 s ahead.
    pub fn expires_at_s(self, seconds: u64) -> Self {
        self.last("expires_at_s", |write| write.expiration = Some(seconds))
    }

    /// Stores this JSON along with a value, at most 1,024 bytes.
    pub fn metadata(mut self, metadata: &impl Serialize) -> Self {
        match to_raw_value(metadata) {
            Ok(raw) => self.last("metadata", |write| write.metadata = Some(raw)),
            Err(error) => {
                self.wrong.get_or_insert(format!("the metadata cannot be written as JSON: {error}"));
                self
            }
        }
    }

    fn last(mut self, what: &str, change: impl FnOnce(&mut BatchWrite)) -> Self {
        match self.writes.last_mut() {
            Some(write) => change(write),
            None => {
                self.wrong.get_or_insert(format!("{what} is about the write before it, and there is none"));
            }
        }
        self
    }
}

impl Batch {
    /// Sets when the batch counts as done.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How many writes it has.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Does all of it, and gives what became of each write. Where it may have been done, it is sent again to the same PoP
    /// only, under a key by which the node does it once.
    ///
    /// # Errors
    /// [`Error::Api`] names the write that is meant, as `writes[2]`, from 0: [`Error::is_precondition_failed`] where its
    /// condition does not hold, [`Error::lacks_rights`] where too little of a bounded counter is here. Nothing was done then.
    /// After [`Error::Transport`] or a status from 500 on all of it may have been done, or nothing.
    pub async fn commit(self) -> Result<BatchWritten, Error> {
        let Self { namespace, writes, ack, wrong } = self;
        if let Some(reason) = wrong {
            return Err(Error::invalid(reason));
        }
        let request = Request::new(Method::POST, namespace.kind_path("batch")?);
        let request = request.json(&batch::Batch { writes })?.not_idempotent();
        let request = match ack {
            Ack::Durable => request,
            Ack::Buffered => request.query("ack", "buffered"),
        };
        namespace.account.client.json(&request).await
    }
}
