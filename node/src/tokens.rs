//! Bearer tokens: those of the configuration, and those that are made and revoked while the cluster runs.
//!
//! A made token is an entry of [`NamespaceId::SYSTEM`], key `token/<account>/<id>`, value a JSON record, so it replicates,
//! merges and survives like every other entry; one that is deleted is revoked. A token says which account it is of
//! (`lit_<account>_<64 digits>`), and its id is the beginning of its hash: so a PoP finds it by reading one row, which is
//! kept in memory as long as the system namespace stands still.
//!
//! The rule this file upholds: only the BLAKE3 hash of a token is kept, here or on a disk, and it is looked up by that, so
//! the time a check takes says nothing about how near a guess came. What cannot be understood of a record is refused.

mod grant;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use blake3::Hash;
use littoral::api::tokens::{
    Action, CreateToken, CreatedToken, MAX_NAME_BYTES, MAX_PREFIX_BYTES, MAX_REQUESTS_PER_S, MAX_SCOPES,
    MAX_TOKENS_PER_ACCOUNT, Scope, TokenInfo,
};
use replication::entry::MAX_INLINE_BYTES;
use replication::{NamespaceId, Payload, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub use self::grant::{Grant, MissingRight};

use self::grant::GrantedScope;
use crate::engine::{Ack, Engine, ReadError, Write, WriteError};
use crate::http::attributes::now_s;
use crate::request_rate::RequestRate;
use crate::system_cache::SystemCache;

/// What a made token begins with, so that scanners for leaked secrets find it.
const PREFIX: &[u8] = b"lit_";
/// The hexadecimal digits of an account's id.
pub(crate) const ACCOUNT_DIGITS: usize = 32;
/// The random bytes of a token, of which each is two digits.
const RANDOM_BYTES: usize = 32;
/// The hexadecimal digits of a token's id: the first of its hash.
const ID_DIGITS: usize = 16;
/// Rows asked of the engine at a time when tokens are listed.
const LIST_PAGE_ROWS: usize = 1000;

/// A token of the configuration. It may do everything in its account.
#[derive(Clone)]
pub struct AccountToken {
    /// 32 hexadecimal digits.
    pub account: String,
    /// What a client presents.
    pub token: String,
    /// Whether it opens the operators' pages, too, and makes accounts.
    pub cluster: bool,
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The account has no such token.
    #[error("account {account} has no token {id}; `littoral token list` shows which there are")]
    NotFound {
        /// The account.
        account: String,
        /// What was asked for.
        id: String,
    },
    /// It cannot be one.
    #[error("{reason}")]
    Invalid {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The account has [`MAX_TOKENS_PER_ACCOUNT`].
    #[error("this account has {MAX_TOKENS_PER_ACCOUNT} tokens, which is the limit; revoke one first")]
    TooMany,
    /// The engine could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine could not write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A token as its entry has it.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    /// Of the whole token: BLAKE3, 64 hexadecimal digits.
    hash: String,
    scopes: Vec<Scope>,
    created_at: u64,
    expires_at: Option<u64>,
    requests_per_s: Option<u64>,
}

/// Every token that this node knows.
pub struct Tokens {
    engine: Engine,
    /// Those of the configuration, by hash.
    configured: HashMap<[u8; 32], Arc<Grant>>,
    made: SystemCache<[u8; 32], Arc<Grant>>,
    /// Held while tokens are counted and one is made.
    changing: Mutex<()>,
}

impl Tokens {
    /// Those of the configuration, and those that this engine holds.
    pub fn new(engine: Engine, tokens: Vec<AccountToken>) -> Self {
        let mut configured: HashMap<_, Grant> = HashMap::new();
        for AccountToken { account, token, cluster } in tokens {
            let nothing = || Grant::of_everything(Vec::new(), false);
            let grant = configured.entry(*blake3::hash(token.as_bytes()).as_bytes()).or_insert_with(nothing);
            grant.accounts.push(account.to_ascii_lowercase());
            grant.is_cluster |= cluster;
        }
        let configured = configured.into_iter().map(|(hash, grant)| (hash, Arc::new(grant))).collect();
        Self { engine, configured, made: SystemCache::default(), changing: Mutex::new(()) }
    }

    /// Takes this token, too, as that of the program which the node is a part of.
    pub(crate) fn with_program(mut self, token: &[u8]) -> Self {
        self.configured.insert(*blake3::hash(token).as_bytes(), Arc::new(Grant::of_the_program()));
        self
    }

    /// What this token stands for; `None` where it is not known, revoked or expired. On every request: a hash and a
    /// look-up or two.
    ///
    /// # Errors
    /// Where the node does not serve and the token is none of the configuration.
    pub fn grant(&self, token: &[u8]) -> Result<Option<Arc<Grant>>, ReadError> {
        let hash = blake3::hash(token);
        if let Some(grant) = self.configured.get(hash.as_bytes()) {
            return Ok(Some(grant.clone()));
        }
        let Some(account) = account_of(token) else { return Ok(None) };
        let read = |last: Option<Arc<Grant>>| self.read_grant(account, &hash, last.as_deref());
        let found = self.made.find(&self.engine, *hash.as_bytes(), read)?;
        Ok(found.filter(|grant| !grant.is_expired(now_s())))
    }

    /// The accounts that the configuration has tokens of, in order.
    pub fn configured_accounts(&self) -> BTreeSet<&str> {
        self.configured.values().flat_map(|grant| &grant.accounts).map(String::as_str).collect()
    }

    /// The tokens of the account, in the order of their ids; those of the configuration are not among them. Blocking:
    /// call it under `tokio::task::block_in_place`.
    ///
    /// # Errors
    /// Where the node does not serve.
    pub fn list(&self, account: &str) -> Result<Vec<TokenInfo>, ReadError> {
        let prefix = row_key(account, "");
        let now_s = now_s();
        let mut tokens = Vec::new();
        let mut after = None;
        loop {
            let page = self.engine.list(NamespaceId::SYSTEM, &prefix, after.as_deref(), LIST_PAGE_ROWS)?;
            for row in &page.rows {
                let id = String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned();
                // A row may be deleted between the listing and the reading.
                if let Some(entry) = self.engine.read(NamespaceId::SYSTEM, &row.key)? {
                    tokens.push(info(id, parse(&entry), now_s));
                }
            }
            after = page.next_after;
            if after.is_none() {
                return Ok(tokens);
            }
        }
    }

    /// Makes a token of the account, which exists.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn create(&self, account: &str, wanted: CreateToken) -> Result<CreatedToken, TokenError> {
        let now_s = now_s();
        check(&wanted, now_s)?;
        let _changing = self.changing.lock().await;
        if tokio::task::block_in_place(|| self.list(account))?.len() >= MAX_TOKENS_PER_ACCOUNT {
            return Err(TokenError::TooMany);
        }
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| WriteError::Unavailable { reason: error.to_string() })?;
        // Hash::to_hex is hexadecimal of any 32 bytes.
        let token = format!("lit_{account}_{}", Hash::from_bytes(random).to_hex());
        let hash = blake3::hash(token.as_bytes());
        let id = id_of(&hash);
        let CreateToken { name, scopes, expires_at, requests_per_s } = wanted;
        let record = Record {
            name,
            hash: hash.to_hex().to_string(),
            scopes,
            created_at: now_s,
            expires_at,
            requests_per_s,
        };
        self.put(account, &id, &record).await?;
        Ok(CreatedToken { token, info: info(id, Some(record), now_s) })
    }

    /// Revokes a token of the account: it is refused from the moment this returns.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn revoke(&self, account: &str, id: &str) -> Result<(), TokenError> {
        let key = row_key(account, id);
        if id.len() != ID_DIGITS || self.engine.read(NamespaceId::SYSTEM, &key)?.is_none() {
            return Err(TokenError::NotFound { account: account.to_owned(), id: id.to_owned() });
        }
        let delete = Write::Delete { namespace: NamespaceId::SYSTEM, key: key.into() };
        self.engine.write(vec![delete], Ack::Durable).await?;
        Ok(())
    }

    async fn put(&self, account: &str, id: &str, record: &Record) -> Result<(), TokenError> {
        let json = serde_json::to_vec(record).expect("our types have string keys and no failing fields");
        if json.len() > MAX_INLINE_BYTES {
            let len = json.len();
            return Err(invalid(format!(
                "all of a token is at most {MAX_INLINE_BYTES} bytes of JSON, and this one would be {len}: use fewer scopes, or shorter prefixes"
            )));
        }
        let value = Value { payload: Payload::Inline(json.into()), metadata: None, expires_at_s: None };
        let put = Write::Put { namespace: NamespaceId::SYSTEM, key: row_key(account, id).into(), value };
        self.engine.write(vec![put], Ack::Durable).await?;
        Ok(())
    }

    /// What stands in the store; `last` is what stood there before.
    fn read_grant(
        &self,
        account: &str,
        hash: &Hash,
        last: Option<&Grant>,
    ) -> Result<Option<Arc<Grant>>, ReadError> {
        let id = id_of(hash);
        let entry = self.engine.read(NamespaceId::SYSTEM, &row_key(account, &id))?;
        let Some(record) = entry.as_ref().and_then(parse) else { return Ok(None) };
        let scopes: Option<Vec<_>> = record.scopes.iter().map(GrantedScope::parse).collect();
        // Equality of hashes takes the same time wherever they differ.
        let is_same = Hash::from_hex(&record.hash).is_ok_and(|own| own == *hash);
        let Some(scopes) = scopes.filter(|_| is_same) else { return Ok(None) };
        // A change elsewhere must not fill the bucket.
        let kept = last.and_then(|last| last.rate.clone());
        let rate = record.requests_per_s.map(|per_s| {
            kept.filter(|kept| kept.per_s() == per_s).unwrap_or_else(|| Arc::new(RequestRate::new(per_s)))
        });
        let info = Some(info(id, Some(record), 0));
        let grant = Grant::of_everything(vec![account.to_owned()], false);
        Ok(Some(Arc::new(Grant { scopes: Some(scopes), info, rate, ..grant })))
    }
}

/// Whether a token can be made so.
fn check(wanted: &CreateToken, now_s: u64) -> Result<(), TokenError> {
    check_name(&wanted.name).map_err(invalid)?;
    if !(1..=MAX_SCOPES).contains(&wanted.scopes.len()) {
        return Err(invalid(format!(
            "a token has 1 to {MAX_SCOPES} scopes; this one has {}",
            wanted.scopes.len()
        )));
    }
    wanted.scopes.iter().try_for_each(check_scope)?;
    if let Some(at) = wanted.expires_at.filter(|at| *at <= now_s) {
        return Err(invalid(format!("expires_at = {at} has passed: it is {now_s} (Unix seconds)")));
    }
    match wanted.requests_per_s {
        Some(rate) if !(1..=MAX_REQUESTS_PER_S).contains(&rate) => Err(invalid(format!(
            "requests_per_s is 1 to {MAX_REQUESTS_PER_S}, not {rate}; leave it out for no bound"
        ))),
        _ => Ok(()),
    }
}

fn check_scope(scope: &Scope) -> Result<(), TokenError> {
    let Scope { namespace, prefix, actions } = scope;
    if GrantedScope::parse(scope).is_none() {
        return Err(invalid(format!("namespace {namespace:?} is neither 32 hexadecimal digits nor \"*\"")));
    }
    if actions.is_empty() {
        return Err(invalid(
            "a scope without actions allows nothing: use read, write, list or admin".to_owned(),
        ));
    }
    if prefix.len() > MAX_PREFIX_BYTES {
        let len = prefix.len();
        return Err(invalid(format!(
            "a prefix has at most {MAX_PREFIX_BYTES} bytes of UTF-8; this one has {len}"
        )));
    }
    if actions.contains(&Action::Admin) && !prefix.is_empty() {
        return Err(invalid(format!(
            "admin is about whole namespaces: leave the prefix {prefix:?} out, or put admin into a scope of its own"
        )));
    }
    Ok(())
}

/// Whether an account or a token can be called so; else what is wrong.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        len => Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8; this one has {len}")),
    }
}

fn invalid(reason: String) -> TokenError {
    TokenError::Invalid { reason }
}

/// The account in a token that was made; `None` where it is of another form.
fn account_of(token: &[u8]) -> Option<&str> {
    let (account, rest) = token.strip_prefix(PREFIX)?.split_at_checked(ACCOUNT_DIGITS)?;
    let random = rest.strip_prefix(b"_")?;
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    let is_one = random.len() == 2 * RANDOM_BYTES && is_hex(account) && is_hex(random);
    std::str::from_utf8(account).ok().filter(|_| is_one)
}

fn id_of(hash: &Hash) -> String {
    hash.to_hex()[..ID_DIGITS].to_owned()
}

fn row_key(account: &str, id: &str) -> Vec<u8> {
    format!("token/{account}/{id}").into_bytes()
}

fn parse(entry: &Value) -> Option<Record> {
    match &entry.payload {
        Payload::Inline(bytes) => serde_json::from_slice(bytes).ok(),
        Payload::Chunked(_) => None,
    }
}

/// What there is to tell. A record that cannot be read (written by a later version, say) is refused as a token, and still
/// listed, so that it can be revoked.
fn info(id: String, record: Option<Record>, now_s: u64) -> TokenInfo {
    let unreadable = || Record {
        name: "(not readable by this version)".to_owned(),
        hash: String::new(),
        scopes: Vec::new(),
        created_at: 0,
        expires_at: None,
        requests_per_s: None,
    };
    let record = record.unwrap_or_else(unreadable);
    TokenInfo {
        id,
        name: record.name,
        scopes: record.scopes,
        created_at: record.created_at,
        expires_at: record.expires_at,
        expired: record.expires_at.is_some_and(|at| at <= now_s),
        requests_per_s: record.requests_per_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_which_account_it_is_of() {
        let account = "0123456789abcdef0123456789abcdef";
        let good = format!("lit_{account}_{}", "a".repeat(64));
        assert_eq!(account_of(good.as_bytes()), Some(account));
        let bad = [
            String::new(),
            "lit_".to_owned(),
            good[1..].to_owned(),
            good[..100].to_owned(),
            format!("{good}a"),
            good.replace('_', "-"),
            format!("lit_{}_{}", account.replace('0', "/"), "a".repeat(64)),
            format!("lit_{account}_{}", "g".repeat(64)),
            format!("lit_{account}_{}", "ü".repeat(32)),
        ];
        for token in bad {
            assert_eq!(account_of(token.as_bytes()), None, "{token}");
        }
    }

    #[track_caller]
    fn check_wanted(wanted: &CreateToken, expected: Result<(), &str>) {
        match (check(wanted, 1_000), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?} for {wanted:?}"),
        }
    }

    #[test]
    fn a_token_has_limits_each_of_which_says_what_is_right() {
        let scope = |prefix: usize, actions: &[Action]| Scope {
            namespace: "*".into(),
            prefix: "p".repeat(prefix),
            actions: actions.to_vec(),
        };
        let good = CreateToken {
            name: "n".into(),
            scopes: vec![scope(0, &Action::ALL)],
            expires_at: None,
            requests_per_s: None,
        };
        let named = |len: usize| CreateToken { name: "n".repeat(len), ..good.clone() };
        let scoped = |scope: Scope, count: usize| CreateToken { scopes: vec![scope; count], ..good.clone() };
        let until = |at| CreateToken { expires_at: Some(at), ..good.clone() };
        let at_most = |rate| CreateToken { requests_per_s: Some(rate), ..good.clone() };
        let read = &[Action::Read];
        let elsewhere = |namespace: &str| Scope { namespace: namespace.into(), ..scope(0, read) };
        for (wanted, expected) in [
            (named(0), Err("1 to 256 bytes")),
            (named(1), Ok(())),
            (named(256), Ok(())),
            (named(257), Err("this one has 257")),
            (scoped(scope(0, read), 0), Err("1 to 32 scopes")),
            (scoped(scope(0, read), 32), Ok(())),
            (scoped(scope(0, read), 33), Err("this one has 33")),
            (scoped(scope(511, read), 1), Ok(())),
            (scoped(scope(512, read), 1), Ok(())),
            (scoped(scope(513, read), 1), Err("at most 512 bytes")),
            (scoped(scope(0, &[]), 1), Err("without actions")),
            (scoped(scope(1, &Action::ALL), 1), Err("admin is about whole namespaces")),
            (scoped(elsewhere(&"ab".repeat(16)), 1), Ok(())),
            (scoped(elsewhere("demo"), 1), Err("neither 32 hexadecimal digits nor")),
            (scoped(elsewhere(""), 1), Err("neither")),
            (until(1_000), Err("has passed")),
            (until(1_001), Ok(())),
            (at_most(0), Err("1 to 1000000")),
            (at_most(1), Ok(())),
            (at_most(1_000_000), Ok(())),
            (at_most(1_000_001), Err("not 1000001")),
        ] {
            check_wanted(&wanted, expected);
        }
    }
}
