//! Who may do what: tokens and the accounts they stand for.
//!
//! The rule this file upholds: tokens are looked up by their BLAKE3 hash, so the time a check takes says
//! nothing about how near a guess came, and nothing here keeps a token in the clear.

use std::collections::{BTreeSet, HashMap};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::error::ApiError;

/// A token of the configuration.
#[derive(Clone)]
pub struct AccountToken {
    /// 32 hexadecimal digits.
    pub account: String,
    /// What a client presents.
    pub token: String,
}

/// Every token, by hash, with the accounts it may act for (32 lower-case hexadecimal digits each).
pub(crate) struct Tokens {
    accounts: HashMap<[u8; 32], Vec<String>>,
    /// Of all tokens, each once.
    all_accounts: Vec<String>,
}

impl Tokens {
    pub(crate) fn new(tokens: Vec<AccountToken>) -> Self {
        let mut accounts: HashMap<_, Vec<String>> = HashMap::new();
        for AccountToken { account, token } in tokens {
            accounts.entry(hash(token.as_bytes())).or_default().push(account.to_ascii_lowercase());
        }
        let all: BTreeSet<_> = accounts.values().flatten().cloned().collect();
        Self { accounts, all_accounts: all.into_iter().collect() }
    }

    /// The account of this name, if the request may act for it.
    pub(crate) fn authorize(&self, headers: &HeaderMap, account: &str) -> Result<&str, ApiError> {
        let accounts = self.accounts_of(presented(headers)?)?;
        let found = accounts.iter().find(|own| own.eq_ignore_ascii_case(account));
        found.map(String::as_str).ok_or(ApiError::Forbidden)
    }

    /// The accounts that a token may act for.
    pub(crate) fn accounts_of(&self, token: &[u8]) -> Result<&[String], ApiError> {
        self.accounts.get(&hash(token)).map(Vec::as_slice).ok_or(ApiError::Forbidden)
    }

    /// The accounts that any token may act for.
    pub(crate) fn all_accounts(&self) -> &[String] {
        &self.all_accounts
    }

    /// The accounts that the request's token may act for; none where it is not known.
    pub(crate) fn accounts(&self, headers: &HeaderMap) -> &[String] {
        let accounts = presented(headers).ok().and_then(|token| self.accounts.get(&hash(token)));
        accounts.map_or(&[], Vec::as_slice)
    }

    /// Whether the request carries any known token.
    pub(crate) fn is_known(&self, headers: &HeaderMap) -> bool {
        presented(headers).is_ok_and(|token| self.accounts.contains_key(&hash(token)))
    }
}

/// The token in a request, in whichever of the three ways of the REST API it was sent.
pub(super) fn presented(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        return match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii()),
            _ => Err(ApiError::BadAuthorization),
        };
    }
    let key = headers.get("x-auth-key").or_else(|| headers.get("x-auth-user-service-key"));
    key.map(|key| key.as_bytes()).ok_or(ApiError::MissingCredentials)
}

fn hash(token: &[u8]) -> [u8; 32] {
    *blake3::hash(token).as_bytes()
}
