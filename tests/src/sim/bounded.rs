//! Clients that add to bounded counters and take from them, and what must hold of these at any moment.

use replication::codec::message::Stage;
use replication::entry::Kind;
use replication::kinds::ChangeError;
use replication::replica::WriteError;
use replication::{Change, EntryId};

use super::nodes::Node;
use super::oracle::kinds::Changed;
use super::oracle::{NAMESPACE, bounded};
use super::{Simulation, rows};

/// Of 1,000 changes, how many are of bounded counters.
pub(super) const BOUNDED_PERMILLE: u64 = 200;

/// Counters that are never deleted, and as many that are.
const KEYS: u64 = 2;

/// How long a client waits for rights.
const WAITS_US: u64 = 2_000_000;

/// The bounded counters that there may be.
fn ids() -> impl Iterator<Item = EntryId> {
    let keys = [bounded::KEPT, bounded::SOLD].into_iter();
    keys.flat_map(|kind| (0..KEYS).map(move |key| id(kind, key)))
}

fn id(kind: &str, key: u64) -> EntryId {
    EntryId::whole(NAMESPACE, Kind::Bounded, format!("{kind}{key}"))
}

impl Simulation {
    pub(super) fn change_bounded(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let now = self.now(node);
        let is_kept = self.rng.permille(500);
        let id = id(if is_kept { bounded::KEPT } else { bounded::SOLD }, self.rng.below(KEYS));
        let amount = 1 + self.rng.below(12) as i64;
        let change = match self.rng.below(20) {
            0..=7 => Change::Add { amount, expires_at_s: None },
            8..=16 => Change::Add { amount: -amount, expires_at_s: None },
            17 | 18 => {
                let other = self.any_node();
                Change::Give { to: self.nodes[other].id, amount: amount.unsigned_abs() }
            }
            _ if is_kept => Change::Add { amount: 0, expires_at_s: None },
            _ => Change::Clear,
        };
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        replica.commit().map_err(|error| format!("node {node} failed: {error}"))?;
        let seen = rows::state(replica.store(), &id)?.map(|state| state.dots()).unwrap_or_default();
        let (held, epoch) = (rows::claims(replica.store())?, replica.epoch());
        let dot = match replica.change(now, id.clone(), change.clone()) {
            Ok(dot) => dot,
            Err(WriteError::Change(ChangeError::LacksRights { .. })) => {
                if matches!(change, Change::Add { .. }) {
                    replica.want_rights(id, amount.unsigned_abs(), now.mono_us + WAITS_US);
                }
                return self.drive(node, true);
            }
            Err(error) => return self.refused(&error),
        };
        self.note(|| format!("{node} changes {id:?} by {dot:?}: {change:?}"));
        self.oracle.note_change(dot, Changed::new(change, &seen, &held, epoch, &id));
        self.staged_by_client(node, dot, id)
    }

    /// No bounded counter is below zero there, and nobody has spent rights that it had not. Two stores of one replica, or one
    /// that has forgotten what it held, spend them twice.
    pub(super) fn check_bounded(&self, node: &Node) -> Result<(), String> {
        let Some(replica) = &node.replica else { return Ok(()) };
        if self.forgot || self.oracle.has_doubts() || replica.stage() != Stage::Member {
            return Ok(());
        }
        rows::states_of(replica.store(), ids())?.iter().try_for_each(|(id, state)| {
            let found = bounded::check_not_negative(state);
            found.map_err(|why| format!("{:?} has {id:?}: {why}", replica.id()))
        })
    }
}
