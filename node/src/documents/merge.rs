//! JSON merge patch (RFC 7386): an object of what is to be otherwise, with null for what is to go.

use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, Value};
use serde_json::{Map, Value as Json};

use super::DocumentError;
use super::tree::{Tree, plain_members};
use super::write::Writer;

/// Applies a patch to the whole document.
pub(crate) fn apply(writer: &mut Writer<'_, '_>, patch: &Json) -> Result<(), DocumentError> {
    match plain_members(patch)? {
        Some(members) => merge(writer, &ROOT, members, 1),
        None => Err(DocumentError::NoObject { given: Tree::from_json(patch, 1)?.type_name() }),
    }
}

fn merge(
    writer: &mut Writer<'_, '_>,
    map: &ObjId,
    members: &Map<String, Json>,
    depth: usize,
) -> Result<(), DocumentError> {
    for (key, wanted) in members {
        let prop = Prop::Map(key.clone());
        let there = writer.doc().get(map, prop.clone())?.map(|(value, id)| (value.into_owned(), id));
        match (wanted, plain_members(wanted)?) {
            (Json::Null, _) if there.is_none() => {}
            (Json::Null, _) => writer.delete(map, prop)?,
            (_, None) => writer.assign(map, prop, &Tree::from_json(wanted, depth + 1)?, depth)?,
            (_, Some(members)) => {
                let object = match there {
                    Some((Value::Object(ObjType::Map | ObjType::Table), id)) => id,
                    _ => writer.put_object(map, prop, ObjType::Map, depth)?,
                };
                merge(writer, &object, members, depth + 1)?;
            }
        }
    }
    Ok(())
}
