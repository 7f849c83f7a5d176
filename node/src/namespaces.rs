//! The list of namespaces: who owns which, under what title.
//!
//! A namespace is an entry of [`NamespaceId::SYSTEM`], key `account/<account>/<namespace>`, value
//! `{"title": ...}`, so it replicates, merges and survives like every other entry. The rule this file
//! upholds: an account reaches its own namespaces and no others. Titles are unique per account as this
//! node sees them; two PoPs that create one title at the same moment both keep theirs, under two ids.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use replication::{NamespaceId, Payload, Value};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::engine::{Ack, Engine, ReadError, Write, WriteError};
use crate::{homes, quotas};

/// The most namespaces an account may have (the limit of Workers KV).
pub const MAX_NAMESPACES: usize = 1000;
/// The longest title, in bytes of UTF-8.
pub const MAX_TITLE_BYTES: usize = 512;
/// How many owners the cache holds before it starts anew.
const MAX_CACHED_OWNERS: usize = 4096;
/// Rows asked of the engine at a time when the list is read.
const LIST_PAGE_ROWS: usize = 1000;

/// One namespace of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its id.
    pub id: NamespaceId,
    /// Its title, 1 to [`MAX_TITLE_BYTES`] bytes.
    pub title: String,
}

/// Why a change of the list was not made.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The account has no such namespace.
    #[error("namespace not found")]
    NotFound,
    /// The account has a namespace of this title.
    #[error("a namespace with this account ID and title already exists")]
    DuplicateTitle,
    /// Empty, or longer than [`MAX_TITLE_BYTES`].
    #[error("a title has 1 to {MAX_TITLE_BYTES} bytes of UTF-8; this one has {len}")]
    BadTitle {
        /// What it has.
        len: usize,
    },
    /// The account has [`MAX_NAMESPACES`].
    #[error("this account has {MAX_NAMESPACES} namespaces, which is the limit; delete one first")]
    TooMany,
    /// The engine could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine could not write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The list, as this node's engine holds it. Accounts are 32 lower-case hexadecimal digits.
pub struct Namespaces {
    engine: Engine,
    owners: ArcSwap<Owners>,
    /// Held while a title is checked and written.
    changing: Mutex<()>,
}

/// Who owns what, as far as asked, at one version of the list. Only what was found is kept, so that
/// asking for ids at random does not fill it.
#[derive(Clone, Default)]
struct Owners {
    version: u64,
    account_of: HashMap<NamespaceId, Box<str>>,
}

#[derive(Deserialize)]
struct Record {
    title: String,
}

impl Namespaces {
    /// The list that this engine holds.
    pub fn new(engine: Engine) -> Self {
        Self { engine, owners: ArcSwap::default(), changing: Mutex::new(()) }
    }

    /// Whether the account owns the namespace. Asked on every request: a look-up in memory as long as
    /// the list has not changed.
    pub fn owns(&self, account: &str, id: NamespaceId) -> Result<bool, ReadError> {
        // The version is read before the entry: an entry that changes in between leaves a cache of the
        // old version, which the next request throws away.
        let version = self.engine.system_version();
        let owners = self.owners.load();
        if owners.version == version && owners.account_of.get(&id).is_some_and(|owner| **owner == *account) {
            return Ok(true);
        }
        let owned = self.engine.read(NamespaceId::SYSTEM, &entry_key(account, id))?.is_some();
        if owned {
            let mut owners = match owners.version == version && owners.account_of.len() < MAX_CACHED_OWNERS {
                true => Owners::clone(&owners),
                false => Owners { version, ..Owners::default() },
            };
            owners.account_of.insert(id, account.into());
            self.owners.store(Arc::new(owners));
        }
        Ok(owned)
    }

    /// Whether any of these accounts owns the namespace. Asked where a request names no account: as quick as
    /// [`Namespaces::owns`] once the owner was found.
    pub fn is_owned_by_any(&self, accounts: &[String], id: NamespaceId) -> Result<bool, ReadError> {
        let owners = self.owners.load();
        let last = owners.account_of.get(&id);
        let last = accounts.iter().find(|account| last.is_some_and(|last| **last == ***account));
        for account in last.into_iter().chain(accounts) {
            if self.owns(account, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the owner of the namespace was found, and nothing has changed since.
    pub(crate) fn has_known_owner(&self, id: NamespaceId) -> bool {
        let version = self.engine.system_version();
        let owners = self.owners.load();
        owners.version == version && owners.account_of.contains_key(&id)
    }

    /// One namespace of the account.
    pub fn find(&self, account: &str, id: NamespaceId) -> Result<Namespace, NamespaceError> {
        let entry = self.engine.read(NamespaceId::SYSTEM, &entry_key(account, id))?;
        let title = title_of(entry.as_ref().ok_or(NamespaceError::NotFound)?);
        Ok(Namespace { id, title })
    }

    /// Every namespace of the account, in the order of their ids. Blocking: call it under
    /// `tokio::task::block_in_place`.
    pub fn list(&self, account: &str) -> Result<Vec<Namespace>, ReadError> {
        let prefix = format!("account/{account}/");
        let mut namespaces = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page =
                self.engine.list(NamespaceId::SYSTEM, prefix.as_bytes(), after.as_deref(), LIST_PAGE_ROWS)?;
            for row in &page.rows {
                let id = std::str::from_utf8(&row.key[prefix.len()..]).ok().and_then(|id| id.parse().ok());
                // A row may be deleted between the listing and the reading.
                if let (Some(id), Some(entry)) = (id, self.engine.read(NamespaceId::SYSTEM, &row.key)?) {
                    namespaces.push(Namespace { id, title: title_of(&entry) });
                }
            }
            after = page.next_after;
            if after.is_none() {
                return Ok(namespaces);
            }
        }
    }

    /// Adds a namespace of a new random id.
    pub async fn create(&self, account: &str, title: &str) -> Result<Namespace, NamespaceError> {
        let _changing = self.changing.lock().await;
        let present = self.check_title(account, title, None)?;
        if present >= MAX_NAMESPACES {
            return Err(NamespaceError::TooMany);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| WriteError::Unavailable { reason: error.to_string() })?;
        let namespace = Namespace { id: NamespaceId(id), title: title.to_owned() };
        self.put(account, &namespace).await?;
        Ok(namespace)
    }

    /// Gives a namespace another title.
    pub async fn rename(
        &self,
        account: &str,
        id: NamespaceId,
        title: &str,
    ) -> Result<Namespace, NamespaceError> {
        let _changing = self.changing.lock().await;
        self.find(account, id)?;
        self.check_title(account, title, Some(id))?;
        let namespace = Namespace { id, title: title.to_owned() };
        self.put(account, &namespace).await?;
        Ok(namespace)
    }

    /// Takes a namespace off the list: its keys cannot be reached from then on. Their rows stay in the
    /// store until a purge of namespaces without an owner exists.
    pub async fn delete(&self, account: &str, id: NamespaceId) -> Result<(), NamespaceError> {
        let _changing = self.changing.lock().await;
        self.find(account, id)?;
        let mut keys = vec![entry_key(account, id)];
        for beside in [quotas::row_key(id), homes::row_key(id)] {
            if self.engine.read(NamespaceId::SYSTEM, &beside)?.is_some() {
                keys.push(beside);
            }
        }
        let delete = |key: Vec<u8>| Write::Delete { namespace: NamespaceId::SYSTEM, key: key.into() };
        self.engine.write(keys.into_iter().map(delete).collect(), Ack::Durable).await?;
        Ok(())
    }

    /// Whether `title` is well formed and no namespace but `renamed` has it; gives how many there are.
    fn check_title(
        &self,
        account: &str,
        title: &str,
        renamed: Option<NamespaceId>,
    ) -> Result<usize, NamespaceError> {
        if title.is_empty() || title.len() > MAX_TITLE_BYTES {
            return Err(NamespaceError::BadTitle { len: title.len() });
        }
        let present = tokio::task::block_in_place(|| self.list(account))?;
        if present.iter().any(|other| other.title == title && Some(other.id) != renamed) {
            return Err(NamespaceError::DuplicateTitle);
        }
        Ok(present.len())
    }

    async fn put(&self, account: &str, namespace: &Namespace) -> Result<(), WriteError> {
        let record = serde_json::json!({ "title": namespace.title }).to_string();
        let value = Value { payload: Payload::Inline(record.into()), metadata: None, expires_at_s: None };
        let key = entry_key(account, namespace.id).into();
        let write = Write::Put { namespace: NamespaceId::SYSTEM, key, value };
        self.engine.write(vec![write], Ack::Durable).await.map(|_| ())
    }
}

fn entry_key(account: &str, id: NamespaceId) -> Vec<u8> {
    format!("account/{account}/{id}").into_bytes()
}

/// The title in an entry. One that cannot be read (written by a later version, say) still leaves the
/// namespace listed and its keys in reach.
fn title_of(entry: &Value) -> String {
    let record = match &entry.payload {
        Payload::Inline(bytes) => serde_json::from_slice::<Record>(bytes).ok(),
        Payload::Chunked(_) => None,
    };
    record.map_or_else(String::new, |record| record.title)
}
