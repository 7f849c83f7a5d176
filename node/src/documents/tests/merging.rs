//! What several do at once.

use serde_json::json;

use super::{Copy, meet};

#[test]
fn insertions_into_a_list_all_survive() {
    let base = json!({"l": ["a", "b", "c"]});
    let merged = meet(
        &base,
        |one| {
            one.merge(&json!({"l": ["x", "a", "b", "c"]}));
        },
        |other| {
            other.merge(&json!({"l": ["a", "b", "c", "y"]}));
        },
    );
    assert_eq!(merged, json!({"l": ["x", "a", "b", "c", "y"]}));
}

#[test]
fn members_of_one_object_do_not_touch_each_other() {
    let base = json!({"rows": [{"id": 1, "n": "a", "v": 0}]});
    let merged = meet(
        &base,
        |one| {
            one.put(&json!({"rows": [{"id": 1, "n": "b", "v": 0}]}));
        },
        |other| {
            other.put(&json!({"rows": [{"id": 1, "n": "a", "v": 5}], "new": true}));
        },
    );
    assert_eq!(merged, json!({"rows": [{"id": 1, "n": "b", "v": 5}], "new": true}));
}

#[test]
fn texts_are_merged_by_character_and_counters_count() {
    let base = json!({"t": {"$text": "hello world"}, "k": {"$counter": 10}});
    let merged = meet(
        &base,
        |one| {
            let patch = json!([{"op": "splice", "path": "/t", "position": 0, "delete": 1, "insert": "H"},
                {"op": "increment", "path": "/k", "by": 5}]);
            assert!(one.patch(&patch).unwrap());
        },
        |other| {
            other.merge(&json!({"t": "hello, world!", "k": 7}));
        },
    );
    assert_eq!(merged, json!({"t": "Hello, world!", "k": 12}));
}

#[test]
fn of_strings_and_other_scalars_one_wins_everywhere() {
    let merged = meet(
        &json!({"s": "a"}),
        |one| {
            one.merge(&json!({"s": "b"}));
        },
        |other| {
            other.merge(&json!({"s": ["c"]}));
        },
    );
    assert!([json!({"s": "b"}), json!({"s": ["c"]})].contains(&merged), "{merged}");
}

#[test]
fn an_edit_of_what_another_removes_goes_with_it() {
    let merged = meet(
        &json!({"m": {"a": 1}, "l": [{"x": 1}, {"y": 1}]}),
        |one| {
            one.merge(&json!({"m": null, "l": [{"y": 1}]}));
        },
        |other| {
            other
                .patch(&json!([{"op": "replace", "path": "/m/a", "value": 2},
            {"op": "replace", "path": "/l/0/x", "value": 2}]))
                .unwrap();
        },
    );
    assert_eq!(merged["l"].as_array().unwrap().len(), 1);
    assert_eq!(merged.get("m"), None);
}

/// A client gave two changes of one actor the same number, to two PoPs. All must come to the same, in whichever order
/// they hear of them.
#[test]
fn changes_that_break_the_rules_are_sorted_out_the_same_everywhere() {
    let base = Copy::of(&json!({"a": 0}), 1);
    let (mut one, mut other) = (base.fork(2), base.fork(2));
    one.merge(&json!({"a": 1}));
    other.merge(&json!({"b": 2}));
    other.merge(&json!({"c": 3}));
    assert!(one.document.absorb(&super::chunks(&other.rows)).is_err());
    let mut rows: Vec<_> = one.rows.iter().chain(&other.rows).cloned().collect();
    let forward = Copy { rows: rows.clone(), ..Copy::new(9) }.fork(5);
    rows.reverse();
    let backward = Copy { rows, ..Copy::new(9) }.fork(6);
    assert_eq!(forward.heads(), backward.heads());
    assert_eq!(forward.json(), backward.json());
    assert!(
        [json!({"a": 1}), json!({"a": 0, "b": 2, "c": 3})].contains(&forward.json()),
        "{}",
        forward.json()
    );
}
