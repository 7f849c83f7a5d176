//! Clients that edit documents, each edit a field of its own name, and delete them.

use automerge::transaction::Transactable;
use automerge::{ActorId, ROOT, ReadDoc};
use bytes::Bytes;
use replication::doc;
use replication::entry::Kind;
use replication::{Body, Change, EntryId, Store};

use super::oracle::NAMESPACE;
use super::oracle::documents::{EXPIRING, Edit};
use super::oracle::kinds::Changed;
use super::{Simulation, rows};

/// Of 1,000 changes, how many are of documents.
pub(super) const DOCUMENTS_PERMILLE: u64 = 200;

/// Documents there are, beside one that expires.
const DOCUMENTS: u64 = 2;

/// Of 1,000 changes of documents, how many delete one.
const DELETED_PERMILLE: u64 = 120;

/// The longest that one lives which expires.
const MAX_TTL_S: u64 = 5;

/// The fields of the document that a store has under a key.
pub(crate) fn fields(disk: &impl Store, key: &[u8], now_s: u64) -> Result<Vec<String>, String> {
    let chunks = doc::read(disk, (NAMESPACE, key), now_s).map_err(|error| error.to_string())?;
    let changes = chunks.standing.iter().flat_map(|chunk| doc::changes(chunk.form, &chunk.bytes));
    Ok(doc::assemble(changes).keys(ROOT).collect())
}

impl Simulation {
    pub(super) fn change_document(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let now = self.now(node);
        let key = match self.rng.below(DOCUMENTS + 1) {
            DOCUMENTS => Bytes::from_static(EXPIRING),
            number => Bytes::from(format!("doc {number}")),
        };
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        // What is staged is seen by who writes: it is committed first, so that the rows tell.
        replica.commit().map_err(|error| format!("node {node} failed: {error}"))?;
        let (held, epoch) = (rows::claims(replica.store())?, replica.epoch());
        let whole = EntryId::whole(NAMESPACE, Kind::Doc, key.clone());
        let (id, change, edit) = if self.rng.permille(DELETED_PERMILLE) {
            let expires = key == EXPIRING && self.rng.permille(500);
            let at_s = now.wall_ms / 1000 + 1 + self.rng.below(MAX_TTL_S);
            (whole, if expires { Change::Expire(Some(at_s)) } else { Change::Clear }, None)
        } else {
            let field = format!("field {}", self.next);
            let actor = ActorId::from(&self.rng.below(u64::MAX).to_be_bytes()[..]);
            let Some(replica) = &self.nodes[node].replica else { return Ok(()) };
            let (row, edit) = edit(replica.store(), &key, now.wall_ms / 1000, actor, field)?;
            (EntryId { element: row.0, ..whole }, Change::Put(row.1), Some(edit))
        };
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        let dot = match replica.change(now, id.clone(), change.clone()) {
            Ok(dot) => dot,
            Err(error) => return self.refused(&error),
        };
        self.note(|| format!("{node} changes {id:?} by {dot:?}: {edit:?}"));
        self.oracle.note_change(dot, Changed::new(change, &[], &held, epoch, &id));
        if let Some(edit) = edit {
            self.oracle.note_edit(id.clone(), edit);
        }
        self.staged_by_client(node, dot, id)
    }

    /// The body of what was staged is not told of: what matters is what was asked for.
    pub(super) fn staged_by_client(
        &mut self,
        node: usize,
        dot: replication::Dot,
        id: EntryId,
    ) -> Result<(), String> {
        self.nodes[node].staged.push((dot, id, Body::Tombstone));
        self.drive_or_crash(node)
    }
}

/// The row of an edit that adds this field to the document as this store has it.
fn edit(
    disk: &impl Store,
    key: &[u8],
    now_s: u64,
    actor: ActorId,
    field: String,
) -> Result<((Bytes, replication::Content), Edit), String> {
    let chunks = doc::read(disk, (NAMESPACE, key), now_s).map_err(|error| error.to_string())?;
    let changes = chunks.standing.iter().flat_map(|chunk| doc::changes(chunk.form, &chunk.bytes));
    let mut document = doc::assemble(changes).with_actor(actor);
    let follows = document.keys(ROOT).collect();
    let mut transaction = document.transaction();
    transaction.put(ROOT, field.as_str(), true).map_err(|error| error.to_string())?;
    transaction.commit();
    let change = document.get_last_local_change().ok_or("an edit without a change")?;
    let rows = doc::rows(&Bytes::copy_from_slice(change.raw_bytes()));
    let row = rows.map_err(|error| error.to_string())?.remove(0);
    Ok((row, Edit { field, follows }))
}
