//! Documents as they are stored, and word to those who keep one in memory of what was written to it meanwhile.
//!
//! The rule this file upholds: the engine's thread never waits for a reader, and what waits to be asked for is bounded:
//! who follows a document that changes much is told to read it anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use replication::doc::{self, Chunks};
use replication::replica::documents::ChangedDocuments;
use replication::{Kind, NamespaceId};

use super::{Engine, ReadError, unix_ms};

/// The most elements of one document that are told of one by one.
const MAX_ELEMENTS: usize = 256;

/// The name of a document.
pub(crate) type Name = (NamespaceId, Bytes);

/// What has changed in a document since that was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Elements; the empty one is what is said of the whole.
    pub(crate) elements: BTreeSet<Bytes>,
    /// Whether anything may have changed.
    pub(crate) is_cut: bool,
}

/// The documents that are followed.
#[derive(Default)]
pub(super) struct Followed(Mutex<HashMap<Name, News>>);

impl Followed {
    /// Takes what a flush has made durable.
    pub(super) fn note(&self, changed: ChangedDocuments) {
        if changed.ids.is_empty() && !changed.is_cut {
            return;
        }
        let mut followed = self.lock();
        if changed.is_cut {
            followed.values_mut().for_each(|news| *news = News { is_cut: true, ..News::default() });
        }
        for id in changed.ids {
            let Some(news) = followed.get_mut(&(id.namespace, id.key)) else { continue };
            if news.elements.len() < MAX_ELEMENTS && !news.is_cut {
                news.elements.insert(id.element);
            } else {
                *news = News { is_cut: true, ..News::default() };
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, News>> {
        // A panic elsewhere leaves word that is still true.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Tells of changes to this document from now on, until [`Engine::unfollow_document`]. Read it after this, not before.
    pub(crate) fn follow_document(&self, name: &Name) {
        self.shared.followed.lock().insert(name.clone(), News::default());
    }

    /// Forgets it.
    pub(crate) fn unfollow_document(&self, name: &Name) {
        self.shared.followed.lock().remove(name);
    }

    /// What has changed since this was last called; nothing of what is not followed.
    pub(crate) fn document_news(&self, name: &Name) -> News {
        self.shared.followed.lock().get_mut(name).map(std::mem::take).unwrap_or_default()
    }

    /// The chunks of a document. Blocking, as [`Engine::list`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn document_chunks(&self, (namespace, key): &Name) -> Result<Chunks, ReadError> {
        let store = &self.shared.readable()?;
        let chunks = doc::read(store, (*namespace, key), unix_ms() / 1000);
        chunks.map_err(|error| self.shared.read_failed(error))
    }

    /// When a document expires, in Unix seconds.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(crate) fn document_expiry(&self, (namespace, key): &Name) -> Result<Option<u64>, ReadError> {
        let page = self.keys_of((*namespace, Kind::Doc), key, None, 1)?;
        Ok(page.keys.into_iter().next().filter(|row| row.key == *key).and_then(|row| row.expires_at_s))
    }
}

#[cfg(test)]
mod tests {
    use replication::EntryId;

    use super::*;

    fn changed(key: &'static str, elements: std::ops::Range<usize>) -> ChangedDocuments {
        let id = |n: usize| EntryId::element(NamespaceId([1; 16]), Kind::Doc, key, n.to_string());
        ChangedDocuments { ids: elements.map(id).collect(), is_cut: false }
    }

    #[test]
    fn who_follows_a_document_is_told_of_it_and_of_no_other() {
        let followed = Followed::default();
        let name: Name = (NamespaceId([1; 16]), Bytes::from("a"));
        followed.lock().insert(name.clone(), News::default());
        followed.note(changed("a", 0..2));
        followed.note(changed("b", 0..2));
        assert_eq!(followed.lock().len(), 1);
        assert_eq!(followed.lock()[&name].elements.len(), 2);
        followed.note(ChangedDocuments { is_cut: true, ..ChangedDocuments::default() });
        assert!(followed.lock()[&name].is_cut);
    }

    #[test]
    fn what_waits_to_be_asked_for_is_bounded() {
        let name: Name = (NamespaceId([1; 16]), Bytes::from("a"));
        for (count, is_cut) in [(MAX_ELEMENTS - 1, false), (MAX_ELEMENTS, false), (MAX_ELEMENTS + 1, true)] {
            let followed = Followed::default();
            followed.lock().insert(name.clone(), News::default());
            followed.note(changed("a", 0..count));
            let news = followed.lock()[&name].clone();
            assert_eq!((news.elements.len(), news.is_cut), (if is_cut { 0 } else { count }, is_cut));
        }
    }
}
