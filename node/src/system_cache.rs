//! What was read of entries of the system namespace, kept as long as none of them may have changed.
//!
//! A change there marks all of it stale at once, and each row is read again when it is asked for: one look-up in the
//! store, so that a stream of changes costs each request a few microseconds and nothing is ever built anew as a whole.
//!
//! The rule this file upholds: what is given is no older than the version that stood when it was asked for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};

use crate::engine::{Engine, ReadError};

/// How much is kept before it is read anew.
const MAX_CACHED: usize = 65_536;

/// Values by key, each with the version at which it was read.
pub(crate) struct SystemCache<K, V>(RwLock<HashMap<K, (u64, V)>>);

impl<K, V> Default for SystemCache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Copy + Eq + Hash, V: Clone> SystemCache<K, V> {
    /// The value of this key. Where it is not known, or may have changed, `read` gives it, shown what it was. What is
    /// not there is not kept, so that asking at random fills nothing.
    pub(crate) fn find(
        &self,
        engine: &Engine,
        key: K,
        read: impl FnOnce(Option<V>) -> Result<Option<V>, ReadError>,
    ) -> Result<Option<V>, ReadError> {
        // The version is read before the row: a row that changes in between is kept under the old one, and is stale.
        let version = engine.system_version();
        let last = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let last = match last {
            Some((at, value)) if at == version => return Ok(Some(value)),
            last => last.map(|(_, value)| value),
        };
        let was_known = last.is_some();
        let found = read(last)?;
        if was_known || found.is_some() {
            let mut cached = self.0.write().unwrap_or_else(PoisonError::into_inner);
            match &found {
                Some(value) => {
                    if cached.len() >= MAX_CACHED {
                        cached.clear();
                    }
                    cached.insert(key, (version, value.clone()));
                }
                None => drop(cached.remove(&key)),
            }
        }
        Ok(found)
    }
}
