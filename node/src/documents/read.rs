//! A document, or part of it, as it is now or was at some heads.

use automerge::{ChangeHash, ObjId, ObjType, ReadDoc, ScalarValue, Value};

use super::tree::Tree;
use super::{DocumentError, MAX_DEPTH, MAX_JSON_BYTES};

/// What a member or item costs beside its own bytes, about.
const ROW_BYTES: usize = 8;

/// Reads, within a budget for all that is read with it.
pub(crate) struct Reader<'a> {
    heads: Option<&'a [ChangeHash]>,
    left_bytes: usize,
}

impl<'a> Reader<'a> {
    /// Of the document as it is, or as it was.
    pub(crate) fn new(heads: Option<&'a [ChangeHash]>) -> Self {
        Self { heads, left_bytes: MAX_JSON_BYTES }
    }

    /// What this value is, which is so deep in the document.
    pub(crate) fn tree(
        &mut self,
        doc: &impl ReadDoc,
        value: Value<'_>,
        id: &ObjId,
        depth: usize,
    ) -> Result<Tree, DocumentError> {
        let object = match value {
            Value::Object(object) => object,
            Value::Scalar(scalar) => {
                self.spend(scalar_bytes(&scalar))?;
                return Ok(Tree::Scalar(scalar.into_owned()));
            }
        };
        if object == ObjType::Text {
            let text = self.heads.map_or_else(|| doc.text(id), |heads| doc.text_at(id, heads))?;
            self.spend(text.len())?;
            return Ok(Tree::Text(text));
        }
        if depth > MAX_DEPTH {
            return Err(DocumentError::TooDeep);
        }
        if object == ObjType::List {
            return Ok(Tree::List(self.items(doc, id, depth)?.into_iter().map(|(tree, _)| tree).collect()));
        }
        let range = self.heads.map_or_else(|| doc.map_range(id, ..), |heads| doc.map_range_at(id, .., heads));
        let member = |item: automerge::iter::MapRangeItem<'_>| {
            self.spend(item.key.len())?;
            let id = item.id();
            Ok((item.key.into_owned(), self.tree(doc, item.value.into_value(), &id, depth + 1)?))
        };
        Ok(Tree::Map(range.map(member).collect::<Result<_, DocumentError>>()?))
    }

    /// The items of a list, each with its id.
    pub(crate) fn items(
        &mut self,
        doc: &impl ReadDoc,
        list: &ObjId,
        depth: usize,
    ) -> Result<Vec<(Tree, ObjId)>, DocumentError> {
        let range =
            self.heads.map_or_else(|| doc.list_range(list, ..), |heads| doc.list_range_at(list, .., heads));
        let item = |item: automerge::iter::ListRangeItem<'_>| {
            let id = item.id();
            Ok((self.tree(doc, item.value.into_value(), &id, depth + 1)?, id))
        };
        range.map(item).collect()
    }

    fn spend(&mut self, bytes: usize) -> Result<(), DocumentError> {
        let left = self.left_bytes.checked_sub(bytes + ROW_BYTES);
        self.left_bytes = left.ok_or(DocumentError::TooMuchJson)?;
        Ok(())
    }
}

fn scalar_bytes(scalar: &ScalarValue) -> usize {
    match scalar {
        ScalarValue::Str(text) => text.len(),
        ScalarValue::Bytes(bytes) | ScalarValue::Unknown { bytes, .. } => bytes.len(),
        _ => 0,
    }
}
