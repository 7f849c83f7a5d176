//! The two kinds of patches, held to their papers.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::DocumentError;
use super::Copy;

/// RFC 7386, section 2, as it stands there.
fn merge_patch(target: &Json, patch: &Json) -> Json {
    let Json::Object(patch) = patch else { return patch.clone() };
    let mut target = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let merged = merge_patch(target.get(name).unwrap_or(&Json::Null), value);
            target.insert(name.clone(), merged);
        }
    }
    Json::Object(target)
}

/// Of any JSON but objects of one member that begins with "$".
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-3_i64..3).prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i32>().prop_map(|n| Json::from(f64::from(n) / 4.0)),
        "[ab~/ü\u{1f30a}]{0,6}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            members(inner).prop_map(Json::Object),
        ]
    })
}

fn members(inner: impl Strategy<Value = Json>) -> impl Strategy<Value = Map<String, Json>> {
    prop::collection::btree_map("[abc~/]{0,2}", inner, 0..4).prop_map(|members| members.into_iter().collect())
}

fn any_document() -> impl Strategy<Value = Json> {
    members(any_json()).prop_map(Json::Object)
}

/// Whether the two are the same to who reads numbers by their value.
fn same(one: &Json, other: &Json) -> bool {
    use super::super::tree::Tree;
    let [one, other] = [one, other].map(|json| Tree::from_json(json, 1).unwrap());
    one.reads_as(&other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_document_becomes_what_is_put(first in any_document(), then in any_document()) {
        let mut copy = Copy::of(&first, 1);
        prop_assert!(same(&copy.json(), &first));
        copy.put(&then);
        prop_assert!(same(&copy.json(), &then), "{} is not {}", copy.json(), then);
        prop_assert!(!copy.put(&then));
    }

    #[test]
    fn a_merge_patch_does_what_its_paper_says(target in any_document(), patch in any_document()) {
        let mut copy = Copy::of(&target, 1);
        copy.merge(&patch);
        prop_assert!(same(&copy.json(), &merge_patch(&target, &patch)), "{}", copy.json());
        prop_assert!(!copy.merge(&patch));
    }

    #[test]
    fn what_two_put_at_once_is_the_same_everywhere(base in any_document(), one in any_document(), other in any_document()) {
        super::meet(&base, |copy| { copy.put(&one); }, |copy| { copy.merge(&other); });
    }
}

#[test]
fn a_document_is_an_object() {
    for json in [json!([]), json!("a"), json!(null), json!({"$text": "a"})] {
        let mut copy = Copy::of(&json!({"a": 1}), 1);
        let put = copy.edit(&super::Edit::Put(&json));
        assert!(matches!(put, Err(DocumentError::NoObject { .. })), "{put:?}");
        let merged = copy.edit(&super::Edit::Merge(&json));
        assert!(matches!(merged, Err(DocumentError::NoObject { .. })), "{merged:?}");
        assert_eq!(copy.json(), json!({"a": 1}));
    }
}

#[test]
fn each_operation_does_what_its_paper_says() {
    let check = |before: Json, patch: Json, after: Json| {
        let mut copy = Copy::of(&before, 1);
        copy.patch(&patch).unwrap_or_else(|error| panic!("{patch}: {error}"));
        assert_eq!(copy.json(), after, "{patch}");
    };
    let op = |op: &str, path: &str, value: Json| json!([{"op": op, "path": path, "value": value}]);
    check(json!({"a": 1}), op("add", "/b", json!([2])), json!({"a": 1, "b": [2]}));
    check(json!({"a": 1}), op("add", "/a", json!(null)), json!({"a": null}));
    check(json!({"a": [1, 3]}), op("add", "/a/1", json!(2)), json!({"a": [1, 2, 3]}));
    check(json!({"a": [1, 3]}), op("add", "/a/2", json!({"x": []})), json!({"a": [1, 3, {"x": []}]}));
    check(json!({"a": [1]}), op("add", "/a/-", json!([2])), json!({"a": [1, [2]]}));
    check(json!({"a": 1}), op("add", "", json!({"b": 2})), json!({"b": 2}));
    check(json!({}), op("add", "/", json!(1)), json!({"": 1}));
    check(json!({"-": {"0": 1}}), op("replace", "/-/0", json!(2)), json!({"-": {"0": 2}}));
    check(json!({"a/b": {"m~n": 1}}), op("replace", "/a~1b/m~0n", json!(2)), json!({"a/b": {"m~n": 2}}));
    check(json!({"a": [1, 2]}), op("replace", "/a/0", json!({"b": 1})), json!({"a": [{"b": 1}, 2]}));
    check(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]}));
    check(json!({"a": {"b": 1}}), json!([{"op": "remove", "path": "/a/b"}]), json!({"a": {}}));
    let from = |op: &str, from: &str, path: &str| json!([{"op": op, "from": from, "path": path}]);
    check(json!({"a": {"b": 1}, "c": {}}), from("move", "/a/b", "/c/d"), json!({"a": {}, "c": {"d": 1}}));
    check(json!({"a": [1, 2, 3]}), from("move", "/a/0", "/a/2"), json!({"a": [2, 3, 1]}));
    check(json!({"a": {"b": 1}}), from("move", "/a/b", "/a"), json!({"a": 1}));
    check(json!({"a": 1}), from("move", "/a", "/a"), json!({"a": 1}));
    check(json!({"a": {"b": [1]}}), from("copy", "/a/b", "/c"), json!({"a": {"b": [1]}, "c": [1]}));
    check(json!({"a": 1}), from("copy", "", "/b"), json!({"a": 1, "b": {"a": 1}}));
    check(json!({"a": 1.0, "s": {"$text": "x"}}), op("test", "/a", json!(1)), json!({"a": 1.0, "s": "x"}));
    check(
        json!({"a": [1, {"b": "x"}]}),
        op("test", "/a", json!([1.0, {"b": "x"}])),
        json!({"a": [1, {"b": "x"}]}),
    );
    check(
        json!({"t": {"$text": "aü\u{1f30a}b"}, "k": {"$counter": 1}}),
        json!([{"op": "splice", "path": "/t", "position": 1, "delete": 2, "insert": "-", "more": 1},
            {"op": "increment", "path": "/k", "by": -3}]),
        json!({"t": "a-b", "k": -2}),
    );
}

#[test]
fn what_does_not_go_changes_nothing_and_says_where() {
    let before = json!({"a": [1], "s": "x", "t": {"$text": "ab"}, "k": {"$counter": 1}, "m": {"b": 1}});
    let check = |bad: Json, expected: &str| {
        let mut copy = Copy::of(&before, 1);
        let (heads, json) = (copy.heads(), copy.json());
        let first = json!({"op": "add", "path": "/new", "value": 1});
        let error = copy.patch(&json!([first, bad])).unwrap_err().to_string();
        assert!(error.starts_with("operation 1 (counted from 0): "), "{error}");
        assert!(error.contains(expected), "{bad}: {error}");
        assert_eq!((copy.heads(), copy.json()), (heads, json), "{bad}");
        // It goes on after a refusal.
        assert!(copy.merge(&json!({"s": "y"})));
    };
    check(json!({"op": "test", "path": "/s", "value": "y"}), "at \"/s\" is not what the test wants");
    check(json!({"op": "test", "path": "/none", "value": null}), "nothing at \"/none\"");
    check(json!({"op": "remove", "path": "/a/1"}), "nothing at \"/a/1\"");
    check(json!({"op": "replace", "path": "/a/-", "value": 1}), "nothing at");
    check(json!({"op": "replace", "path": "/none", "value": 1}), "nothing at");
    check(json!({"op": "add", "path": "/none/x", "value": 1}), "nothing at");
    check(json!({"op": "add", "path": "/a/2", "value": 1}), "its length is 1");
    check(json!({"op": "add", "path": "/a/01", "value": 1}), "nothing at");
    check(json!({"op": "add", "path": "/s/x", "value": 1}), "nothing at");
    check(json!({"op": "add", "path": "x", "value": 1}), "no JSON pointer");
    check(json!({"op": "add", "path": "/x"}), "\"value\" is missing");
    check(json!({"op": "add", "path": "", "value": []}), "a JSON object, not a list");
    check(json!({"op": "remove", "path": ""}), "DELETE");
    check(json!({"op": "move", "from": "/m", "path": "/m/b/c"}), "into itself");
    check(json!({"op": "move", "path": "/m"}), "\"from\" must be there");
    check(json!({"op": "put", "path": "/m"}), "not \"put\"");
    check(json!({"op": "splice", "path": "/s", "position": 0}), "is a string, not a text");
    check(
        json!({"op": "splice", "path": "/t", "position": 1, "delete": 2}),
        "no position 3: its length is 2",
    );
    check(json!({"op": "splice", "path": "/t", "position": u64::MAX, "delete": 1}), "no position");
    check(json!({"op": "increment", "path": "/s", "by": 1}), "is a string, not a counter");
    check(json!({"op": "increment", "path": "/k", "by": i64::MAX}), "counter would be beyond");
    check(json!({"op": "increment", "path": "", "by": 1}), "not a counter");
    check(json!(7), "no object");
}
