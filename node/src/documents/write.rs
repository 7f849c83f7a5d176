//! Makes a part of a document be what is wanted, with the fewest operations that say so.
//!
//! The rule this file upholds: what is there already is not written again, so that what others do to it meanwhile stays.
//! Objects are changed member by member, lists by the few insertions and deletions that they differ in, texts by
//! character, and a number put on a counter counts by the difference.

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value};

use super::diff::{MAX_STEPS, hunks};
use super::read::Reader;
use super::tree::Tree;
use super::{DocumentError, MAX_CHANGE_OPS, MAX_COUNT, MAX_DEPTH};

/// Writes one change, within its bounds.
pub(crate) struct Writer<'t, 'd> {
    tx: &'t mut Transaction<'d>,
    reader: Reader<'static>,
    steps: usize,
}

impl<'t, 'd> Writer<'t, 'd> {
    pub(crate) fn new(tx: &'t mut Transaction<'d>) -> Self {
        Self { tx, reader: Reader::new(None), steps: MAX_STEPS }
    }

    /// The document as it has become.
    pub(crate) fn doc(&self) -> &Transaction<'d> {
        self.tx
    }

    /// What is at this value now.
    pub(crate) fn read(&mut self, value: Value<'_>, id: &ObjId, depth: usize) -> Result<Tree, DocumentError> {
        self.reader.tree(&*self.tx, value, id, depth)
    }

    /// Makes the whole document this.
    pub(crate) fn assign_root(&mut self, tree: &Tree) -> Result<(), DocumentError> {
        match tree {
            Tree::Map(_) => self.update_map(&ROOT, tree, 1),
            other => Err(DocumentError::NoObject { given: other.type_name() }),
        }
    }

    /// Makes a member, or an item that is there, this. `depth` is that of what holds it.
    pub(crate) fn assign(
        &mut self,
        object: &ObjId,
        prop: Prop,
        wanted: &Tree,
        depth: usize,
    ) -> Result<(), DocumentError> {
        let mut there = self.tx.get_all(object, prop.clone())?;
        let is_contested = there.len() > 1;
        let last = there.pop().map(|(value, id)| (value.into_owned(), id));
        match (last, wanted) {
            (Some((Value::Object(ObjType::Map | ObjType::Table), id)), Tree::Map(_)) => {
                self.update_map(&id, wanted, depth + 1)
            }
            (Some((Value::Object(ObjType::List), id)), Tree::List(items)) => {
                self.update_list(&id, items, depth + 1)
            }
            (Some((Value::Object(ObjType::Text), id)), Tree::Text(text)) => self.update_text(&id, text),
            (Some((Value::Object(ObjType::Text), id)), Tree::Scalar(ScalarValue::Str(text))) => {
                self.update_text(&id, text)
            }
            (Some((Value::Scalar(there), _)), Tree::Scalar(wanted)) => {
                self.assign_scalar(object, prop, &there, wanted, is_contested)
            }
            _ => self.put(object, prop, wanted, depth),
        }
    }

    /// Puts an item in before this position, at most the length of the list.
    pub(crate) fn insert(
        &mut self,
        list: &ObjId,
        position: usize,
        wanted: &Tree,
        depth: usize,
    ) -> Result<(), DocumentError> {
        match wanted {
            Tree::Scalar(scalar) => self.tx.insert(list, position, scalar.clone())?,
            Tree::Text(text) => {
                let id = self.tx.insert_object(list, position, ObjType::Text)?;
                self.splice(&id, 0, 0, text)?;
            }
            Tree::Map(_) => {
                let id = self.tx.insert_object(list, position, ObjType::Map)?;
                self.update_map(&id, wanted, depth + 1)?;
            }
            Tree::List(items) => {
                let id = self.tx.insert_object(list, position, ObjType::List)?;
                self.fill(&id, items, depth + 1)?;
            }
        }
        self.check_length(0)
    }

    /// Takes away what is there.
    pub(crate) fn delete(&mut self, object: &ObjId, prop: Prop) -> Result<(), DocumentError> {
        self.tx.delete(object, prop)?;
        self.check_length(0)
    }

    /// Replaces so many characters of a text from this position on, within it.
    pub(crate) fn splice(
        &mut self,
        text: &ObjId,
        position: usize,
        delete: usize,
        insert: &str,
    ) -> Result<(), DocumentError> {
        self.check_length(delete.saturating_add(insert.chars().count()))?;
        Ok(self.tx.splice_text(text, position, delete as isize, insert)?)
    }

    /// Counts a counter that stands at `count` by so much.
    pub(crate) fn count(
        &mut self,
        object: &ObjId,
        prop: Prop,
        count: i64,
        by: i64,
    ) -> Result<(), DocumentError> {
        let sum = count.checked_add(by).filter(|sum| sum.unsigned_abs() <= MAX_COUNT as u64);
        sum.ok_or(DocumentError::CountTooLarge)?;
        if by != 0 {
            self.tx.increment(object, prop, by)?;
        }
        self.check_length(0)
    }

    fn assign_scalar(
        &mut self,
        object: &ObjId,
        prop: Prop,
        there: &ScalarValue,
        wanted: &ScalarValue,
        is_contested: bool,
    ) -> Result<(), DocumentError> {
        let is_there = Tree::Scalar(there.clone()).satisfies(&Tree::Scalar(wanted.clone()));
        match (there, wanted) {
            // Of several values that were written at once, who writes one of them decides for it.
            _ if is_there && !is_contested => Ok(()),
            (ScalarValue::Counter(count), _) if is_there => self.count(object, prop, count.into(), 0),
            (ScalarValue::Counter(count), ScalarValue::Int(wanted)) => {
                let count = i64::from(count);
                let by = wanted.checked_sub(count).ok_or(DocumentError::CountTooLarge)?;
                self.count(object, prop, count, by)
            }
            (ScalarValue::Counter(count), ScalarValue::Counter(wanted)) => {
                let (count, wanted) = (i64::from(count), i64::from(wanted));
                let by = wanted.checked_sub(count).ok_or(DocumentError::CountTooLarge)?;
                self.count(object, prop, count, by)
            }
            (ScalarValue::Timestamp(_), ScalarValue::Int(at_ms)) => {
                self.put_scalar(object, prop, ScalarValue::Timestamp(*at_ms))
            }
            _ => self.put_scalar(object, prop, wanted.clone()),
        }
    }

    fn put_scalar(&mut self, object: &ObjId, prop: Prop, scalar: ScalarValue) -> Result<(), DocumentError> {
        self.tx.put(object, prop, scalar)?;
        self.check_length(0)
    }

    /// Writes over whatever is there.
    fn put(&mut self, object: &ObjId, prop: Prop, wanted: &Tree, depth: usize) -> Result<(), DocumentError> {
        match wanted {
            Tree::Scalar(scalar) => self.put_scalar(object, prop, scalar.clone()),
            Tree::Text(text) => {
                let id = self.tx.put_object(object, prop, ObjType::Text)?;
                self.splice(&id, 0, 0, text)
            }
            Tree::Map(_) => {
                let id = self.put_object(object, prop, ObjType::Map, depth)?;
                self.update_map(&id, wanted, depth + 1)
            }
            Tree::List(items) => {
                let id = self.put_object(object, prop, ObjType::List, depth)?;
                self.fill(&id, items, depth + 1)
            }
        }
    }

    /// A new, empty object or list in place of what is there.
    pub(crate) fn put_object(
        &mut self,
        object: &ObjId,
        prop: Prop,
        kind: ObjType,
        depth: usize,
    ) -> Result<ObjId, DocumentError> {
        check_depth(depth + 1)?;
        let id = self.tx.put_object(object, prop, kind)?;
        self.check_length(0)?;
        Ok(id)
    }

    fn fill(&mut self, list: &ObjId, items: &[Tree], depth: usize) -> Result<(), DocumentError> {
        check_depth(depth)?;
        items.iter().enumerate().try_for_each(|(position, item)| self.insert(list, position, item, depth))
    }

    fn update_map(&mut self, map: &ObjId, wanted: &Tree, depth: usize) -> Result<(), DocumentError> {
        check_depth(depth)?;
        let Tree::Map(wanted) = wanted else { return Ok(()) };
        let keys: Vec<String> = self.tx.keys(map).collect();
        for key in keys {
            if !wanted.contains_key(&key) {
                self.delete(map, Prop::Map(key))?;
            }
        }
        wanted.iter().try_for_each(|(key, tree)| self.assign(map, Prop::Map(key.clone()), tree, depth))
    }

    fn update_list(&mut self, list: &ObjId, wanted: &[Tree], depth: usize) -> Result<(), DocumentError> {
        check_depth(depth)?;
        let there = self.reader.items(&*self.tx, list, depth)?;
        let names = |tree: &Tree| tree.name();
        let old: Vec<String> = there.iter().map(|(tree, _)| names(tree)).collect();
        let new: Vec<String> = wanted.iter().map(names).collect();
        // From the end, so that what is in front keeps its number.
        for hunk in hunks(&old, &new, &mut self.steps).iter().rev() {
            let wanted = &wanted[hunk.new..hunk.new + hunk.insert];
            let both = hunk.delete.min(hunk.insert);
            for position in (hunk.old + both..hunk.old + hunk.delete).rev() {
                self.delete(list, Prop::Seq(position))?;
            }
            for (number, item) in wanted.iter().enumerate() {
                match number < both {
                    true => self.assign(list, Prop::Seq(hunk.old + number), item, depth)?,
                    false => self.insert(list, hunk.old + number, item, depth)?,
                }
            }
        }
        Ok(())
    }

    fn update_text(&mut self, id: &ObjId, wanted: &str) -> Result<(), DocumentError> {
        let Tree::Text(there) = self.reader.tree(&*self.tx, Value::Object(ObjType::Text), id, 0)? else {
            return Ok(());
        };
        let [old, new]: [Vec<char>; 2] = [&there, wanted].map(|text| text.chars().collect());
        for hunk in hunks(&old, &new, &mut self.steps).iter().rev() {
            let insert: String = new[hunk.new..hunk.new + hunk.insert].iter().collect();
            self.splice(id, hunk.old, hunk.delete, &insert)?;
        }
        Ok(())
    }

    /// Whether the change may have so many operations more.
    fn check_length(&self, more: usize) -> Result<(), DocumentError> {
        match self.tx.pending_ops().saturating_add(more) {
            ops if ops > MAX_CHANGE_OPS => Err(DocumentError::ChangeTooLong),
            _ => Ok(()),
        }
    }
}

fn check_depth(depth: usize) -> Result<(), DocumentError> {
    if depth > MAX_DEPTH { Err(DocumentError::TooDeep) } else { Ok(()) }
}
