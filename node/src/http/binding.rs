//! The binding protocol: what workerd speaks to the service behind a `kvNamespace` binding, so that a Worker's `env.KV`
//! works unmodified.
//!
//! Nothing in workerd's requests names a namespace. It comes from the listener ([`Door::Namespace`]), from the path
//! (`/binding/{namespace id}/{key}`), or from headers that workerd's configuration injects. A request that miniflare
//! forwards has its own target in the header `MF-URL`; what is left of its path then is the token, since miniflare
//! cannot inject headers.
//!
//! The rule this file upholds: 404 says that there is no such key, and nothing else, for a Worker reads it as null.
//! A listener of one namespace leads to no other, whatever a request says.

mod calls;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, Uri};
use littoral::api::tokens::Action;
use percent_encoding::percent_decode_str;
use replication::NamespaceId;

use super::Surface;
use super::attributes;
use super::auth::{Owner, Place, grant_of, grant_of_token};
use super::body::Upload;
use super::error::ApiError;
use super::listener::{Access, Door};
use super::query::decode_key;
use super::route::Operation;
use crate::namespaces::NamespaceError;

/// Under this path follows the id of a namespace. workerd never sends a key with a raw "/" in it, so that the key
/// `binding` and those that begin with `binding/` are still themselves.
const PATH_ROOT: &str = "/binding/";
/// Which namespace is meant, where the path does not say it.
const NAMESPACE_HEADER: HeaderName = HeaderName::from_static("x-kv-namespace-id");
/// Which of the token's accounts is meant; not needed, as a namespace has one owner.
const ACCOUNT_HEADER: HeaderName = HeaderName::from_static("x-kv-account-id");
/// The target of a request that miniflare forwards.
const FORWARDED_URL: HeaderName = HeaderName::from_static("mf-url");
/// The metadata of a value, as JSON in UTF-8, and where it stands in a forwarded request.
const METADATA_HEADER: HeaderName = HeaderName::from_static("cf-kv-metadata");
const FORWARDED_METADATA: HeaderName = HeaderName::from_static("mf-header-cf-kv-metadata");
/// How large a refused body may be and still be read to its end, so that the Worker hears why it was refused: what
/// a Worker can have in memory. The connection of a greater one is closed.
const MAX_DRAINED_BYTES: u64 = 128 << 20;

/// Whether a request is one of this protocol.
pub(super) fn is_meant(door: Door, head: &Parts) -> bool {
    matches!(door, Door::Namespace { .. })
        || head.uri.path().starts_with(PATH_ROOT)
        || head.headers.contains_key(NAMESPACE_HEADER)
}

/// Answers a request of this protocol, and tells what it asked for.
pub(super) async fn answer(
    surface: &Surface,
    door: Door,
    head: &Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let mut upload = Upload::new(&head.headers, body, surface.stalled);
    let (operation, answer) = match forwarded_url(&head.headers) {
        Ok(url) => match Call::parse(door, head, url.as_ref()) {
            Ok(call) => (call.operation, call.carry_out(surface, door, &head.headers, &mut upload).await),
            Err(error) => (Operation::Unrouted, Err(error)),
        },
        Err(error) => (Operation::Unrouted, Err(error)),
    };
    upload.drain(MAX_DRAINED_BYTES).await;
    (operation, answer.unwrap_or_else(ApiError::into_binding_response))
}

/// A request of the protocol, taken apart but not yet decoded or checked.
#[derive(Debug)]
struct Call<'a> {
    operation: Operation,
    namespace: NamespaceId,
    /// Percent-encoded; empty where the operation names none.
    key: &'a str,
    query: Option<&'a str>,
    /// The token in the path of a forwarded request, percent-encoded.
    token: Option<&'a str>,
    metadata_header: HeaderName,
}

impl<'a> Call<'a> {
    /// `url` is the target of a forwarded request.
    fn parse(door: Door, head: &'a Parts, url: Option<&'a Uri>) -> Result<Self, ApiError> {
        if head.headers.contains_key(UPGRADE) {
            // miniflare asks for one before each operation, and goes on without it.
            return Err(ApiError::invalid("there are no WebSockets here"));
        }
        let (namespace, rest) = select(door, head)?;
        let (path, query, token) = match url {
            None => (rest, head.uri.query(), None),
            Some(url) => (below_slash(url.path()), url.query(), Some(rest).filter(|rest| !rest.is_empty())),
        };
        // Of an answer to HEAD, hyper sends the head only.
        let operation = match (&head.method, path) {
            (&Method::GET | &Method::HEAD, "") => Operation::BindingList,
            (&Method::POST, "bulk/get") => Operation::BindingBulkGet,
            (&Method::GET | &Method::HEAD, _) => Operation::BindingGet,
            (&Method::PUT, _) => Operation::BindingPut,
            (&Method::DELETE, _) => Operation::BindingDelete,
            _ => return Err(ApiError::MethodNotAllowed { allow: "GET, PUT, DELETE" }),
        };
        let metadata_header = if url.is_some() { FORWARDED_METADATA } else { METADATA_HEADER };
        Ok(Self { operation, namespace, key: path, query, token, metadata_header })
    }

    async fn carry_out(
        &self,
        surface: &Surface,
        door: Door,
        headers: &HeaderMap,
        upload: &mut Upload,
    ) -> Result<Response<Body>, ApiError> {
        let place = self.place(surface, door, headers)?;
        match self.operation {
            Operation::BindingPut => calls::put(surface, &place, self, headers, upload).await,
            Operation::BindingDelete => calls::delete(surface, &place, self).await,
            Operation::BindingList => calls::list(surface, &place, self),
            Operation::BindingBulkGet => calls::bulk_get(surface, &place, upload).await,
            _ => calls::get(surface, &place, self).await,
        }
    }

    /// The metadata that the request carries. As bytes: workerd sends UTF-8 as it is.
    fn metadata(&self, headers: &HeaderMap) -> Result<Option<Bytes>, ApiError> {
        let json = headers.get(&self.metadata_header);
        Ok(json.map(|json| attributes::metadata(json.as_bytes())).transpose()?.flatten())
    }

    /// The namespace, if there is one and who asks may do this there.
    fn place(&self, surface: &Surface, door: Door, headers: &HeaderMap) -> Result<Place, ApiError> {
        let action = match self.operation {
            Operation::BindingPut | Operation::BindingDelete => Action::Write,
            Operation::BindingList => Action::List,
            _ => Action::Read,
        };
        let named = headers.get(ACCOUNT_HEADER).map(|account| String::from_utf8_lossy(account.as_bytes()));
        if let Door::Namespace { access: Access::Socket, .. } = door {
            let named = named.map(|account| account.to_ascii_lowercase());
            let owner = named.as_deref().map_or(Owner::Anyone, Owner::Account);
            return Place::enter(surface, surface.everything.clone(), owner, self.namespace, action);
        }
        let grant = match self.token {
            Some(token) => grant_of_token(&surface.tokens, &percent_decode_str(token).collect::<Vec<u8>>())?,
            None => grant_of(&surface.tokens, headers)?,
        };
        let named = named.map(|named| grant.account(&named).map(str::to_owned).ok_or(ApiError::Forbidden));
        let named = named.transpose()?;
        let owner = named.as_deref().map_or(Owner::OfToken, Owner::Account);
        Place::enter(surface, grant, owner, self.namespace, action)
    }
}

/// What a request is about, as far as its head says.
pub(crate) struct Meaning {
    pub(crate) namespace: NamespaceId,
    /// Of a call that names one.
    pub(crate) key: Option<String>,
    /// As it would be stored.
    pub(crate) metadata: Option<Bytes>,
    /// The same as it would be sent to who reads it.
    pub(crate) metadata_sent: Option<HeaderValue>,
}

/// What a request is about, for those who try what strangers send.
pub(crate) fn meaning(door: Door, head: &Parts) -> Result<Meaning, ApiError> {
    let url = forwarded_url(&head.headers)?;
    let call = Call::parse(door, head, url.as_ref())?;
    let key = match call.operation {
        Operation::BindingList | Operation::BindingBulkGet => None,
        _ => Some(decode_key(call.key)?.into_owned()),
    };
    let metadata = call.metadata(&head.headers)?;
    let metadata_sent = metadata.as_deref().and_then(calls::metadata_header);
    Ok(Meaning { namespace: call.namespace, key, metadata, metadata_sent })
}

/// The target of a forwarded request.
fn forwarded_url(headers: &HeaderMap) -> Result<Option<Uri>, ApiError> {
    let Some(url) = headers.get(FORWARDED_URL) else { return Ok(None) };
    Uri::try_from(url.as_bytes()).map(Some).map_err(|_| ApiError::invalid("the header MF-URL is not a URL"))
}

/// The namespace that is meant, and the path below it, without its first "/".
fn select(door: Door, head: &Parts) -> Result<(NamespaceId, &str), ApiError> {
    let path = head.uri.path();
    let named = match head.headers.get(NAMESPACE_HEADER) {
        Some(id) => Some(parse_id(&String::from_utf8_lossy(id.as_bytes()))?),
        None => None,
    };
    let (namespace, rest) = match (door, path.strip_prefix(PATH_ROOT), named) {
        (Door::Namespace { id, .. }, _, _) => (id, below_slash(path)),
        (Door::Node, Some(below), _) => {
            let (id, rest) = below.split_once('/').unwrap_or((below, ""));
            (parse_id(id)?, rest)
        }
        (Door::Node, None, Some(named)) => (named, below_slash(path)),
        // Not reached: such a request is not one of this protocol.
        (Door::Node, None, None) => return Err(NamespaceError::NotFound.into()),
    };
    if named.is_some_and(|named| named != namespace) {
        return Err(ApiError::invalid("X-KV-Namespace-Id names another namespace than the address does"));
    }
    Ok((namespace, rest))
}

fn parse_id(given: &str) -> Result<NamespaceId, ApiError> {
    given.parse().map_err(|_| ApiError::BadNamespaceId { given: given.to_owned() })
}

fn below_slash(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffffffffffffffffffff";

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(target);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    /// What was understood of a request.
    #[derive(Debug)]
    struct Parsed {
        operation: Operation,
        namespace: String,
        key: String,
        query: Option<String>,
        token: Option<String>,
    }

    fn parsed(door: Door, head: &Parts) -> Result<Parsed, String> {
        let told = |error: ApiError| error.to_string();
        let url = forwarded_url(&head.headers).map_err(told)?;
        let call = Call::parse(door, head, url.as_ref()).map_err(told)?;
        Ok(Parsed {
            operation: call.operation,
            namespace: call.namespace.to_string(),
            key: call.key.to_owned(),
            query: call.query.map(str::to_owned),
            token: call.token.map(str::to_owned),
        })
    }

    #[track_caller]
    fn check(method: &str, target: &str, headers: &[(&str, &str)], operation: Operation, key: &str) {
        let found = parsed(Door::Node, &head(method, target, headers)).unwrap();
        assert_eq!(
            (found.operation, found.namespace.as_str(), found.key.as_str()),
            (operation, ID, key),
            "{method} {target}"
        );
    }

    #[test]
    fn the_namespace_is_in_the_path_or_in_a_header_and_the_key_is_what_is_left() {
        use Operation::*;
        let named = [("X-KV-Namespace-Id", ID)];
        for (prefix, headers) in [(format!("/binding/{ID}"), &named[..0]), (String::new(), &named)] {
            for host in ["", "https://fake-host"] {
                let target = |path: &str| format!("{host}{prefix}{path}");
                check("GET", &target("/?prefix=a"), headers, BindingList, "");
                check("GET", &target("/k?urlencoded=true"), headers, BindingGet, "k");
                check("HEAD", &target("/k"), headers, BindingGet, "k");
                check("PUT", &target("/a%2Fb"), headers, BindingPut, "a%2Fb");
                check("DELETE", &target("/bulk%2Fget"), headers, BindingDelete, "bulk%2Fget");
                check("GET", &target("/bulk/get"), headers, BindingGet, "bulk/get");
                check("POST", &target("/bulk/get"), headers, BindingBulkGet, "bulk/get");
                check("GET", &target("/binding"), headers, BindingGet, "binding");
                check("GET", &target("/binding%2Fk"), headers, BindingGet, "binding%2Fk");
                check("GET", &target("//"), headers, BindingGet, "/");
            }
        }
        check("GET", &format!("/binding/{ID}"), &[], BindingList, "");
        check("GET", &format!("/binding/{}", ID.to_uppercase()), &named, BindingList, "");
    }

    #[test]
    fn what_names_no_namespace_or_two_is_refused() {
        let errors = [
            (head("GET", "/binding/", &[]), "could not parse UUID"),
            (head("GET", "/binding/demo/k", &[]), "could not parse UUID from request's namespace_id: 'demo'"),
            (head("GET", "/k", &[("X-KV-Namespace-Id", "demo")]), "could not parse UUID"),
            (
                head("GET", &format!("/binding/{ID}/k"), &[("X-KV-Namespace-Id", OTHER)]),
                "names another namespace",
            ),
            (head("POST", &format!("/binding/{ID}/k"), &[]), "Method not allowed"),
            (head("GET", &format!("/binding/{ID}?MF-Binding=KV"), &[("Upgrade", "websocket")]), "WebSockets"),
            (head("GET", &format!("/binding/{ID}"), &[("MF-URL", "http://[")]), "MF-URL is not a URL"),
        ];
        for (head, text) in errors {
            let error = parsed(Door::Node, &head).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_door_of_a_namespace_leads_to_no_other() {
        let door = Door::Namespace { id: ID.parse().unwrap(), access: Access::Token };
        for (target, key) in [
            ("/k".to_owned(), "k".to_owned()),
            (format!("/binding/{OTHER}/k"), format!("binding/{OTHER}/k")),
            ("/metrics".to_owned(), "metrics".to_owned()),
        ] {
            let found = parsed(door, &head("GET", &target, &[])).unwrap();
            assert_eq!((found.namespace.as_str(), found.key), (ID, key), "{target}");
        }
        let other = head("GET", "/k", &[("X-KV-Namespace-Id", OTHER)]);
        assert!(parsed(door, &other).unwrap_err().contains("another namespace"));
    }

    #[test]
    fn a_forwarded_request_has_its_target_in_a_header_and_its_token_in_the_path() {
        let check = |target: &str, url: &str, expected: (Operation, &str, Option<&str>, Option<&str>)| {
            let head = head("GET", target, &[("MF-URL", url), ("MF-Binding", "KV")]);
            let Parsed { operation, namespace, key, query, token } = parsed(Door::Node, &head).unwrap();
            assert_eq!(namespace, ID);
            assert_eq!((operation, key.as_str(), query.as_deref(), token.as_deref()), expected, "{url}");
        };
        let path = format!("/binding/{ID}/to%2Fken");
        let query = Some("urlencoded=true");
        check(
            &path,
            "https://fake-host/a%2Fb%20%C3%BC?urlencoded=true",
            (Operation::BindingGet, "a%2Fb%20%C3%BC", query, Some("to%2Fken")),
        );
        check(
            &path,
            "https://fake-host?prefix=p",
            (Operation::BindingList, "", Some("prefix=p"), Some("to%2Fken")),
        );
        check(&format!("/binding/{ID}"), "https://fake-host/k", (Operation::BindingGet, "k", None, None));
    }

    #[test]
    fn only_what_is_of_this_protocol_is_taken_for_it() {
        let named = [("X-KV-Namespace-Id", ID)];
        for (target, headers, is_ours) in [
            ("/metrics", &named[..0], false),
            ("/binding", &named[..0], false),
            ("/bindings/x", &named[..0], false),
            ("/binding/x", &named[..0], true),
            ("/metrics", &named[..], true),
        ] {
            assert_eq!(is_meant(Door::Node, &head("GET", target, headers)), is_ours, "{target}");
        }
        let door = Door::Namespace { id: ID.parse().unwrap(), access: Access::Socket };
        assert!(is_meant(door, &head("GET", "/metrics", &[])));
    }
}
