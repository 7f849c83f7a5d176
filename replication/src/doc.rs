//! Documents: JSON that many edit at once, kept as the history of its changes.
//!
//! A document is an Automerge history (Kleppmann and Beresford, "A conflict-free replicated JSON datatype", 2017): a graph
//! of changes, each named by its SHA-256 and naming those it follows on. Each change is a *chunk*, and each chunk an element
//! under the document's key, put once and never changed: so an edit is one row on the disk and one on the wire, and copies
//! merge by having the same rows. What the document says follows from the set of its chunks alone ([`assemble`]).
//!
//! Deleting a document is emptying it, as a set is emptied: the chunks that its writer has seen go. An edit that the writer
//! has not seen survives, and with it the document, also what went: the PoP of that edit puts the history it follows on
//! again, as a chunk of another form ([`Form::History`]). That is done by [`crate::replica`], in the turn that hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;

use crate::clock::{Dot, ReplicaId};
use crate::codec::row::{self, Summary};
use crate::entry::{Body, EntryId, Kind, MAX_INLINE_BYTES, NamespaceId};
use crate::keys;
use crate::kinds::{Cleared, Content, Head, PartState};
use crate::read::states;
use crate::store::{Store, StoreError};

/// The largest chunk: what one edit may write, in the bytes of its change.
pub const MAX_CHUNK_BYTES: usize = 8 << 20;

/// Bytes of BLAKE3 in the name of a chunk.
const HASH_BYTES: usize = 16;

/// What a chunk is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Form {
    /// One change, which somebody made.
    Change = 1,
    /// A saved document: what changes that survived a delete follow on.
    History = 2,
}

/// A chunk of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What it is there for.
    pub form: Form,
    /// A change or a saved document, in Automerge's own format.
    pub bytes: Bytes,
    /// The events that put it.
    pub dots: Vec<Dot>,
    /// The elements it is made of.
    pub elements: Vec<Bytes>,
}

/// The name of a part of a chunk: what it is of, and which of how many. One chunk has one part, unless that would be larger
/// than a row may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PartName {
    form: Form,
    hash: [u8; HASH_BYTES],
    index: u16,
    count: u16,
}

impl PartName {
    fn to_element(self) -> Bytes {
        let mut element = vec![self.form as u8];
        element.extend_from_slice(&self.hash);
        if self.count > 1 {
            element.extend_from_slice(&self.index.to_be_bytes());
            element.extend_from_slice(&self.count.to_be_bytes());
        }
        element.into()
    }

    /// `None` for what no build of this protocol has written.
    fn parse(element: &[u8]) -> Option<Self> {
        let (form, rest) = element.split_first()?;
        let form = [Form::Change, Form::History].into_iter().find(|known| *known as u8 == *form)?;
        let (hash, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
        let (index, count) = match rest {
            [] => (0, 1),
            [a, b, c, d] => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
            _ => return None,
        };
        (index < count).then_some(Self { form, hash: *hash, index, count })
    }
}

/// The form of the chunk of which this element is a part.
pub(crate) fn form_of(element: &[u8]) -> Option<Form> {
    PartName::parse(element).map(|name| name.form)
}

/// A chunk is larger than [`MAX_CHUNK_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an edit of {bytes} bytes is larger than an edit may be ({MAX_CHUNK_BYTES} bytes)")]
pub struct ChunkTooLarge {
    /// How large it is.
    pub bytes: usize,
}

/// The elements that make up the chunk of a change, to be put under the document's key, with their contents.
///
/// # Errors
/// Where it is larger than [`MAX_CHUNK_BYTES`].
pub fn rows(bytes: &Bytes) -> Result<Vec<(Bytes, Content)>, ChunkTooLarge> {
    rows_of(Form::Change, &blake3::Hasher::new(), bytes)
}

/// The element under which a change is put that has one row.
pub(crate) fn element_of(change: &Bytes) -> Bytes {
    PartName { form: Form::Change, hash: hash_of(&blake3::Hasher::new(), change), index: 0, count: 1 }
        .to_element()
}

/// As [`rows`], of a history that this replica puts again. Two replicas that put the same do so under two names, so that one
/// can take its own back.
pub(crate) fn history_rows(by: ReplicaId, bytes: &Bytes) -> Result<Vec<(Bytes, Content)>, ChunkTooLarge> {
    rows_of(Form::History, blake3::Hasher::new().update(&by.0), bytes)
}

fn rows_of(
    form: Form,
    hasher: &blake3::Hasher,
    bytes: &Bytes,
) -> Result<Vec<(Bytes, Content)>, ChunkTooLarge> {
    if bytes.len() > MAX_CHUNK_BYTES {
        return Err(ChunkTooLarge { bytes: bytes.len() });
    }
    let hash = hash_of(hasher, bytes);
    let count = bytes.len().div_ceil(MAX_INLINE_BYTES).max(1) as u16;
    let part = |index: u16| {
        let from = usize::from(index) * MAX_INLINE_BYTES;
        let bytes = bytes.slice(from..bytes.len().min(from + MAX_INLINE_BYTES));
        (PartName { form, hash, index, count }.to_element(), Content { bytes, expires_at_s: None })
    };
    Ok((0..count).map(part).collect())
}

fn hash_of(hasher: &blake3::Hasher, bytes: &[u8]) -> [u8; HASH_BYTES] {
    let digest = *hasher.clone().update(bytes).finalize().as_bytes();
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&digest[..HASH_BYTES]);
    hash
}

/// Puts parts together until chunks are whole.
#[derive(Debug, Default)]
pub struct Gathering {
    parts: BTreeMap<PartName, (Bytes, Vec<Dot>)>,
}

impl Gathering {
    /// Adds the content of an element, and gives the chunk that is whole by it. What is not a part of a chunk is left alone.
    pub fn add(&mut self, element: &[u8], content: Bytes, dots: Vec<Dot>) -> Option<Chunk> {
        let name = PartName::parse(element)?;
        let PartName { form, hash, count, .. } = name;
        if count == 1 {
            return Some(Chunk { form, bytes: content, dots, elements: vec![name.to_element()] });
        }
        self.parts.insert(name, (content, dots));
        let all: Vec<PartName> = (0..count).map(|index| PartName { form, hash, index, count }).collect();
        if !all.iter().all(|part| self.parts.contains_key(part)) {
            return None;
        }
        let (mut bytes, mut dots) = (Vec::new(), BTreeSet::new());
        for part in &all {
            let (content, by) = self.parts.remove(part)?;
            bytes.extend_from_slice(&content);
            dots.extend(by);
        }
        let elements = all.into_iter().map(PartName::to_element).collect();
        Some(Chunk { form, bytes: bytes.into(), dots: dots.into_iter().collect(), elements })
    }
}

/// The chunks of a document, in the order of their names: those that stand, and those that went and are still here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// They make the document.
    pub standing: Vec<Chunk>,
    /// They went with a delete, and are dropped once every member knows of it.
    pub deleted: Vec<Chunk>,
}

/// Reads the chunks of the document under `key` as of `now_s` (Unix seconds). None stand where there is no document.
///
/// # Errors
/// Where a row cannot be read.
pub fn read<S: Store>(
    store: &S,
    (namespace, key): (NamespaceId, &[u8]),
    now_s: u64,
) -> Result<Chunks, StoreError> {
    let head_key = keys::entry(&EntryId::whole(namespace, Kind::Doc, Bytes::copy_from_slice(key)));
    let mut summary = states::summary(store)?;
    let head = head(store, &head_key, &mut summary)?;
    let cleared = head.cleared(now_s);
    let expired = Head { clears: BTreeMap::new(), ..head }.cleared(now_s);
    let mut chunks = Chunks::default();
    let (mut standing, mut deleted) = (Gathering::default(), Gathering::default());
    let mut fault = None;
    store.scan(&[&head_key[..], &[0]].concat(), &mut |row_key, row| {
        if !row_key.starts_with(&head_key) {
            return ControlFlow::Break(());
        }
        match part(store, &mut summary, (row_key, &row), &cleared, &expired) {
            Ok(Some((content, dots, true))) => {
                chunks.standing.extend(standing.add(&row_key[head_key.len()..], content, dots));
            }
            Ok(Some((content, dots, false))) => {
                chunks.deleted.extend(deleted.add(&row_key[head_key.len()..], content, dots));
            }
            Ok(None) => {}
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    fault.map_or(Ok(chunks), Err)
}

/// What of the document under `key` went or has expired, as of `now_s` (Unix seconds): a change by one of these events does not
/// stand.
///
/// # Errors
/// Where a row cannot be read.
pub fn cleared<S: Store>(
    store: &S,
    (namespace, key): (NamespaceId, &[u8]),
    now_s: u64,
) -> Result<Cleared, StoreError> {
    let head_key = keys::entry(&EntryId::whole(namespace, Kind::Doc, Bytes::copy_from_slice(key)));
    Ok(head(store, &head_key, &mut states::summary(store)?)?.cleared(now_s))
}

/// The change that the content of this element is, in Automerge's own format; `None` where it is a part of one, or a history.
pub fn change_in<'a>(element: &[u8], content: &'a Bytes) -> Option<&'a Bytes> {
    let name = PartName::parse(element)?;
    (name.form == Form::Change && name.count == 1).then_some(content)
}

fn head<S: Store>(store: &S, head_key: &[u8], summary: &mut Summary) -> Result<Head, StoreError> {
    let Some(row) = store.read(head_key)? else { return Ok(Head::default()) };
    Ok(match states::decoded(store, summary, head_key, &row)?.1.body {
        Body::Head(head) => known_here(head, summary),
        _ => Head::default(),
    })
}

/// The head without the emptyings that are not claimed yet: states run ahead of claims, and what comes before one of them
/// may be still to come.
fn known_here(mut head: Head, summary: &Summary) -> Head {
    let hlc_of = |replica: ReplicaId| summary.origins.iter().find(|(origin, _)| *origin == replica);
    head.clears.retain(|by, _| hlc_of(by.replica).is_some_and(|(_, position)| by.hlc <= position.hlc));
    head
}

/// The content of an element, by which events, and whether it stands; `None` where nothing was put, or it was removed or has
/// expired.
fn part<S: Store>(
    store: &S,
    summary: &mut Summary,
    (row_key, row): (&[u8], &Bytes),
    cleared: &Cleared,
    expired: &Cleared,
) -> Result<Option<(Bytes, Vec<Dot>, bool)>, StoreError> {
    let row = row::decode_entry(row_key, row).map_err(|why| {
        StoreError::new(format!("a row of a document is damaged ({why}); rebuild this node"))
    })?;
    let Body::Element(element) = states::named(store, summary, row_key, row)?.body else { return Ok(None) };
    let put = element.parts.iter().filter_map(|(replica, part)| match &part.state {
        PartState::Alive(content) => Some((Dot { hlc: part.hlc, replica: *replica }, &content.bytes)),
        PartState::Spent { .. } => None,
    });
    let put: Vec<_> = put.filter(|(dot, _)| !expired.covers(*dot)).collect();
    let standing: Vec<_> = put.iter().filter(|(dot, _)| !cleared.covers(*dot)).copied().collect();
    let stands = !standing.is_empty();
    let put = if stands { standing } else { put };
    Ok(put.first().map(|(_, bytes)| ((*bytes).clone(), put.iter().map(|(dot, _)| *dot).collect(), stands)))
}

/// The changes in a chunk; none where it is not what it says, which only hostile hands bring about.
pub fn changes(form: Form, bytes: &[u8]) -> Vec<Change> {
    let read = || match form {
        Form::Change => Change::try_from(bytes).into_iter().collect(),
        Form::History => Automerge::load(bytes).map(|document| document.get_changes(&[])).unwrap_or_default(),
    };
    // A saved document is taken apart by code that was not written for hostile bytes.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_default()
}

/// The document that these changes make: it depends on nothing but the set of them. A change that follows on one that is
/// not there is left out, and of two that claim to be one author's same step, the one with the greater name, with all
/// that follow on it.
pub fn assemble(changes: impl IntoIterator<Item = Change>) -> Automerge {
    let changes = in_order(changes);
    let mut document = Automerge::new();
    if apply(&mut document, changes.clone()) {
        return document;
    }
    // One of them is not what its author's Automerge would have made. Alone it shows.
    let mut document = Automerge::new();
    for change in changes {
        let before = document.clone();
        let follows = change.deps().iter().all(|dep| document.get_change_meta_by_hash(dep).is_some());
        if !follows || !apply(&mut document, vec![change]) {
            document = before;
        }
    }
    document
}

fn apply(document: &mut Automerge, changes: Vec<Change>) -> bool {
    catch_unwind(AssertUnwindSafe(|| document.apply_changes(changes).is_ok())).unwrap_or(false)
}

/// The changes whose history is whole, each once and after those it follows on; of those that may come next the one with
/// the least name comes first.
fn in_order(changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
    let mut waiting: BTreeMap<ChangeHash, Change> =
        changes.into_iter().map(|change| (change.hash(), change)).collect();
    let mut followers: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    let mut lacks: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    for (hash, change) in &waiting {
        let deps: BTreeSet<&ChangeHash> = change.deps().iter().collect();
        lacks.insert(*hash, deps.len());
        deps.into_iter().for_each(|dep| followers.entry(*dep).or_default().push(*hash));
    }
    let mut ready: BTreeSet<ChangeHash> =
        lacks.iter().filter(|(_, lacking)| **lacking == 0).map(|(hash, _)| *hash).collect();
    let mut taken = BTreeSet::new();
    let mut ordered = Vec::new();
    while let Some(hash) = ready.pop_first() {
        let Some(change) = waiting.remove(&hash) else { continue };
        if !taken.insert((change.actor_id().clone(), change.seq())) {
            continue;
        }
        ordered.push(change);
        for follower in followers.remove(&hash).unwrap_or_default() {
            let lacking = lacks.get_mut(&follower).expect("whoever follows was counted");
            *lacking -= 1;
            if *lacking == 0 {
                ready.insert(follower);
            }
        }
    }
    ordered
}

/// These changes and all that they follow on, as far as there is all of it.
pub(crate) fn history(
    of: impl Iterator<Item = ChangeHash>,
    all: &BTreeMap<ChangeHash, Change>,
) -> BTreeMap<ChangeHash, Change> {
    let mut history = BTreeMap::new();
    let mut open: Vec<ChangeHash> = of.collect();
    while let Some(hash) = open.pop() {
        let Some(change) = all.get(&hash) else { continue };
        if history.insert(hash, change.clone()).is_none() {
            open.extend(change.deps());
        }
    }
    in_order(history.into_values()).into_iter().map(|change| (change.hash(), change)).collect()
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{ActorId, ROOT, ReadDoc};

    use super::*;

    /// A change by this author that puts a field, upon these changes.
    fn change(author: u8, field: &str, upon: &[Change]) -> Change {
        let mut document = assemble(upon.to_vec()).with_actor(ActorId::from([author; 16]));
        let mut transaction = document.transaction();
        transaction.put(ROOT, field, true).unwrap();
        transaction.commit();
        document.get_last_local_change().unwrap()
    }

    fn fields(changes: impl IntoIterator<Item = Change>) -> Vec<String> {
        assemble(changes).keys(ROOT).collect()
    }

    #[test]
    fn a_chunk_is_as_many_rows_as_it_needs_and_is_whole_with_the_last() {
        for (len, count) in [(0, 1), (MAX_INLINE_BYTES, 1), (MAX_INLINE_BYTES + 1, 2), (MAX_CHUNK_BYTES, 512)]
        {
            let bytes = Bytes::from((0..len).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
            let mut parts = rows(&bytes).unwrap();
            assert_eq!(parts.len(), count);
            parts.reverse();
            let mut gathering = Gathering::default();
            let chunks: Vec<Option<Chunk>> =
                parts.iter().map(|(name, part)| gathering.add(name, part.bytes.clone(), vec![])).collect();
            assert!(chunks[..count - 1].iter().all(Option::is_none));
            assert_eq!(chunks[count - 1].as_ref().map(|chunk| &chunk.bytes), Some(&bytes));
        }
        assert!(rows(&vec![0; MAX_CHUNK_BYTES + 1].into()).is_err());
    }

    #[test]
    fn what_is_no_part_of_a_chunk_is_left_alone() {
        let mut gathering = Gathering::default();
        let name = rows(&Bytes::from("x")).unwrap().remove(0).0;
        for element in [
            &b""[..],
            b"\x03",
            &name[..16],
            &[&name[..], &[0]].concat(),
            &[&name[..], &[0, 2, 0, 2]].concat(),
        ] {
            assert_eq!(gathering.add(element, Bytes::new(), vec![]), None, "{element:?}");
        }
    }

    #[test]
    fn what_a_document_says_follows_from_the_set_of_its_changes() {
        let first = change(1, "a", &[]);
        let second = change(2, "b", std::slice::from_ref(&first));
        let third = change(3, "c", &[first.clone(), second.clone()]);
        let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
        let changes = [first, second.clone(), third.clone()];
        for order in orders {
            assert_eq!(fields(order.map(|at| changes[at].clone())), ["a", "b", "c"]);
        }
        assert!(fields([third, second]).is_empty(), "they follow on one that is not there");
    }

    /// Two PoPs may each be sent a change by one author under one number; refusing both or either would part them.
    #[test]
    fn of_two_changes_that_claim_one_step_the_same_one_counts_everywhere() {
        let (one, two) = (change(1, "one", &[]), change(1, "two", &[]));
        let upon = |before: &Change, field| change(2, field, std::slice::from_ref(before));
        let follows = [upon(&one, "on one"), upon(&two, "on two")];
        let seen = fields([one.clone(), two.clone(), follows[1].clone()]);
        assert_eq!(seen, fields([follows[1].clone(), two.clone(), one.clone()]));
        let least = if one.hash() < two.hash() { "one" } else { "two" };
        assert!(seen.contains(&least.to_owned()) && seen.len() <= 2, "{seen:?}");
    }

    #[test]
    fn what_is_no_change_says_nothing() {
        for bytes in [&b""[..], b"garbage", &[0; 100], &[0x85, 0x6f, 0x4a, 0x83, 1, 2, 3, 4, 1, 0]] {
            assert!(changes(Form::Change, bytes).is_empty() && changes(Form::History, bytes).is_empty());
        }
    }
}
