//! From method and path to the operation asked for.
//!
//! The rule this file upholds: routing looks at the path as it was sent, before any decoding, and a key is
//! the whole remainder after `values/` or `metadata/`. So the keys `bulk/get`, `a/../b` and `x%2Fy` are
//! themselves, and `namespaces/<id>/`, which some clients send for the key `..`, is no namespace.

use hyper::Method;

/// Under this, answers are in the envelope of the REST API.
const REST_ROOT: &str = "/client/v4/";
/// An account's id is so many hexadecimal digits; what is none leads nowhere, whoever asks.
const ACCOUNT_DIGITS: usize = 32;

/// What a request of the KV surface asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ListNamespaces,
    CreateNamespace,
    FindNamespace,
    RenameNamespace,
    DeleteNamespace,
    ReadValue,
    PutValue,
    DeleteValue,
    ReadMetadata,
    ListKeys,
    BulkPut,
    BulkDelete,
    BulkRead,
    /// Whether the token of the request is good; of no account.
    VerifyToken,
    /// By the binding protocol, as the next four.
    BindingGet,
    BindingPut,
    BindingDelete,
    BindingList,
    BindingBulkGet,
    /// Under `/v1`, about counters, sets, maps and values.
    Counters,
    /// The same, about bounded counters.
    Bounded,
    Sets,
    Maps,
    Values,
    /// Under `/v1`, about documents.
    Documents,
    /// Under `/v1`, about values that have lost.
    Conflicts,
    /// Under `/v1`, several writes as one.
    Batch,
    /// Under the root of the REST API, but none of the above.
    Unrouted,
    /// Everything else: `/v1`, `/metrics` and the like.
    Native,
}

impl Operation {
    /// Every operation, at its own number.
    pub(crate) const ALL: [Self; 29] = [
        Self::ListNamespaces,
        Self::CreateNamespace,
        Self::FindNamespace,
        Self::RenameNamespace,
        Self::DeleteNamespace,
        Self::ReadValue,
        Self::PutValue,
        Self::DeleteValue,
        Self::ReadMetadata,
        Self::ListKeys,
        Self::BulkPut,
        Self::BulkDelete,
        Self::BulkRead,
        Self::VerifyToken,
        Self::BindingGet,
        Self::BindingPut,
        Self::BindingDelete,
        Self::BindingList,
        Self::BindingBulkGet,
        Self::Counters,
        Self::Bounded,
        Self::Sets,
        Self::Maps,
        Self::Values,
        Self::Documents,
        Self::Conflicts,
        Self::Batch,
        Self::Unrouted,
        Self::Native,
    ];

    /// Its name in error messages and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ListNamespaces => "list namespaces",
            Self::CreateNamespace => "create namespace",
            Self::FindNamespace => "get namespace",
            Self::RenameNamespace => "rename namespace",
            Self::DeleteNamespace => "remove namespace",
            Self::ReadValue => "get",
            Self::PutValue => "put",
            Self::DeleteValue => "delete",
            Self::ReadMetadata => "get metadata",
            Self::ListKeys => "list keys",
            Self::BulkPut => "bulk put",
            Self::BulkDelete => "bulk delete",
            Self::BulkRead => "bulk get",
            Self::VerifyToken => "verify token",
            Self::BindingGet => "binding get",
            Self::BindingPut => "binding put",
            Self::BindingDelete => "binding delete",
            Self::BindingList => "binding list",
            Self::BindingBulkGet => "binding bulk get",
            Self::Counters => "counters",
            Self::Bounded => "bounded",
            Self::Sets => "sets",
            Self::Maps => "maps",
            Self::Values => "values",
            Self::Documents => "docs",
            Self::Conflicts => "conflicts",
            Self::Batch => "batch",
            Self::Unrouted => "unrouted",
            Self::Native => "native",
        }
    }
}

/// A request of the KV surface, its path taken apart but not yet decoded or checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    pub(crate) account: &'a str,
    /// Empty where the operation names none.
    pub(crate) namespace: &'a str,
    /// Percent-encoded; empty where the operation names none.
    pub(crate) key: &'a str,
}

/// Where a request belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Routed<'a> {
    Call(Call<'a>),
    /// The path exists, the method does not.
    WrongMethod {
        allow: &'static str,
    },
    /// Nothing is there, and the answer is in the envelope.
    Nowhere,
    Native,
}

/// Routes a request. `path` is percent-encoded and without the query.
pub(crate) fn route<'a>(method: &Method, path: &'a str) -> Routed<'a> {
    let Some(path) = path.strip_prefix(REST_ROOT) else { return Routed::Native };
    if path == "user/tokens/verify" {
        let call = Call { operation: Operation::VerifyToken, account: "", namespace: "", key: "" };
        return if *method == Method::GET {
            Routed::Call(call)
        } else {
            Routed::WrongMethod { allow: "GET" }
        };
    }
    let Some((account, path)) = path.strip_prefix("accounts/").and_then(|path| path.split_once('/')) else {
        return Routed::Nowhere;
    };
    if account.len() != ACCOUNT_DIGITS || !account.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Routed::Nowhere;
    }
    let Some(path) = path.strip_prefix("storage/kv/namespaces") else { return Routed::Nowhere };
    let call = |operation, namespace, key| Routed::Call(Call { operation, account, namespace, key });
    let wrong = |allow| Routed::WrongMethod { allow };
    let Some(path) = path.strip_prefix('/') else {
        return match *method {
            _ if !path.is_empty() => Routed::Nowhere,
            Method::GET => call(Operation::ListNamespaces, "", ""),
            Method::POST => call(Operation::CreateNamespace, "", ""),
            _ => wrong("GET, POST"),
        };
    };
    let Some((namespace, path)) = path.split_once('/') else {
        return match *method {
            _ if path.is_empty() => Routed::Nowhere,
            Method::GET => call(Operation::FindNamespace, path, ""),
            Method::PUT => call(Operation::RenameNamespace, path, ""),
            Method::DELETE => call(Operation::DeleteNamespace, path, ""),
            _ => wrong("GET, PUT, DELETE"),
        };
    };
    if let Some(key) = path.strip_prefix("values/") {
        return match *method {
            Method::GET => call(Operation::ReadValue, namespace, key),
            Method::PUT => call(Operation::PutValue, namespace, key),
            Method::DELETE => call(Operation::DeleteValue, namespace, key),
            _ => wrong("GET, PUT, DELETE"),
        };
    }
    if let Some(key) = path.strip_prefix("metadata/") {
        return if *method == Method::GET {
            call(Operation::ReadMetadata, namespace, key)
        } else {
            wrong("GET")
        };
    }
    match (path, method) {
        ("keys", &Method::GET) => call(Operation::ListKeys, namespace, ""),
        ("keys", _) => wrong("GET"),
        ("bulk", &Method::PUT) => call(Operation::BulkPut, namespace, ""),
        // Deprecated, and what wrangler sends.
        ("bulk", &Method::DELETE) => call(Operation::BulkDelete, namespace, ""),
        ("bulk", _) => wrong("PUT, DELETE"),
        ("bulk/delete", &Method::POST) => call(Operation::BulkDelete, namespace, ""),
        ("bulk/get", &Method::POST) => call(Operation::BulkRead, namespace, ""),
        ("bulk/delete" | "bulk/get", _) => wrong("POST"),
        _ => Routed::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "0123456789abcdefABCDEF0123456789";

    fn check(method: Method, path: &str, expected: Option<(Operation, &str, &str)>) {
        let full = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces{path}");
        let found = match route(&method, &full) {
            Routed::Call(call) => {
                assert_eq!(call.account, ACCOUNT);
                Some((call.operation, call.namespace, call.key))
            }
            _ => None,
        };
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn every_operation_stands_at_its_number() {
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
        }
    }

    #[test]
    fn the_path_is_routed_as_sent() {
        use Operation::*;
        check(Method::GET, "", Some((ListNamespaces, "", "")));
        check(Method::GET, "/", None);
        check(Method::GET, "x", None);
        check(Method::PUT, "/id", Some((RenameNamespace, "id", "")));
        check(Method::PUT, "/id/", None);
        check(Method::DELETE, "/id/", None);
        check(Method::DELETE, "/id//", None);
        check(Method::GET, "/id/values", None);
        check(Method::GET, "/id/values/", Some((ReadValue, "id", "")));
        check(Method::GET, "/id/values/bulk/get", Some((ReadValue, "id", "bulk/get")));
        check(Method::PUT, "/id/values/a/../b", Some((PutValue, "id", "a/../b")));
        check(Method::DELETE, "/id/values/x%2Fy", Some((DeleteValue, "id", "x%2Fy")));
        check(Method::GET, "/id/values/keys/", Some((ReadValue, "id", "keys/")));
        check(Method::GET, "/id/metadata/values/k", Some((ReadMetadata, "id", "values/k")));
        check(Method::PUT, "/id/metadata/k", None);
        check(Method::GET, "/id/%76alues/k", None);
        check(Method::GET, "/id/keys", Some((ListKeys, "id", "")));
        check(Method::GET, "/id/keys/", None);
        check(Method::POST, "/id/bulk/get", Some((BulkRead, "id", "")));
        check(Method::POST, "/id/bulk/delete", Some((BulkDelete, "id", "")));
        check(Method::DELETE, "/id/bulk", Some((BulkDelete, "id", "")));
        check(Method::PUT, "/id/bulk", Some((BulkPut, "id", "")));
        check(Method::PUT, "/id/bulk/", None);
        check(Method::POST, "/id/values/k", None);
    }

    #[test]
    fn the_rest_of_the_world_is_told_apart() {
        assert_eq!(route(&Method::GET, "/v1/lag"), Routed::Native);
        assert_eq!(route(&Method::GET, "/client/v4/user"), Routed::Nowhere);
        let verify = "/client/v4/user/tokens/verify";
        assert!(matches!(
            route(&Method::GET, verify),
            Routed::Call(Call { operation: Operation::VerifyToken, .. })
        ));
        assert_eq!(route(&Method::POST, verify), Routed::WrongMethod { allow: "GET" });
        let in_account = |account: &str, path: &str| {
            let path = format!("/client/v4/accounts/{account}/storage/kv{path}");
            matches!(route(&Method::GET, &path), Routed::Nowhere)
        };
        assert!(in_account(ACCOUNT, ""));
        assert!(!in_account(ACCOUNT, "/namespaces"));
        for bad in ["", "a", &ACCOUNT[1..], &format!("{ACCOUNT}0"), &ACCOUNT.replace('A', "g")] {
            assert!(in_account(bad, "/namespaces"), "{bad}");
        }
    }
}
