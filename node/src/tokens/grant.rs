//! What a token may do, and whether that covers a request.
//!
//! The rule this file upholds: what no scope allows is refused. A key is inside a prefix when it begins with it, byte by
//! byte, and a listing is when its own prefix does; who may act on a whole namespace has a scope without a prefix.

use std::fmt;
use std::sync::Arc;

use littoral::api::tokens::{Action, EVERY_NAMESPACE, Scope, TokenInfo};
use replication::NamespaceId;

use super::ACCOUNT_DIGITS;
use crate::request_rate::{RequestRate, TooMany};

/// What a token stands for.
#[derive(Debug)]
pub struct Grant {
    /// The accounts, in lower case.
    pub(crate) accounts: Vec<String>,
    /// Whether it is of every account there may be, beside these.
    pub(super) is_of_every_account: bool,
    /// Whether it opens the operators' pages.
    pub(crate) is_cluster: bool,
    /// `None` may do everything in its accounts.
    pub(super) scopes: Option<Vec<GrantedScope>>,
    /// The token, where it is no one of the configuration.
    pub(super) info: Option<TokenInfo>,
    /// How many requests a second are taken of it here; `None` is as many as come.
    pub(super) rate: Option<Arc<RequestRate>>,
}

/// A scope that was parsed.
#[derive(Debug)]
pub(super) struct GrantedScope {
    /// `None` is every namespace of the account.
    namespace: Option<NamespaceId>,
    prefix: String,
    actions: Vec<Action>,
}

/// What a token lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRight {
    /// What was to be done.
    pub action: Action,
    /// Where; `None` is the account as a whole.
    pub namespace: Option<NamespaceId>,
    /// The key, or the prefix of a listing, empty for all keys; `None` where no key at all may be acted upon so.
    pub prefix: Option<String>,
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this token lacks the right \"{}\" on ", self.action.name())?;
        match (self.namespace, self.prefix.as_deref()) {
            (None, _) => f.write_str("every namespace of the account"),
            (Some(namespace), None) => write!(f, "any key of namespace {namespace}"),
            (Some(namespace), Some("")) => write!(f, "all keys of namespace {namespace}"),
            (Some(namespace), Some(prefix)) => write!(f, "\"{prefix}\" in namespace {namespace}"),
        }
    }
}

impl std::error::Error for MissingRight {}

impl Grant {
    /// One that may do everything in these accounts.
    pub(crate) fn of_everything(accounts: Vec<String>, is_cluster: bool) -> Self {
        Self { accounts, is_of_every_account: false, is_cluster, scopes: None, info: None, rate: None }
    }

    /// One that may do everything anywhere: that of the program which the node is a part of.
    pub(crate) fn of_the_program() -> Self {
        Self { is_of_every_account: true, ..Self::of_everything(Vec::new(), true) }
    }

    /// The account of this name, in whichever case, where the grant is of it; of one of every account in lower case only.
    pub(crate) fn account<'a>(&'a self, named: &'a str) -> Option<&'a str> {
        if self.is_of_every_account {
            return Some(named).filter(|named| is_account_id(named));
        }
        self.accounts.iter().find(|own| own.eq_ignore_ascii_case(named)).map(String::as_str)
    }

    /// What there is to tell of the token; `None` where it is one of the configuration.
    pub(crate) fn info(&self) -> Option<&TokenInfo> {
        self.info.as_ref()
    }

    /// Whether the token is over by now.
    pub(crate) fn is_expired(&self, now_s: u64) -> bool {
        self.info.as_ref().and_then(|info| info.expires_at).is_some_and(|at| at <= now_s)
    }

    /// Counts a request of the token.
    pub(crate) fn admit(&self) -> Result<(), TooMany> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take())
    }

    /// Whether this may be done to all that begins with `text`: to a key, or to all keys of a listing.
    pub(crate) fn check(
        &self,
        action: Action,
        namespace: NamespaceId,
        text: &str,
    ) -> Result<(), MissingRight> {
        match self.any_scope(|scope| scope.allows(action, namespace) && text.starts_with(&scope.prefix)) {
            true => Ok(()),
            false => Err(MissingRight { action, namespace: Some(namespace), prefix: Some(text.to_owned()) }),
        }
    }

    /// Whether this may be done to any key of the namespace.
    pub(crate) fn check_any(&self, action: Action, namespace: NamespaceId) -> Result<(), MissingRight> {
        match self.any_scope(|scope| scope.allows(action, namespace)) {
            true => Ok(()),
            false => Err(MissingRight { action, namespace: Some(namespace), prefix: None }),
        }
    }

    /// Whether this may be done to the account as a whole.
    pub(crate) fn check_account(&self, action: Action) -> Result<(), MissingRight> {
        let is_whole = |scope: &GrantedScope| scope.namespace.is_none() && scope.prefix.is_empty();
        match self.any_scope(|scope| is_whole(scope) && scope.actions.contains(&action)) {
            true => Ok(()),
            false => Err(MissingRight { action, namespace: None, prefix: None }),
        }
    }

    /// Whether there can be a namespace that the token may list.
    pub(crate) fn check_listing(&self) -> Result<(), MissingRight> {
        match self.any_scope(GrantedScope::lists) {
            true => Ok(()),
            false => Err(MissingRight { action: Action::List, namespace: None, prefix: None }),
        }
    }

    /// Whether the namespace is listed for this token: where it may list some of its keys, or do more than that to it.
    pub(crate) fn may_list(&self, namespace: NamespaceId) -> bool {
        self.any_scope(|scope| scope.is_about(namespace) && scope.lists())
    }

    /// Whether the token may know that there is this namespace.
    pub(crate) fn may_see(&self, namespace: NamespaceId) -> bool {
        self.any_scope(|scope| scope.is_about(namespace))
    }

    fn any_scope(&self, holds: impl Fn(&GrantedScope) -> bool) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(holds))
    }
}

impl GrantedScope {
    /// `None` for one that is not well formed.
    pub(super) fn parse(scope: &Scope) -> Option<Self> {
        let namespace = match scope.namespace.as_str() {
            EVERY_NAMESPACE => None,
            id => Some(id.parse().ok()?),
        };
        Some(Self { namespace, prefix: scope.prefix.clone(), actions: scope.actions.clone() })
    }

    fn is_about(&self, namespace: NamespaceId) -> bool {
        self.namespace.is_none_or(|own| own == namespace)
    }

    fn lists(&self) -> bool {
        self.actions.contains(&Action::List) || self.actions.contains(&Action::Admin)
    }

    fn allows(&self, action: Action, namespace: NamespaceId) -> bool {
        self.is_about(namespace) && self.actions.contains(&action)
    }
}

fn is_account_id(named: &str) -> bool {
    named.len() == ACCOUNT_DIGITS && named.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NamespaceId = NamespaceId([1; 16]);
    const THERE: NamespaceId = NamespaceId([2; 16]);

    fn grant(scopes: &[(&str, &str, &[Action])]) -> Grant {
        let scope = |(namespace, prefix, actions): &(&str, &str, &[Action])| {
            let scope = Scope {
                namespace: namespace.to_string(),
                prefix: prefix.to_string(),
                actions: actions.to_vec(),
            };
            GrantedScope::parse(&scope).unwrap()
        };
        Grant {
            accounts: vec!["ab".repeat(16)],
            is_cluster: false,
            is_of_every_account: false,
            scopes: Some(scopes.iter().map(scope).collect()),
            info: None,
            rate: None,
        }
    }

    #[test]
    fn a_key_is_inside_a_prefix_that_it_begins_with() {
        let grant = grant(&[(&HERE.to_string(), "ab/", &[Action::Read])]);
        for (key, is_inside) in [
            ("ab/", true),
            ("ab/c", true),
            ("ab", false),
            ("a", false),
            ("", false),
            ("ac/", false),
            ("xab/", false),
        ] {
            assert_eq!(grant.check(Action::Read, HERE, key).is_ok(), is_inside, "{key}");
            assert!(grant.check(Action::Write, HERE, key).is_err(), "another action on {key}");
            assert!(grant.check(Action::Read, THERE, key).is_err(), "{key} elsewhere");
        }
    }

    #[test]
    fn scopes_add_up_and_do_not_mix() {
        let here = HERE.to_string();
        let grant = grant(&[(&here, "a", &[Action::Read]), (EVERY_NAMESPACE, "b", &[Action::Write])]);
        assert!(
            grant.check(Action::Read, HERE, "a1").is_ok() && grant.check(Action::Write, THERE, "b1").is_ok()
        );
        assert!(
            grant.check(Action::Write, HERE, "a1").is_err() && grant.check(Action::Read, HERE, "b1").is_err()
        );
        assert!(grant.may_see(THERE) && grant.check_any(Action::Read, THERE).is_err());
    }

    #[test]
    fn the_account_as_a_whole_is_for_scopes_without_a_bound() {
        let here = HERE.to_string();
        for (namespace, prefix, holds) in [("*", "", true), ("*", "a", false), (here.as_str(), "", false)] {
            let grant = grant(&[(namespace, prefix, &[Action::Admin])]);
            assert_eq!(grant.check_account(Action::Admin).is_ok(), holds, "{namespace} {prefix}");
            assert!(grant.check_account(Action::List).is_err());
        }
        let everything = Grant::of_everything(vec!["ab".repeat(16)], false);
        assert!(everything.check_account(Action::Admin).is_ok() && everything.may_see(HERE));
        assert_eq!(everything.account(&"AB".repeat(16)), Some("ab".repeat(16).as_str()));
        assert_eq!(everything.account("ab"), None);
        let program = Grant::of_the_program();
        assert_eq!(program.account(&"ab".repeat(16)), Some("ab".repeat(16).as_str()));
        for none in ["ab".repeat(15), "ab".repeat(17), "AB".repeat(16), "xy".repeat(16)] {
            assert_eq!(program.account(&none), None, "{none}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = grant(&[]);
        let said = |missing: Result<(), MissingRight>| missing.unwrap_err().to_string();
        assert_eq!(
            said(none.check(Action::Write, HERE, "k")),
            format!("this token lacks the right \"write\" on \"k\" in namespace {HERE}")
        );
        assert_eq!(
            said(none.check(Action::List, HERE, "")),
            format!("this token lacks the right \"list\" on all keys of namespace {HERE}")
        );
        assert!(
            said(none.check_account(Action::Admin)).ends_with("\"admin\" on every namespace of the account")
        );
    }
}
