//! Clients that count, put members and fields, and take them away.

use bytes::Bytes;
use replication::entry::Kind;
use replication::{Change, Content, EntryId};

use super::bounded::BOUNDED_PERMILLE;
use super::documents::DOCUMENTS_PERMILLE;
use super::oracle::NAMESPACE;
use super::oracle::kinds::{Changed, WINDOW};
use super::{Simulation, rows};

/// Of 1,000 writes, how many are not of values.
pub(super) const CHANGES_PERMILLE: u64 = 350;

/// Members and fields there are under a key.
const ELEMENTS: u64 = 4;

/// Keys of each kind.
const KEYS: u64 = 3;

/// Of 1,000 changes, how many are of a whole.
const OF_WHOLE_PERMILLE: u64 = 80;

/// The longest that something lives which expires.
const MAX_TTL_S: u64 = 5;

impl Simulation {
    pub(super) fn change(&mut self) -> Result<(), String> {
        if self.rng.permille(DOCUMENTS_PERMILLE) {
            return self.change_document();
        }
        if self.rng.permille(BOUNDED_PERMILLE) {
            return self.change_bounded();
        }
        let node = self.any_node();
        let now_s = self.now(node).wall_ms / 1000;
        let (id, change) = self.any_change(now_s);
        self.change_entry(node, id, change)
    }

    /// A client makes this change at this node.
    pub(super) fn change_entry(&mut self, node: usize, id: EntryId, change: Change) -> Result<(), String> {
        let now = self.now(node);
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        // What is staged is seen by who writes: it is committed first, so that the row tells.
        replica.commit().map_err(|error| format!("node {node} failed: {error}"))?;
        let seen = rows::state(replica.store(), &id)?.map(|state| state.dots()).unwrap_or_default();
        let (held, epoch) = (rows::claims(replica.store())?, replica.epoch());
        let dot = match replica.change(now, id.clone(), change.clone()) {
            Ok(dot) => dot,
            Err(error) => return self.refused(&error),
        };
        self.note(|| format!("{node} changes {id:?} by {dot:?}: {change:?}"));
        self.oracle.note_change(dot, Changed::new(change, &seen, &held, epoch, &id));
        self.staged_by_client(node, dot, id)
    }

    fn any_change(&mut self, now_s: u64) -> (EntryId, Change) {
        let key = self.rng.below(KEYS);
        let expires = self.rng.permille(self.scenario.expire_permille);
        let expires_at_s = expires.then(|| now_s + 1 + self.rng.below(MAX_TTL_S));
        let of_whole = self.rng.permille(OF_WHOLE_PERMILLE);
        let described = Change::Describe(self.rng.permille(700).then(|| Bytes::from_static(b"{}")));
        let whole = if self.rng.permille(700) { Change::Clear } else { described };
        let kind = [Kind::Counter, Kind::Set, Kind::Map][self.rng.below(3) as usize];
        if kind == Kind::Counter {
            let amount = self.rng.below(20) as i64 - 5;
            let window = expires_at_s.map_or(&b"count"[..], |_| WINDOW);
            let key = [window, key.to_string().as_bytes()].concat();
            let change = if of_whole { whole } else { Change::Add { amount, expires_at_s } };
            return (EntryId::whole(NAMESPACE, kind, key), change);
        }
        let key = format!("{}\0{key}", kind.name());
        if of_whole {
            return (EntryId::whole(NAMESPACE, kind, key), whole);
        }
        let id = EntryId::element(NAMESPACE, kind, key, format!("element {}", self.rng.below(ELEMENTS)));
        if self.rng.permille(self.scenario.delete_permille) {
            return (id, Change::Remove);
        }
        let bytes =
            if kind == Kind::Map { Bytes::from(format!("field {}", self.next)) } else { Bytes::new() };
        (id, Change::Put(Content { bytes, expires_at_s }))
    }
}
