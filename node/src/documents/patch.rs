//! JSON patch (RFC 6902), with two operations more for what JSON cannot say: `splice` of a text and `increment` of a
//! counter, both of which others may do at the same time.
//!
//! The rule this file upholds: a patch is parsed whole before any of it is done.

use automerge::{ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value};
use serde_json::{Map, Value as Json};

use super::pointer::{Pointer, Spot};
use super::tree::Tree;
use super::write::Writer;
use super::{DocumentError, MAX_PATCH_OPERATIONS};

/// The operations of a patch, in their order.
#[derive(Debug, PartialEq)]
pub(crate) struct Patch(Vec<Operation>);

#[derive(Debug, PartialEq)]
enum Operation {
    Add { path: Pointer, value: Tree },
    Remove { path: Pointer },
    Replace { path: Pointer, value: Tree },
    Move { from: Pointer, path: Pointer },
    Copy { from: Pointer, path: Pointer },
    Test { path: Pointer, value: Tree },
    Splice { path: Pointer, position: usize, delete: usize, insert: String },
    Increment { path: Pointer, by: i64 },
}

impl Patch {
    /// The patch in this JSON.
    pub(crate) fn parse(json: &Json) -> Result<Self, DocumentError> {
        let Json::Array(operations) = json else {
            return Err(not_understood("a JSON patch is a list of operations"));
        };
        if operations.len() > MAX_PATCH_OPERATIONS {
            let given = operations.len();
            return Err(DocumentError::TooMany { what: "operations", given, limit: MAX_PATCH_OPERATIONS });
        }
        let parse = |(number, json): (usize, &Json)| operation(json).map_err(|cause| of(number, cause));
        operations.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Does all of it, or fails somewhere in it: then what is done is to be taken back.
    pub(crate) fn apply(&self, writer: &mut Writer<'_, '_>) -> Result<(), DocumentError> {
        let mut numbered = self.0.iter().enumerate();
        numbered
            .try_for_each(|(number, operation)| operation.apply(writer).map_err(|cause| of(number, cause)))
    }
}

fn of(number: usize, cause: DocumentError) -> DocumentError {
    DocumentError::Operation { number, cause: Box::new(cause) }
}

fn not_understood(reason: impl Into<String>) -> DocumentError {
    DocumentError::NotUnderstood { reason: reason.into() }
}

fn operation(json: &Json) -> Result<Operation, DocumentError> {
    let members = json.as_object().ok_or_else(|| not_understood("it is no object"))?;
    let pointer = |name: &str| Pointer::parse(text(members, name)?);
    let path = pointer("path")?;
    let value = || {
        let value = members.get("value").ok_or_else(|| not_understood("\"value\" is missing"))?;
        Tree::from_json(value, 1)
    };
    Ok(match text(members, "op")? {
        "add" => Operation::Add { path, value: value()? },
        "remove" => Operation::Remove { path },
        "replace" => Operation::Replace { path, value: value()? },
        "move" => Operation::Move { from: pointer("from")?, path },
        "copy" => Operation::Copy { from: pointer("from")?, path },
        "test" => Operation::Test { path, value: value()? },
        "splice" => Operation::Splice {
            path,
            position: count(members, "position")?,
            delete: members.get("delete").map_or(Ok(0), |_| count(members, "delete"))?,
            insert: members.get("insert").map_or(Ok(""), |_| text(members, "insert"))?.to_owned(),
        },
        "increment" => Operation::Increment {
            path,
            by: members
                .get("by")
                .and_then(Json::as_i64)
                .ok_or_else(|| not_understood("\"by\" must be a whole number"))?,
        },
        other => {
            return Err(not_understood(format!(
                "\"op\" must be add, remove, replace, move, copy, test, splice or increment, not \"{other}\""
            )));
        }
    })
}

fn text<'a>(members: &'a Map<String, Json>, name: &str) -> Result<&'a str, DocumentError> {
    let text = members.get(name).and_then(Json::as_str);
    text.ok_or_else(|| not_understood(format!("\"{name}\" must be there, a string")))
}

fn count(members: &Map<String, Json>, name: &str) -> Result<usize, DocumentError> {
    let count = members.get(name).and_then(Json::as_u64).and_then(|count| count.try_into().ok());
    count.ok_or_else(|| not_understood(format!("\"{name}\" must be a whole number from 0 on")))
}

impl Operation {
    fn apply(&self, writer: &mut Writer<'_, '_>) -> Result<(), DocumentError> {
        match self {
            Self::Add { path, value } => add(writer, path, value),
            Self::Remove { path } => remove(writer, path),
            Self::Replace { path, value } => {
                path.value(writer.doc(), None)?;
                replace(writer, path, value)
            }
            Self::Move { from, path } => {
                if from.contains(path) {
                    return Err(not_understood("nothing can be moved into itself"));
                }
                let tree = read(writer, from)?;
                if from != path {
                    remove(writer, from)?;
                    add(writer, path, &tree)?;
                }
                Ok(())
            }
            Self::Copy { from, path } => {
                let tree = read(writer, from)?;
                add(writer, path, &tree)
            }
            Self::Test { path, value } => match read(writer, path)?.reads_as(value) {
                true => Ok(()),
                false => Err(DocumentError::TestFailed { pointer: path.to_string() }),
            },
            Self::Splice { path, position, delete, insert } => {
                splice(writer, path, *position, *delete, insert)
            }
            Self::Increment { path, by } => increment(writer, path, *by),
        }
    }
}

fn read(writer: &mut Writer<'_, '_>, path: &Pointer) -> Result<Tree, DocumentError> {
    let (value, id, depth) = path.value(writer.doc(), None)?;
    writer.read(value, &id, depth)
}

/// Of a list, puts in before what is there; of an object, sets.
fn add(writer: &mut Writer<'_, '_>, path: &Pointer, value: &Tree) -> Result<(), DocumentError> {
    if path.is_root() {
        return writer.assign_root(value);
    }
    let spot = path.spot(writer.doc(), None)?;
    if !spot.is_list {
        return writer.assign(&spot.object, Prop::Map(spot.token), value, spot.depth);
    }
    let len = writer.doc().length(&spot.object);
    let position = match (spot.token.as_str(), spot.prop()) {
        ("-", _) => len,
        (_, Some(Prop::Seq(position))) => position,
        _ => return Err(path.nothing()),
    };
    if position > len {
        return Err(DocumentError::BadPosition { pointer: path.to_string(), given: position, len });
    }
    writer.insert(&spot.object, position, value, spot.depth)
}

fn remove(writer: &mut Writer<'_, '_>, path: &Pointer) -> Result<(), DocumentError> {
    if path.is_root() {
        return Err(not_understood("the whole document is removed with DELETE"));
    }
    path.value(writer.doc(), None)?;
    let (spot, prop) = member(writer, path)?;
    writer.delete(&spot.object, prop)
}

fn replace(writer: &mut Writer<'_, '_>, path: &Pointer, value: &Tree) -> Result<(), DocumentError> {
    if path.is_root() {
        return writer.assign_root(value);
    }
    let (spot, prop) = member(writer, path)?;
    writer.assign(&spot.object, prop, value, spot.depth)
}

fn splice(
    writer: &mut Writer<'_, '_>,
    path: &Pointer,
    position: usize,
    delete: usize,
    insert: &str,
) -> Result<(), DocumentError> {
    let pointer = path.to_string();
    let (value, id, depth) = path.value(writer.doc(), None)?;
    if value != Value::Object(ObjType::Text) {
        let found = writer.read(value, &id, depth)?.type_name();
        let wanted = "a text; make it one with {\"$text\": \"...\"}";
        return Err(DocumentError::OtherType { pointer, found, wanted });
    }
    let len = writer.doc().length(&id);
    match position.checked_add(delete) {
        Some(end) if end <= len => writer.splice(&id, position, delete, insert),
        _ => Err(DocumentError::BadPosition { pointer, given: position.saturating_add(delete), len }),
    }
}

fn increment(writer: &mut Writer<'_, '_>, path: &Pointer, by: i64) -> Result<(), DocumentError> {
    let (value, id, depth) = path.value(writer.doc(), None)?;
    let count = match value.as_scalar() {
        Some(ScalarValue::Counter(count)) => i64::from(count),
        _ => {
            let found = writer.read(value, &id, depth)?.type_name();
            let wanted = "a counter; make it one with {\"$counter\": 0}";
            return Err(DocumentError::OtherType { pointer: path.to_string(), found, wanted });
        }
    };
    let (spot, prop) = member(writer, path)?;
    writer.count(&spot.object, prop, count, by)
}

/// Where a pointer of any but the root leads, and the member or item there.
fn member(writer: &Writer<'_, '_>, path: &Pointer) -> Result<(Spot, Prop), DocumentError> {
    if path.is_root() {
        let pointer = path.to_string();
        let (found, wanted) = ("the whole document", "a part of it");
        return Err(DocumentError::OtherType { pointer, found, wanted });
    }
    let spot = path.spot(writer.doc(), None)?;
    debug_assert!(spot.object == ROOT || spot.depth > 1);
    let prop = spot.prop().ok_or_else(|| path.nothing())?;
    Ok((spot, prop))
}
