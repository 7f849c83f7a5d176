//! Reading counters, sets and maps straight from a store.
//!
//! A state names the replica of its dot by a number of the store's summary, which is read only where that matters, once a
//! page: where a set or map was emptied, or several replicas have written to one element.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{MAX_ROWS_LOOKED_AT, damaged_row, scan_page, states};
use crate::clock::ReplicaId;
use crate::codec::row::{self, Summary};
use crate::entry::{Body, EntryId, Kind, NamespaceId};
use crate::keys;
use crate::kinds::{Bounded, Cleared, Content, Counter, Element, Head};
use crate::store::{Store, StoreError};

/// A counter as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterView {
    /// What it stands at.
    pub count: i128,
    /// Serialised JSON.
    pub metadata: Option<Bytes>,
    /// When all of it will have expired, in Unix seconds.
    pub expires_at_s: Option<u64>,
}

/// The counter under `key` as of `now_s` (Unix seconds); `None` where nobody has counted, or all of it was reset or has
/// expired.
pub fn counter<S: Store>(
    store: &S,
    namespace: NamespaceId,
    key: &[u8],
    now_s: u64,
) -> Result<Option<CounterView>, StoreError> {
    let id = EntryId::whole(namespace, Kind::Counter, Bytes::copy_from_slice(key));
    let Some(Body::Counter(counter)) = body(store, &keys::entry(&id))? else { return Ok(None) };
    Ok(view(&counter, now_s))
}

fn view(counter: &Counter, now_s: u64) -> Option<CounterView> {
    let count = counter.count(now_s)?;
    Some(CounterView {
        count,
        metadata: counter.metadata().cloned(),
        expires_at_s: counter.expires_at_s(now_s),
    })
}

/// A bounded counter as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundedView {
    /// What it stands at.
    pub count: i128,
    /// How much of that may be taken here.
    pub rights_here: u64,
    /// Serialised JSON.
    pub metadata: Option<Bytes>,
}

impl BoundedView {
    /// What a reader sees of this state at this replica; `None` where nobody has added to it, or it was deleted.
    pub fn of(bounded: &Bounded, here: ReplicaId) -> Option<Self> {
        Some(Self {
            count: bounded.count()?,
            rights_here: bounded.rights(here),
            metadata: bounded.metadata().cloned(),
        })
    }
}

/// The content of a member (for which it is empty) or field, as of `now_s`; `None` where it is not there.
pub fn element<S: Store>(store: &S, id: &EntryId, now_s: u64) -> Result<Option<Content>, StoreError> {
    let cleared = cleared(store, (id.namespace, id.kind, &id.key), now_s)?;
    let row_key = keys::entry(id);
    let Some(row) = store.read(&row_key)? else { return Ok(None) };
    shown(store, &mut Summary::default(), (&row_key, &row), &cleared, now_s)
}

/// The metadata of a set or map.
pub fn metadata<S: Store>(
    store: &S,
    namespace: NamespaceId,
    kind: Kind,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    Ok(head(store, namespace, kind, key)?.and_then(|head| head.metadata().cloned()))
}

/// One page of the members of a set, or fields of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementPage {
    /// Members or fields with their content, in the order of their bytes.
    pub rows: Vec<(Bytes, Content)>,
    /// The page after this one lists what comes after this element; `None` where nothing may come.
    pub next_after: Option<Bytes>,
}

/// Up to `limit` members or fields that start with `prefix` and come after `after`. A page may be short, even empty, and
/// still have a next one.
pub fn elements<S: Store>(
    store: &S,
    whole: (NamespaceId, Kind, &[u8]),
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
    now_s: u64,
) -> Result<ElementPage, StoreError> {
    let cleared = cleared(store, whole, now_s)?;
    Ok(elements_looked_at(store, whole, &cleared, prefix, after, limit, now_s)?.0)
}

/// The same, where it is known what was emptied, with the number of rows that were looked at.
fn elements_looked_at<S: Store>(
    store: &S,
    (namespace, kind, key): (NamespaceId, Kind, &[u8]),
    cleared: &Cleared,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
    now_s: u64,
) -> Result<(ElementPage, usize), StoreError> {
    let head_key = keys::entry(&EntryId::whole(namespace, kind, Bytes::copy_from_slice(key)));
    let range = [&head_key[..], prefix].concat();
    // Beyond the head itself.
    let from = match after {
        Some(after) if after >= prefix => [&head_key[..], after, &[0]].concat(),
        _ if prefix.is_empty() => [&head_key[..], &[0]].concat(),
        _ => range.clone(),
    };
    let element = |row_key: &[u8]| Bytes::copy_from_slice(&row_key[head_key.len()..]);
    let mut summary = Summary::default();
    let scanned = scan_page(store, &from, &range, limit, |row_key, row| {
        let content = shown(store, &mut summary, (row_key, &row), cleared, now_s)?;
        Ok(content.map(|content| (element(row_key), content)))
    })?;
    let next_after = scanned.last_of_more.map(|row_key| element(&row_key));
    Ok((ElementPage { rows: scanned.found, next_after }, scanned.looked_at))
}

/// One page of keys of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys under which there is something, in the order of their bytes.
    pub keys: Vec<KeyRow>,
    /// The page after this one lists what comes after this key; `None` where nothing may come.
    pub next_after: Option<Bytes>,
}

/// A key with what a listing says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key.
    pub key: Bytes,
    /// Serialised JSON.
    pub metadata: Option<Bytes>,
    /// When all of it will have expired, in Unix seconds; of sets and maps only where that was said of the whole.
    pub expires_at_s: Option<u64>,
}

/// Up to `limit` keys of counters (bounded or not), sets or maps that start with `prefix` and come after `after`. Sets and maps without a
/// member or field are not there. A page may be short, even empty, and still have a next one: it ends after the set or map
/// with which as many rows were looked at as a page may.
pub fn keys_page<S: Store>(
    store: &S,
    (namespace, kind): (NamespaceId, Kind),
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
    now_s: u64,
) -> Result<KeyPage, StoreError> {
    let range = keys::key_parts(namespace, kind, prefix);
    let mut from = match after {
        Some(after) if after >= prefix => beyond(namespace, kind, after),
        _ => range.clone(),
    };
    let mut page = KeyPage::default();
    let mut rows_looked_at = 0;
    for _ in 0..MAX_KEYS_LOOKED_AT {
        let Some(key) = first_key(store, &from, &range)? else {
            page.next_after = None;
            return Ok(page);
        };
        if page.keys.len() == limit || rows_looked_at >= MAX_ROWS_LOOKED_AT {
            return Ok(page);
        }
        let found = match kind {
            Kind::Counter => counter(store, namespace, &key, now_s)?.map(|found| KeyRow {
                key: key.clone(),
                metadata: found.metadata,
                expires_at_s: found.expires_at_s,
            }),
            // Whoever it is that may take from it, it is there.
            Kind::Bounded => {
                match body(store, &keys::entry(&EntryId::whole(namespace, kind, key.clone())))? {
                    Some(Body::Bounded(bounded)) if !bounded.is_dead() => Some(KeyRow {
                        key: key.clone(),
                        metadata: bounded.metadata().cloned(),
                        expires_at_s: None,
                    }),
                    _ => None,
                }
            }
            _ => {
                let head = head(store, namespace, kind, &key)?.unwrap_or_default();
                let whole = (namespace, kind, &key[..]);
                has_elements(store, whole, &head.cleared(now_s), now_s, &mut rows_looked_at)?.then(|| {
                    KeyRow {
                        key: key.clone(),
                        metadata: head.metadata().cloned(),
                        expires_at_s: head.expires_at_s().filter(|at| *at > now_s),
                    }
                })
            }
        };
        page.keys.extend(found);
        from = beyond(namespace, kind, &key);
        page.next_after = Some(key);
    }
    Ok(page)
}

/// The keys a listing may look at before it gives what it has.
const MAX_KEYS_LOOKED_AT: usize = 2_000;

/// The first row key that is of a later key than this one.
fn beyond(namespace: NamespaceId, kind: Kind, key: &[u8]) -> Vec<u8> {
    let id = EntryId::whole(namespace, kind, Bytes::copy_from_slice(key));
    if kind.has_elements() {
        keys::after_prefix(&keys::entry(&id))
    } else {
        [&keys::entry(&id)[..], &[0]].concat()
    }
}

/// The key of the first row from here on, if it is in the range.
fn first_key<S: Store>(store: &S, from: &[u8], range: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let mut found = None;
    store.scan(from, &mut |row_key, _| {
        if row_key.starts_with(range) {
            found = keys::parse_entry(row_key).map(|id| id.key);
        }
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn has_elements<S: Store>(
    store: &S,
    name: (NamespaceId, Kind, &[u8]),
    cleared: &Cleared,
    now_s: u64,
    rows_looked_at: &mut usize,
) -> Result<bool, StoreError> {
    let mut after = None;
    loop {
        let (page, looked_at) = elements_looked_at(store, name, cleared, &[], after.as_deref(), 1, now_s)?;
        *rows_looked_at += looked_at;
        if !page.rows.is_empty() || page.next_after.is_none() {
            return Ok(!page.rows.is_empty());
        }
        after = page.next_after;
    }
}

fn body<S: Store>(store: &S, row_key: &[u8]) -> Result<Option<Body>, StoreError> {
    let Some(row) = store.read(row_key)? else { return Ok(None) };
    row::decode_entry(row_key, &row).map(|row| Some(row.body)).map_err(|why| damaged_row(&why))
}

fn head<S: Store>(
    store: &S,
    namespace: NamespaceId,
    kind: Kind,
    key: &[u8],
) -> Result<Option<Head>, StoreError> {
    let id = EntryId::whole(namespace, kind, Bytes::copy_from_slice(key));
    let row_key = keys::entry(&id);
    let Some(row) = store.read(&row_key)? else { return Ok(None) };
    let row = row::decode_entry(&row_key, &row).map_err(|why| damaged_row(&why))?;
    let names_nobody = |head: &Head| head.clears.is_empty();
    Ok(match row.body {
        Body::Head(head) if names_nobody(&head) => Some(head),
        Body::Head(_) => match states::named(store, &mut Summary::default(), &row_key, row)?.body {
            Body::Head(head) => Some(head),
            _ => None,
        },
        _ => None,
    })
}

/// What went with the whole set, map or document as of `now_s`.
pub fn cleared<S: Store>(
    store: &S,
    (namespace, kind, key): (NamespaceId, Kind, &[u8]),
    now_s: u64,
) -> Result<Cleared, StoreError> {
    Ok(head(store, namespace, kind, key)?.map(|head| head.cleared(now_s)).unwrap_or_default())
}

fn shown<S: Store>(
    store: &S,
    summary: &mut Summary,
    (row_key, row): (&[u8], &Bytes),
    cleared: &Cleared,
    now_s: u64,
) -> Result<Option<Content>, StoreError> {
    let row = row::decode_entry(row_key, row).map_err(|why| damaged_row(&why))?;
    let is_simple = |element: &Element| element.parts.len() == 1 && cleared.is_empty();
    let body = match row.body {
        Body::Element(element) if is_simple(&element) => Body::Element(element),
        _ => states::named(store, summary, row_key, row)?.body,
    };
    let Body::Element(element) = body else { return Ok(None) };
    Ok(element.alive(cleared, now_s).last().map(|(_, content)| (*content).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Now, ReplicaId};
    use crate::kinds::Change;
    use crate::member::MemberRecord;
    use crate::store::memory::MemoryStore;
    use crate::{DigestKey, Replica, Settings};

    /// A listing over many sets that were emptied once looked at all of their rows before it gave anything.
    #[test]
    fn a_page_of_keys_ends_when_it_has_looked_at_enough_rows_of_emptied_sets() {
        const NAMESPACE: NamespaceId = NamespaceId([9; 16]);
        const MEMBERS: usize = MAX_ROWS_LOOKED_AT / 2 + 1;
        let settings = Settings::new([7; 16], DigestKey::new([8; 32]));
        let mut replica = Replica::open(MemoryStore::default(), settings, ReplicaId([1; 16])).unwrap();
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 0 };
        replica.found(now, &MemberRecord { pop: "a".into(), region: "here".into() }).unwrap();
        let mut write = |key: &'static str, member: String, change| {
            replica.change(now, EntryId::element(NAMESPACE, Kind::Set, key, member), change).unwrap();
        };
        for key in ["a", "b", "c"] {
            (0..MEMBERS).for_each(|number| write(key, number.to_string(), Change::Remove));
        }
        write("d", "m".into(), Change::Put(Content::default()));
        replica.flush().unwrap();
        let page = |after: Option<&[u8]>| {
            let page = keys_page(replica.store(), (NAMESPACE, Kind::Set), b"", after, 10, 1_800_000_000);
            let page = page.unwrap();
            (page.keys.into_iter().map(|row| row.key).collect::<Vec<_>>(), page.next_after)
        };
        let (keys, next_after) = page(None);
        assert_eq!((keys, next_after.as_deref()), (vec![], Some(&b"b"[..])));
        assert_eq!(page(next_after.as_deref()), (vec![Bytes::from("d")], None));
    }
}
