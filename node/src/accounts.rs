//! The list of accounts: those that were made, and those that the configuration has tokens of.
//!
//! A made account is an entry of [`NamespaceId::SYSTEM`], key `accounts/<id>`, so it replicates like every other entry. It
//! says no more than that somebody wanted it, and its name: namespaces and tokens have the account in their own keys. The
//! rule this file upholds: an account goes only when it has neither.

use std::collections::BTreeMap;
use std::sync::Arc;

use littoral::api::tokens::{AccountInfo, CreateAccount, MAX_ACCOUNTS};
use replication::{NamespaceId, Payload, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::engine::{Ack, Engine, ReadError, Write, WriteError};
use crate::http::attributes::now_s;
use crate::namespaces::Namespaces;
use crate::tokens::{ACCOUNT_DIGITS, Tokens, check_name};

/// What the keys of made accounts begin with.
const PREFIX: &[u8] = b"accounts/";
/// Rows asked of the engine at a time when accounts are listed.
const LIST_PAGE_ROWS: usize = 1000;

/// Why an account was not made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no such account.
    #[error("there is no account {id}; `littoral account list` shows which there are")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// It cannot be one.
    #[error("{reason}")]
    Invalid {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// There is one of this id.
    #[error("there is an account {id} already")]
    Exists {
        /// The id.
        id: String,
    },
    /// There are [`MAX_ACCOUNTS`].
    #[error("there are {MAX_ACCOUNTS} accounts, which is the limit; delete one first")]
    TooMany,
    /// It has namespaces or tokens.
    #[error("account {id} has {namespaces} namespaces and {tokens} tokens; delete and revoke these first")]
    NotEmpty {
        /// The account.
        id: String,
        /// How many.
        namespaces: usize,
        /// How many, those of the configuration not counted.
        tokens: usize,
    },
    /// The configuration has a token of it.
    #[error(
        "the configuration of this PoP has a token of account {id} ([[http.tokens]]); take that out first"
    )]
    Configured {
        /// The account.
        id: String,
    },
    /// The engine could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine could not write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

#[derive(Default, Serialize, Deserialize)]
struct Record {
    name: String,
    created_at: u64,
}

/// The accounts that this node knows.
pub struct Accounts {
    engine: Engine,
    namespaces: Arc<Namespaces>,
    tokens: Arc<Tokens>,
    /// Held while an account is made or deleted.
    changing: Mutex<()>,
}

impl Accounts {
    /// The list that this engine holds.
    pub fn new(engine: Engine, namespaces: Arc<Namespaces>, tokens: Arc<Tokens>) -> Self {
        Self { engine, namespaces, tokens, changing: Mutex::new(()) }
    }

    /// All of them, in the order of their ids. Blocking: call it under `tokio::task::block_in_place`.
    ///
    /// # Errors
    /// Where the node does not serve.
    pub fn list(&self) -> Result<Vec<AccountInfo>, ReadError> {
        let configured = self.tokens.configured_accounts();
        let mut accounts: BTreeMap<String, Option<Record>> =
            configured.iter().map(|id| (id.to_string(), None)).collect();
        let mut after = None;
        loop {
            let page = self.engine.list(NamespaceId::SYSTEM, PREFIX, after.as_deref(), LIST_PAGE_ROWS)?;
            for row in &page.rows {
                // A row may be deleted between the listing and the reading.
                if let Some(entry) = self.engine.read(NamespaceId::SYSTEM, &row.key)? {
                    let id = String::from_utf8_lossy(&row.key[PREFIX.len()..]).into_owned();
                    accounts.insert(id, Some(record_of(&entry)));
                }
            }
            after = page.next_after;
            if after.is_none() {
                break;
            }
        }
        let configured = |id: &str| configured.contains(id);
        Ok(accounts.into_iter().map(|(id, record)| info(configured(&id), id, record)).collect())
    }

    /// The id in lower case, if there is such an account, made or configured.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], or where the node does not serve.
    pub fn find(&self, id: &str) -> Result<String, AccountError> {
        let not_found = || AccountError::NotFound { id: id.to_owned() };
        let id = parse_id(id).ok_or_else(not_found)?;
        match self.tokens.configured_accounts().contains(id.as_str()) || self.record(&id)?.is_some() {
            true => Ok(id),
            false => Err(not_found()),
        }
    }

    /// Whether there is a namespace of this id, whoever owns it. As quick as [`Namespaces::owns`] once its owner was found.
    ///
    /// # Errors
    /// Where the node does not serve.
    pub fn own(&self, namespace: NamespaceId) -> Result<bool, ReadError> {
        if self.namespaces.has_known_owner(namespace) {
            return Ok(true);
        }
        let accounts = tokio::task::block_in_place(|| self.list())?;
        let ids: Vec<String> = accounts.into_iter().map(|account| account.id).collect();
        self.namespaces.is_owned_by_any(&ids, namespace)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn create(&self, wanted: CreateAccount) -> Result<AccountInfo, AccountError> {
        check_name(&wanted.name).map_err(|reason| AccountError::Invalid { reason })?;
        let id = wanted.id.map_or_else(random_id, |id| {
            let reason = format!(
                "{id:?} is not an account id: use {ACCOUNT_DIGITS} hexadecimal digits, or leave it out"
            );
            parse_id(&id).ok_or(AccountError::Invalid { reason })
        })?;
        let _changing = self.changing.lock().await;
        let mut made = tokio::task::block_in_place(|| self.list())?;
        made.retain(|account| account.created_at.is_some());
        if made.iter().any(|account| account.id == id) {
            return Err(AccountError::Exists { id });
        }
        if made.len() >= MAX_ACCOUNTS {
            return Err(AccountError::TooMany);
        }
        let record = Record { name: wanted.name, created_at: now_s() };
        let json = serde_json::to_vec(&record).expect("a text and a number are JSON");
        let value = Value { payload: Payload::Inline(json.into()), metadata: None, expires_at_s: None };
        let put = Write::Put { namespace: NamespaceId::SYSTEM, key: row_key(&id).into(), value };
        self.engine.write(vec![put], Ack::Durable).await?;
        Ok(info(self.tokens.configured_accounts().contains(id.as_str()), id, Some(record)))
    }

    /// Deletes an account that has nothing.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub async fn delete(&self, id: &str) -> Result<(), AccountError> {
        let id = self.find(id)?;
        let _changing = self.changing.lock().await;
        let (namespaces, tokens) = tokio::task::block_in_place(|| -> Result<_, ReadError> {
            Ok((self.namespaces.list(&id)?.len(), self.tokens.list(&id)?.len()))
        })?;
        if namespaces + tokens > 0 {
            return Err(AccountError::NotEmpty { id, namespaces, tokens });
        }
        if self.tokens.configured_accounts().contains(id.as_str()) {
            return Err(AccountError::Configured { id });
        }
        let delete = Write::Delete { namespace: NamespaceId::SYSTEM, key: row_key(&id).into() };
        self.engine.write(vec![delete], Ack::Durable).await?;
        Ok(())
    }

    fn record(&self, id: &str) -> Result<Option<Record>, ReadError> {
        Ok(self.engine.read(NamespaceId::SYSTEM, &row_key(id))?.as_ref().map(record_of))
    }
}

/// One that cannot be read (written by a later version, say) is still an account.
fn record_of(entry: &Value) -> Record {
    match &entry.payload {
        Payload::Inline(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
        Payload::Chunked(_) => Record::default(),
    }
}

fn info(configured: bool, id: String, record: Option<Record>) -> AccountInfo {
    let (name, created_at) = record.map(|record| (record.name, record.created_at)).unzip();
    AccountInfo { id, name, created_at, configured }
}

fn row_key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

/// So many hexadecimal digits, in lower case.
pub(crate) fn parse_id(text: &str) -> Option<String> {
    let is_one = text.len() == ACCOUNT_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase())
}

fn random_id() -> Result<String, AccountError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| WriteError::Unavailable { reason: error.to_string() })?;
    Ok(NamespaceId(bytes).to_string())
}
