//! What several have written at once at one place: of such values readers see one, the same at every PoP.

use automerge::{Automerge, ChangeHash, ReadDoc, Value};
use serde_json::Value as Json;

use super::DocumentError;
use super::pointer::Pointer;
use super::read::Reader;

/// One of the values at a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conflict {
    pub(crate) value: Json,
    /// The change that wrote it.
    pub(crate) hash: ChangeHash,
    /// Who made that, in hexadecimal.
    pub(crate) actor: String,
    /// When, in Unix seconds by the clock of who made it.
    pub(crate) time_s: i64,
}

/// All values at a place, the one that is read last. One or none where there is no conflict.
pub(crate) fn at(doc: &Automerge, path: &Pointer) -> Result<Vec<Conflict>, DocumentError> {
    let spot = path.spot(doc, None)?;
    let prop = spot.prop().ok_or_else(|| path.nothing())?;
    let mut reader = Reader::new(None);
    let mut conflict = |(value, id): (Value<'_>, automerge::ObjId)| {
        let tree = reader.tree(doc, value, &id, spot.depth + 1)?;
        let hash = doc.hash_for_opid(&id);
        let missing = || DocumentError::Broken { reason: "a value has no change that wrote it".into() };
        let hash = hash.ok_or_else(missing)?;
        let meta = doc.get_change_meta_by_hash(&hash).ok_or_else(missing)?;
        Ok(Conflict {
            value: tree.to_json(),
            hash,
            actor: meta.actor.to_hex_string(),
            time_s: meta.timestamp,
        })
    };
    let values = doc.get_all(&spot.object, prop)?;
    values.into_iter().map(&mut conflict).collect()
}
