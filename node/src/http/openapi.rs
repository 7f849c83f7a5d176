//! `/v1/openapi.json`: what this node serves, told once for people and tools.
//!
//! The document is written by hand beside this file. The rule: it names every path and method of the program, and no
//! other; a test holds both against each other.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use hyper::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode};

const DOCUMENT: &str = include_str!("openapi.json");

/// Quoted, as it is sent: another document has another one.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let hash = blake3::hash(DOCUMENT.as_bytes());
    format!("\"{}\"", &hash.to_hex()[..32])
});

/// Needs no token: it says nothing of this node that its source does not.
pub(super) async fn document(headers: HeaderMap) -> Response {
    let tag = [(ETAG, TAG.as_str())];
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut known = known.flat_map(|tags| tags.split(',')).map(str::trim);
    if known.any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == TAG.as_str()) {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (tag, [(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use hyper::Method;
    use serde_json::Value as Json;

    use super::super::batch;
    use super::super::conflicts;
    use super::super::documents;
    use super::super::kinds;
    use super::super::native;
    use super::super::route::{Operation, Routed, route};
    use super::super::watch;
    use super::*;

    const METHODS: [Method; 7] = [
        Method::GET,
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::TRACE,
    ];

    fn parsed() -> Json {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// The methods of each path in the document.
    fn methods(document: &Json) -> BTreeMap<&str, BTreeSet<Method>> {
        let named = |path: &Json| {
            let names = path.as_object().unwrap().keys().filter(|name| *name != "parameters");
            names.map(|name| Method::from_bytes(name.to_uppercase().as_bytes()).unwrap()).collect()
        };
        let paths = document["paths"].as_object().unwrap();
        paths.iter().map(|(path, operations)| (path.as_str(), named(operations))).collect()
    }

    #[test]
    fn it_has_every_page_of_the_node_and_no_other() {
        let document = parsed();
        let mut told = methods(&document);
        let is_page = |path: &str| {
            let is_kind = kinds::allowed(path).or_else(|| documents::allowed(path)).is_some()
                || conflicts::allowed(path).or_else(|| batch::allowed(path)).is_some();
            !path.starts_with("/client/") && !is_kind && !path.ends_with("/watch")
        };
        told.retain(|path, _| is_page(path));
        let mut served = BTreeMap::<_, BTreeSet<_>>::new();
        for (method, path, _) in native::pages() {
            assert!(served.entry(path).or_default().insert(method.clone()), "{method} {path} twice");
        }
        assert_eq!(told, served);
    }

    #[test]
    fn it_has_the_watch() {
        let document = parsed();
        let all = methods(&document);
        let told: Vec<_> = all.iter().filter(|(path, _)| watch::target(path).is_some()).collect();
        assert!(matches!(&told[..], [(_, methods)] if methods.iter().eq([&Method::GET])), "{told:?}");
    }

    /// Routed by hand, since their keys are whatever stands between two slashes.
    #[test]
    fn it_has_every_call_of_values_counters_sets_and_maps() {
        let document = parsed();
        let mut told = 0;
        for (template, methods) in methods(&document) {
            let Some(allow) = kinds::allowed(template) else { continue };
            let methods: BTreeSet<_> = methods.iter().map(Method::as_str).collect();
            assert_eq!(allow.split(", ").collect::<BTreeSet<_>>(), methods, "{template}");
            told += 1;
        }
        // Keys, a whole and its metadata, of each kind; and members and fields.
        assert_eq!(told, 5 * 3 + 2);
    }

    #[test]
    fn it_has_every_call_of_documents() {
        let document = parsed();
        let mut told = 0;
        for (template, methods) in methods(&document) {
            let Some(allow) = documents::allowed(template) else { continue };
            let methods: BTreeSet<_> = methods.iter().map(Method::as_str).collect();
            assert_eq!(allow.split(", ").collect::<BTreeSet<_>>(), methods, "{template}");
            told += 1;
        }
        // Keys, a document and its metadata, changes, history and conflicts.
        assert_eq!(told, 6);
    }

    #[test]
    fn it_has_every_call_of_conflicts() {
        let document = parsed();
        let mut told = 0;
        for (template, methods) in methods(&document) {
            let Some(allow) = conflicts::allowed(template) else { continue };
            let methods: BTreeSet<_> = methods.iter().map(Method::as_str).collect();
            assert_eq!(allow.split(", ").collect::<BTreeSet<_>>(), methods, "{template}");
            told += 1;
        }
        // All, one, and its restoring.
        assert_eq!(told, 3);
    }

    #[test]
    fn it_has_the_batch() {
        let document = parsed();
        let all = methods(&document);
        let told: Vec<_> = all.iter().filter(|(path, _)| batch::allowed(path).is_some()).collect();
        assert!(matches!(&told[..], [(_, methods)] if methods.iter().eq([&Method::POST])), "{told:?}");
    }

    #[test]
    fn it_has_every_call_of_the_kv_surface_and_no_other() {
        let document = parsed();
        let mut reached = BTreeSet::new();
        for (template, told) in methods(&document) {
            let Some(_) = template.strip_prefix("/client/") else { continue };
            let path = template.replace("{account}", &"0".repeat(32)).replace("{namespace}", &"1".repeat(32));
            let path = path.replace("{key}", "k");
            let mut allowed = BTreeSet::new();
            for method in METHODS {
                match route(&method, &path) {
                    Routed::Call(call) => {
                        assert!(allowed.insert(method));
                        reached.insert(call.operation as usize);
                    }
                    Routed::WrongMethod { allow } => {
                        let told: BTreeSet<_> = told.iter().map(Method::as_str).collect();
                        assert_eq!(allow.split(", ").collect::<BTreeSet<_>>(), told, "{path}");
                    }
                    other => panic!("{method} {template}: {other:?}"),
                }
            }
            assert_eq!(told, allowed, "{template}");
        }
        let is_kv = |operation: &Operation| {
            !operation.name().starts_with("binding")
                && !matches!(operation, Operation::Unrouted | Operation::Native)
                && !matches!(
                    operation,
                    Operation::Counters
                        | Operation::Bounded
                        | Operation::Sets
                        | Operation::Maps
                        | Operation::Values
                )
                && !matches!(operation, Operation::Documents | Operation::Conflicts | Operation::Batch)
        };
        let served: BTreeSet<_> =
            Operation::ALL.into_iter().filter(is_kv).map(|operation| operation as usize).collect();
        assert_eq!(reached, served);
    }

    /// Everything below a value, itself among it.
    fn walk<'a>(json: &'a Json, visit: &mut impl FnMut(&'a Json)) {
        visit(json);
        match json {
            Json::Array(items) => items.iter().for_each(|item| walk(item, visit)),
            Json::Object(fields) => fields.values().for_each(|field| walk(field, visit)),
            _ => {}
        }
    }

    #[test]
    fn all_that_is_referred_to_is_there_and_all_that_is_there_is_referred_to() {
        let document = parsed();
        let mut referred = BTreeSet::new();
        walk(&document, &mut |json| {
            if let Some(reference) = json["$ref"].as_str() {
                let pointer = reference.strip_prefix('#').expect("inside of the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                referred.insert(reference.to_owned());
            }
        });
        for kind in ["parameters", "responses", "schemas"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(referred.contains(&reference), "nothing refers to {reference}");
            }
        }
    }

    #[test]
    fn its_version_is_that_of_the_program_and_each_operation_has_its_own_name_and_statuses() {
        let document = parsed();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut names = BTreeSet::new();
        for (path, methods) in methods(&document) {
            for method in methods {
                let operation = &document["paths"][path][method.as_str().to_lowercase()];
                assert!(names.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
                let statuses = operation["responses"].as_object().unwrap();
                let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
                let refusal = if path.starts_with("/client/") { "403" } else { "401" };
                for refusal in [refusal, "429"] {
                    assert_eq!(statuses.contains_key(refusal), !is_open, "{method} {path} {refusal}");
                }
                assert!(statuses.keys().all(|status| status.parse::<u16>().is_ok()), "{method} {path}");
            }
        }
    }
}
