//! Clients that write batches, and what must hold of these at any moment: all of one is seen, or nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use replication::codec::message::Stage;
use replication::entry::Kind;
use replication::replica::batch::BatchWrite;
use replication::{Body, Change, Content, EntryId, Payload, Value};

use super::nodes::Node;
use super::oracle::NAMESPACE;
use super::oracle::batches::{check_sums, check_whole};
use super::oracle::kinds::Changed;
use super::{Simulation, rows};

/// Entries of each kind that batches alone write.
const KEYS: u64 = 3;

/// Accounts between which batches move amounts; other clients count there too.
fn account(key: u64) -> EntryId {
    EntryId::whole(NAMESPACE, Kind::Counter, format!("account{key}"))
}

fn value(key: u64) -> EntryId {
    EntryId::value(NAMESPACE, format!("batched{key}"))
}

fn member(key: u64) -> EntryId {
    EntryId::element(NAMESPACE, Kind::Set, "batched", format!("member {key}"))
}

/// All that batches write.
pub(super) fn ids() -> Vec<EntryId> {
    (0..KEYS).flat_map(|key| [account(key), value(key), member(key)]).collect()
}

impl Simulation {
    /// A batch moves an amount from one account to another, and writes some of the rest.
    pub(super) fn write_batch(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let now = self.now(node);
        let amount = 1 + self.rng.below(9) as i64;
        let (from, step) = (self.rng.below(KEYS), 1 + self.rng.below(KEYS - 1));
        let add = |amount| BatchWrite::Change(Change::Add { amount, expires_at_s: None });
        let mut writes = vec![(account(from), add(-amount)), (account((from + step) % KEYS), add(amount))];
        let text = Bytes::from(format!("batch {}", self.next));
        for key in 0..KEYS {
            if self.rng.permille(400) {
                let payload = Payload::Inline(text.clone());
                let body = Body::Value(Value { payload, metadata: None, expires_at_s: None });
                writes.push((value(key), BatchWrite::Write(body)));
            }
            if self.rng.permille(300) {
                let content = Content { bytes: Bytes::new(), expires_at_s: None };
                writes.push((member(key), BatchWrite::Change(Change::Put(content))));
            }
        }
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        replica.commit().map_err(|error| format!("node {node} failed: {error}"))?;
        let (held, epoch) = (rows::claims(replica.store())?, replica.epoch());
        let mut seen = Vec::new();
        for (id, _) in &writes {
            seen.push(rows::state(replica.store(), id)?.map(|state| state.dots()).unwrap_or_default());
        }
        let over: Vec<_> = writes.iter().map(|(id, _)| rows::shown(replica, id)).collect::<Result<_, _>>()?;
        let vector = replica.shown();
        let dots = match replica.write_batch(now, writes.clone()) {
            Ok(dots) => dots,
            Err(refused) => return self.refused(&refused.error),
        };
        self.note(|| format!("{node} writes a batch by {dots:?}: {writes:?}"));
        self.oracle.note_batch(writes.iter().map(|(id, _)| id.clone()).zip(dots.iter().copied()).collect());
        for ((((id, write), dot), seen), over) in writes.into_iter().zip(dots).zip(seen).zip(over) {
            let body = match write {
                BatchWrite::Write(body) => {
                    self.oracle.writes_over(dot, over.map(|(dot, _)| dot), vector.clone());
                    body
                }
                BatchWrite::Change(change) => {
                    self.oracle.note_change(dot, Changed::new(change, &seen, &held, epoch, &id));
                    Body::Tombstone
                }
            };
            self.nodes[node].staged.push((dot, id, body));
        }
        self.drive_or_crash(node)
    }

    /// A client that counts, without a batch, on an account: what it wrote shows what it saw of batches.
    pub(super) fn count_beside_batches(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let id = account(self.rng.below(KEYS));
        self.change_entry(node, id, Change::Add { amount: 0, expires_at_s: None })
    }

    /// Of no batch a part is seen at this node.
    pub(super) fn check_batches(&self, node: &Node) -> Result<(), String> {
        let Some(replica) = &node.replica else { return Ok(()) };
        if self.scenario.batches_permille == 0 || replica.stage() != Stage::Member {
            return Ok(());
        }
        let torn = replica.counters().batches_torn;
        if torn > 0 {
            return Err(format!("{:?} had to show parts of batches: {torn} entries", replica.id()));
        }
        let veils = replica.veil_count().load(Ordering::Relaxed);
        if veils == 0 && replica.shown() != *replica.vector() {
            return Err(format!("{:?} hides nothing, and says it shows less than it holds", replica.id()));
        }
        let mut shown = BTreeMap::new();
        for id in ids() {
            if let Some((dot, body)) = rows::shown(replica, &id)? {
                shown.insert(id, replication::Entry::first(dot, body));
            }
        }
        check_sums(&shown)
            .and_then(|()| check_whole(&self.oracle, &shown, replica.epoch()))
            .map_err(|why| format!("{:?} shows {why}", replica.id()))
    }
}
