//! The types of `/v1/accounts` and `/v1/token`: accounts, their tokens, and what a token may do.
//!
//! Times are in Unix seconds. A token itself is in one answer only, that to its creation: nobody keeps it.

use serde::{Deserialize, Serialize};

/// The most accounts that can be made; those of the configurations come on top.
pub const MAX_ACCOUNTS: usize = 1_000;
/// The most tokens of an account; those of the configurations come on top.
pub const MAX_TOKENS_PER_ACCOUNT: usize = 1_000;
/// The most scopes of a token.
pub const MAX_SCOPES: usize = 32;
/// The longest name of an account or a token, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest prefix of a scope, in bytes of UTF-8: that of a key.
pub const MAX_PREFIX_BYTES: usize = 512;
/// The most requests a second that a token can be bounded to.
pub const MAX_REQUESTS_PER_S: u64 = 1_000_000;
/// What stands for every namespace of the account.
pub const EVERY_NAMESPACE: &str = "*";

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read values and metadata.
    Read,
    /// Write and delete values.
    Write,
    /// List keys and namespaces.
    List,
    /// Make, rename and delete namespaces; over every namespace, also make and revoke tokens. Who may do that may give
    /// itself any right in the account.
    Admin,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::List, Self::Admin];

    /// Its name in JSON, messages and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Admin => "admin",
        }
    }
}

/// Actions on the keys of a namespace that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// 32 hexadecimal digits, or [`EVERY_NAMESPACE`].
    pub namespace: String,
    /// What keys begin with, at most [`MAX_PREFIX_BYTES`]; empty for all. With [`Action::Admin`], which is about whole
    /// namespaces, it must be empty.
    #[serde(default)]
    pub prefix: String,
    /// At least one.
    pub actions: Vec<Action>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// 32 lower-case hexadecimal digits.
    pub id: String,
    /// Its name; none where only the configuration knows it.
    pub name: Option<String>,
    /// When it was made; none where only the configuration knows it.
    pub created_at: Option<u64>,
    /// Whether the configuration of the PoP that answers has a token of it: then it cannot be deleted.
    pub configured: bool,
}

/// `GET /v1/accounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountsReport {
    /// In the order of their ids: all there are for a token of the cluster, its own for another.
    pub accounts: Vec<AccountInfo>,
}

/// The body of `POST /v1/accounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// For people: 1 to [`MAX_NAME_BYTES`].
    pub name: String,
    /// 32 hexadecimal digits; a new random id without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
}

/// A token, without what a client presents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// 16 lower-case hexadecimal digits.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: u64,
    /// From this second on it is refused; never without it.
    pub expires_at: Option<u64>,
    /// Whether it is refused already.
    pub expired: bool,
    /// How many requests a second each PoP takes of it; as many as come without it.
    pub requests_per_s: Option<u64>,
}

/// `GET /v1/accounts/{id}/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensReport {
    /// The account.
    pub account: String,
    /// In the order of their ids. Those of the configurations are not among them.
    pub tokens: Vec<TokenInfo>,
}

/// The body of `POST /v1/accounts/{id}/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// For people: 1 to [`MAX_NAME_BYTES`].
    pub name: String,
    /// 1 to [`MAX_SCOPES`].
    pub scopes: Vec<Scope>,
    /// In the future; never without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<u64>,
    /// 1 to [`MAX_REQUESTS_PER_S`]; no bound without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requests_per_s: Option<u64>,
}

/// The answer to [`CreateToken`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// What a client presents. It is shown here and nowhere else.
    pub token: String,
    /// The rest of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// `GET /v1/token`: what the token of the request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentedToken {
    /// The accounts it stands for; several only for one of the configuration.
    pub accounts: Vec<String>,
    /// Whether it opens the operators' pages and makes accounts.
    pub cluster: bool,
    /// The token; none where it is one of the configuration, which may do everything in its accounts.
    pub token: Option<TokenInfo>,
}
