//! What one client may count on at one replica: it reads what it wrote, and never anything older than it has read.
//!
//! A session is one client at one node. It ends when the node crashes, since a read may show what is not durable yet;
//! what was acknowledged holds beyond that.

use std::collections::BTreeMap;

use replication::{Dot, EntryId};

/// The sessions of all nodes, one for each.
#[derive(Default)]
pub(super) struct Sessions {
    /// The newest state each has read or was acknowledged, since its node started.
    seen: BTreeMap<(usize, EntryId), Dot>,
    /// The newest write that each node has acknowledged.
    acknowledged: BTreeMap<(usize, EntryId), Dot>,
}

impl Sessions {
    /// A write was acknowledged at this node.
    pub(super) fn wrote(&mut self, node: usize, id: &EntryId, dot: Dot) {
        for known in [&mut self.seen, &mut self.acknowledged] {
            let newest = known.entry((node, id.clone())).or_insert(dot);
            *newest = dot.max(*newest);
        }
    }

    /// This node showed this state.
    ///
    /// # Errors
    /// Where its session has seen a newer one. Nothing may be shown where what came
    /// after it was over, and is dropped.
    pub(super) fn read(
        &mut self,
        node: usize,
        id: &EntryId,
        shown: Option<Dot>,
        may_be_gone: impl Fn(Dot) -> bool,
    ) -> Result<(), String> {
        let place = (node, id.clone());
        let before = self.seen.get(&place).max(self.acknowledged.get(&place)).copied();
        if shown < before && !(shown.is_none() && before.is_some_and(may_be_gone)) {
            return Err(format!(
                "node {node} shows {shown:?} on {:?}, though its session has seen {before:?}",
                id.key
            ));
        }
        if let Some(shown) = shown {
            self.seen.insert(place, shown);
        }
        Ok(())
    }

    /// The node has crashed: its session is over.
    pub(super) fn end(&mut self, node: usize) {
        self.seen.retain(|(at, _), _| *at != node);
    }

    /// The node has another store than before: what was acknowledged is the oracle's to account for.
    pub(super) fn forget(&mut self, node: usize) {
        self.end(node);
        self.acknowledged.retain(|(at, _), _| *at != node);
    }
}
