//! Reading for those who watch: the states under a range of keys, and what the log says was written since.
//!
//! The rule this file upholds: the log is given only where it is whole. Each row tells how many events its origin had
//! written by then, so a row that is missing shows, whether it was swept in the meantime or never came.

use std::ops::ControlFlow;

use super::damaged_row;
use super::states;
use crate::clock::{Hlc, ReplicaId};
use crate::codec::row;
use crate::entry::{Entry, EntryId};
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::Position;

/// A page of states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePage {
    /// In the order of their row keys; tombstones and what has expired among them.
    pub states: Vec<(EntryId, Entry)>,
    /// The row key with which the next page begins; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// The states of entries whose row keys start with `range`, from this row key on: up to `max_rows`, and about as many bytes.
pub fn states<S: Store>(
    store: &S,
    range: &[u8],
    from: &[u8],
    (max_rows, max_bytes): (usize, usize),
) -> Result<StatePage, StoreError> {
    let mut page = StatePage::default();
    let (mut bytes, mut is_over) = (0, false);
    let (_, next) = states::walk(store, from, max_rows, &mut |id, entry| {
        is_over = !keys::entry(&id).starts_with(range);
        if is_over {
            return false;
        }
        bytes += id.user_bytes() + entry.body.frame_bytes();
        page.states.push((id, entry));
        bytes < max_bytes
    })?;
    page.next = next.filter(|_| !is_over);
    Ok(page)
}

/// A page of an origin's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The events that wrote wanted entries, in their order.
    pub rows: Vec<(Hlc, EntryId)>,
    /// The page goes as far as this.
    pub reached: Position,
    /// Whether that is as far as was asked for.
    pub is_last: bool,
}

/// The events of `origin` after one position up to another that wrote entries which `wanted` picks, of up to `max_rows`
/// rows; `None` where the log has not all events from there to here.
pub fn log<S: Store>(
    store: &S,
    origin: ReplicaId,
    (after, upto): (Position, Position),
    wanted: &dyn Fn(&EntryId) -> bool,
    max_rows: usize,
) -> Result<Option<LogPage>, StoreError> {
    let origins = states::summary(store)?.origins;
    let index = origins.iter().position(|(known, _)| *known == origin);
    let Some(index) = index.and_then(|index| u16::try_from(index).ok()) else { return Ok(None) };
    let mut page = LogPage { rows: Vec::new(), reached: after, is_last: true };
    let (mut looked_at, mut is_whole, mut fault) = (0, true, None);
    store.scan(&keys::log(index, after.hlc.next()), &mut |row_key, row| {
        let Some(hlc) = keys::parse_log(row_key, index).filter(|hlc| *hlc <= upto.hlc) else {
            return ControlFlow::Break(());
        };
        if looked_at >= max_rows {
            page.is_last = false;
            return ControlFlow::Break(());
        }
        looked_at += 1;
        let log_row = match row::decode_log(row_key, hlc, &row) {
            Ok(log_row) => log_row,
            Err(why) => {
                fault = Some(damaged_row(&why));
                return ControlFlow::Break(());
            }
        };
        // A row that a repair has left behind does not count.
        is_whole = log_row.position.ops == 0 || log_row.position.ops == page.reached.ops.wrapping_add(1);
        if !is_whole {
            return ControlFlow::Break(());
        }
        let ops = if log_row.position.ops == 0 { page.reached.ops } else { log_row.position.ops };
        page.reached = Position { ops, ..log_row.position };
        if wanted(&log_row.id) {
            page.rows.push((hlc, log_row.id));
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = fault {
        return Err(error);
    }
    is_whole &= !page.is_last || page.reached.ops == upto.ops;
    Ok(is_whole.then_some(page))
}

/// The state of an entry; `None` where there is none.
pub fn state<S: Store>(store: &S, id: &EntryId) -> Result<Option<Entry>, StoreError> {
    let row_key = keys::entry(id);
    let Some(row) = store.read(&row_key)? else { return Ok(None) };
    let mut summary = states::summary(store)?;
    states::decoded(store, &mut summary, &row_key, &row).map(|(_, entry)| Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::digest::DigestKey;
    use crate::entry::{Body, NamespaceId};
    use crate::member::MemberRecord;
    use crate::replica::{Replica, Settings};
    use crate::store::Batch;
    use crate::store::memory::MemoryStore;

    const NAMESPACE: NamespaceId = NamespaceId([9; 16]);

    fn replica() -> Replica<MemoryStore> {
        let settings = Settings::new([7; 16], DigestKey::new([8; 32]));
        let mut replica = Replica::open(MemoryStore::default(), settings, ReplicaId([1; 16])).unwrap();
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 0 };
        replica.found(now, &MemberRecord { pop: "a".into(), region: "here".into() }).unwrap();
        replica.flush().unwrap();
        replica
    }

    fn write(replica: &mut Replica<MemoryStore>, keys: std::ops::Range<u64>) -> Position {
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 0 };
        for n in keys {
            let id = EntryId::value(NAMESPACE, format!("{n:03}"));
            replica.write(now, id, Body::Tombstone).unwrap();
        }
        replica.flush().unwrap();
        replica.vector().position(replica.id())
    }

    fn read_log(replica: &Replica<MemoryStore>, mut after: Position, upto: Position) -> Option<Vec<EntryId>> {
        let mut ids = Vec::new();
        loop {
            let page = log(replica.store(), replica.id(), (after, upto), &|_| true, 7).unwrap()?;
            assert!(page.rows.len() <= 7);
            ids.extend(page.rows.into_iter().map(|(_, id)| id));
            after = page.reached;
            if page.is_last {
                return Some(ids);
            }
        }
    }

    #[test]
    fn the_log_gives_every_event_of_an_interval_once() {
        let mut replica = replica();
        let from = replica.vector().position(replica.id());
        let upto = write(&mut replica, 0..50);
        let ids = read_log(&replica, from, upto).unwrap();
        let expected: Vec<_> = (0..50).map(|n| EntryId::value(NAMESPACE, format!("{n:03}"))).collect();
        assert_eq!(ids, expected);
        assert_eq!(read_log(&replica, upto, upto), Some(Vec::new()));
    }

    /// Were the swept part of a log passed over in silence, deletes would never be told.
    #[test]
    fn a_log_with_a_hole_is_not_given() {
        let mut replica = replica();
        let from = replica.vector().position(replica.id());
        let upto = write(&mut replica, 0..30);
        let page = log(replica.store(), replica.id(), (from, upto), &|_| true, 100).unwrap().unwrap();
        let after_last = Position { hlc: from.hlc, ..Position::default() };
        assert_eq!(read_log(&replica, after_last, upto), None, "the count does not join");
        for hole in [0, 10, 29] {
            let row_key = keys::log(0, page.rows[hole].0).to_vec();
            let row = replica.store().read(&row_key).unwrap().unwrap();
            replica.store_mut().commit(Batch::from([(row_key.clone(), None)])).unwrap();
            assert_eq!(read_log(&replica, from, upto), None, "hole at {hole}");
            replica.store_mut().commit(Batch::from([(row_key, Some(row.to_vec()))])).unwrap();
        }
        assert_eq!(read_log(&replica, from, upto).map(|ids| ids.len()), Some(30));
        let stranger = ReplicaId([2; 16]);
        assert_eq!(log(replica.store(), stranger, (from, upto), &|_| true, 7).unwrap(), None);
    }

    #[test]
    fn pages_of_states_stay_in_their_range() {
        let mut replica = replica();
        write(&mut replica, 0..120);
        let range = keys::key_parts(NAMESPACE, crate::entry::Kind::Value, b"01");
        let (mut from, mut found) = (range.clone(), Vec::new());
        loop {
            let page = states(replica.store(), &range, &from, (3, 1 << 20)).unwrap();
            found.extend(page.states.into_iter().map(|(id, _)| id.key));
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let expected: Vec<_> = (10..20).map(|n| format!("{n:03}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_merged_is_noted_and_no_more_than_asked_for() {
        let mut replica = replica();
        write(&mut replica, 0..3);
        assert_eq!(replica.take_changed(), None);
        replica.note_changes(true);
        let upto = write(&mut replica, 1..5);
        let changed = replica.take_changed().unwrap();
        assert_eq!((changed.states.len(), changed.is_cut), (4, false));
        assert!(changed.states.values().any(|entry| entry.dot.hlc == upto.hlc));
        assert_eq!(replica.take_changed().unwrap().states.len(), 0);
        replica.note_changes(false);
        write(&mut replica, 0..3);
        assert_eq!(replica.take_changed(), None);
    }
}
