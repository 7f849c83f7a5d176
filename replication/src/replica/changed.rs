//! Which entries have changed, for a driver that has somebody to tell.
//!
//! The rule this file upholds: nobody who asks costs nothing, and what is kept for those who do is bounded. Noted is what
//! merges bring, not what a sweep drops: no reader ever sees the difference.

use std::collections::BTreeMap;

use super::Replica;
use crate::entry::{Entry, EntryId};
use crate::store::Store;

/// The most entries that are noted until they are taken.
pub const MAX_CHANGED_ENTRIES: usize = 16_384;
/// The most bytes of their names and states.
pub const MAX_CHANGED_BYTES: usize = 8 << 20;

/// What an entry costs beside its name and state, about.
const ENTRY_BYTES: usize = 128;

/// What has changed since it was last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The entries, each in its latest state.
    pub states: BTreeMap<EntryId, Entry>,
    /// Whether there was more than is noted: the log has the rest.
    pub is_cut: bool,
    bytes: usize,
}

impl Changed {
    fn note(&mut self, id: &EntryId, entry: &Entry) {
        let bytes = changed_bytes(id, entry);
        if self.states.len() == MAX_CHANGED_ENTRIES || self.bytes + bytes > MAX_CHANGED_BYTES {
            self.is_cut = true;
            return;
        }
        self.bytes += bytes;
        self.states.insert(id.clone(), entry.clone());
    }
}

/// About how many bytes of memory a noted entry takes.
pub fn changed_bytes(id: &EntryId, entry: &Entry) -> usize {
    ENTRY_BYTES + id.user_bytes() + entry.body.frame_bytes()
}

impl<S: Store> Replica<S> {
    /// Whether changes are noted from now on. Begin between two flushes, with nothing staged.
    pub fn note_changes(&mut self, is_wanted: bool) {
        if is_wanted != self.changed.is_some() {
            self.changed = is_wanted.then(Changed::default);
        }
    }

    /// What has changed since this was last called; `None` while nothing is noted. After [`Replica::flush`] it is durable,
    /// and [`Replica::vector`] covers it.
    pub fn take_changed(&mut self) -> Option<Changed> {
        self.changed.as_mut().map(std::mem::take)
    }

    pub(super) fn note_changed(&mut self, id: &EntryId, entry: &Entry) {
        self.documents.note(self.id, id, entry);
        self.rights.note(id);
        if let Some(changed) = &mut self.changed
            && self.veils.key_if_veiled(id).is_none()
        {
            changed.note(id, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::{Dot, Hlc, ReplicaId};
    use crate::entry::{Body, NamespaceId, Payload, Value};

    fn note(changed: &mut Changed, key: String, bytes: usize) {
        let payload = Payload::Inline(Bytes::from(vec![0; bytes]));
        let body = Body::Value(Value { payload, metadata: None, expires_at_s: None });
        let dot = Dot { hlc: Hlc::new(1, 0), replica: ReplicaId([1; 16]) };
        changed.note(&EntryId::value(NamespaceId([9; 16]), key), &Entry::first(dot, body));
    }

    #[test]
    fn what_is_noted_is_bounded_in_entries() {
        for (count, is_cut) in
            [(MAX_CHANGED_ENTRIES - 1, false), (MAX_CHANGED_ENTRIES, false), (MAX_CHANGED_ENTRIES + 1, true)]
        {
            let mut changed = Changed::default();
            (0..count).for_each(|n| note(&mut changed, n.to_string(), 1));
            assert_eq!((changed.states.len(), changed.is_cut), (count.min(MAX_CHANGED_ENTRIES), is_cut));
        }
    }

    #[test]
    fn what_is_noted_is_bounded_in_bytes() {
        let first = MAX_CHANGED_BYTES - 2 * (ENTRY_BYTES + 1);
        for (second, is_cut) in [(0, false), (1, true)] {
            let mut changed = Changed::default();
            note(&mut changed, "a".into(), first);
            note(&mut changed, "b".into(), second);
            assert_eq!((changed.states.len(), changed.is_cut), (2 - usize::from(is_cut), is_cut));
        }
    }
}
