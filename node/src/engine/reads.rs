//! Reading: straight from the store, without the engine's thread, as of now.
//!
//! The rule this file upholds: what cannot be read is an error, never "not there".

use bytes::Bytes;
use replication::read::kinds::{self, ElementPage, KeyPage};
use replication::{Kind, NamespaceId, Value, read};

use super::{Engine, Listed, Page, ReadError, unix_ms};

impl Engine {
    /// The value a reader sees now; `None` when there is none (never written, deleted or expired).
    /// Reads the store directly, without the engine thread: microseconds when the row is cached.
    ///
    /// # Errors
    /// Where the node does not serve, or the row cannot be read.
    pub fn read(&self, namespace: NamespaceId, key: &[u8]) -> Result<Option<Value>, ReadError> {
        let store = &self.shared.readable()?;
        read::value(store, namespace, key, now_s()).map_err(|error| self.shared.read_failed(error))
    }

    /// Up to `limit` keys that start with `prefix` and come strictly after `after`. Blocking: call it
    /// under `tokio::task::block_in_place`. A page may hold fewer rows than `limit` (even none) and
    /// still have a `next_after`.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn list(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let page = self.values(namespace, prefix, after, limit)?;
        let listed = |(key, value): (Bytes, Value)| Listed {
            key,
            expires_at_s: value.expires_at_s,
            metadata: value.metadata,
        };
        Ok(Page { rows: page.rows.into_iter().map(listed).collect(), next_after: page.next_after })
    }

    /// As [`Engine::list`], with the values, as far as their rows have them.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn values(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<read::Page, ReadError> {
        let store = &self.shared.readable()?;
        let page = read::page(store, namespace, prefix, after, limit, now_s());
        page.map_err(|error| self.shared.read_failed(error))
    }

    /// The metadata of a set or map, serialised JSON.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn metadata(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        key: &[u8],
    ) -> Result<Option<Bytes>, ReadError> {
        let store = &self.shared.readable()?;
        kinds::metadata(store, namespace, kind, key).map_err(|error| self.shared.read_failed(error))
    }

    /// Up to `limit` members of a set, or fields of a map, that start with `prefix` and come strictly after `after`.
    /// Blocking, and short pages have a next one, as those of [`Engine::list`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn elements(
        &self,
        whole: (NamespaceId, Kind, &[u8]),
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<ElementPage, ReadError> {
        let store = &self.shared.readable()?;
        let page = kinds::elements(store, whole, prefix, after, limit, now_s());
        page.map_err(|error| self.shared.read_failed(error))
    }

    /// As [`Engine::list`], the keys of counters, sets or maps.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn keys_of(
        &self,
        of: (NamespaceId, Kind),
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<KeyPage, ReadError> {
        let store = &self.shared.readable()?;
        let page = kinds::keys_page(store, of, prefix, after, limit, now_s());
        page.map_err(|error| self.shared.read_failed(error))
    }
}

fn now_s() -> u64 {
    unix_ms() / 1000
}
