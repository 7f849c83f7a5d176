//! The writes of a batch: from its JSON to what the engine is asked for.
//!
//! The rule this file upholds: what passes here the engine can take. Each write is of another entry, takes only what its
//! kind and operation take, and all together are within the limits of a batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use littoral::api::batch::{BatchKind, BatchOp, BatchWrite};
use littoral::api::kinds::{MAX_AMOUNT, MIN_TTL_S};
use replication::entry::{MAX_INLINE_BYTES, MAX_KEY_BYTES};
use replication::{Change, Content, EntryId, Kind, NamespaceId, Payload, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::attributes::{self, expires_later_than};
use super::super::bulk::{AtMost, decode_value};
use super::super::conditions::tags_in;
use super::super::error::ApiError;
use super::super::query::{check_element, check_key};
use crate::engine::{Engine, Etag, MAX_BATCH_BYTES, MAX_BATCH_WRITES, Precondition, ReadError, Write};

/// A write that can be done.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) key: String,
    id: EntryId,
    step: Step,
    precondition: Option<Precondition>,
}

/// What is done to its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Put(Value),
    Delete,
    Change(Change),
}

/// A body, of which each write is looked at by itself, so that errors name it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    writes: AtMost<&'a RawValue, MAX_BATCH_WRITES>,
}

/// The writes of this body, in their order.
pub(super) fn parse(body: &[u8], namespace: NamespaceId, now_s: u64) -> Result<Vec<Planned>, ApiError> {
    let AtMost { items, given } = object::<Body<'_>>(body)?.writes;
    match given {
        0 => return Err(ApiError::NoWrites),
        given if given > MAX_BATCH_WRITES => {
            let cause = Box::new(ApiError::TooManyWrites { given });
            return Err(ApiError::InBatch { index: MAX_BATCH_WRITES, key: None, cause });
        }
        _ => {}
    }
    let mut entries = Entries::default();
    let mut bytes = 0;
    let mut planned = Vec::with_capacity(items.len());
    for (index, text) in items.into_iter().enumerate() {
        let write = read(text.get()).map_err(|cause| in_batch(index, None, cause))?;
        let key = write.key.clone();
        let write = plan(write, namespace, now_s).map_err(|cause| in_batch(index, Some(&key), cause))?;
        entries.add(index, &write).map_err(|cause| write.refused(index, cause))?;
        bytes += write.bytes();
        if bytes > MAX_BATCH_BYTES {
            return Err(write.refused(index, ApiError::BatchTooLarge { given: bytes }));
        }
        planned.push(write);
    }
    Ok(planned)
}

/// A JSON object of this type. An array of the values of its fields would be taken for one.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ApiError> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::NotJson { reason: "it is no object".to_owned() });
    }
    serde_json::from_slice(text).map_err(|error| ApiError::NotJson { reason: error.to_string() })
}

fn read(text: &str) -> Result<BatchWrite, ApiError> {
    #[derive(Deserialize)]
    struct OfKind {
        kind: String,
    }
    object(text.as_bytes()).map_err(|error| match object::<OfKind>(text.as_bytes()) {
        Ok(OfKind { kind }) if kind == "doc" => ApiError::invalid(
            "a batch changes no documents, whose edits are made of what is there: edit it by itself, under docs/",
        ),
        _ => error,
    })
}

fn in_batch(index: usize, key: Option<&str>, cause: ApiError) -> ApiError {
    // A longer one is no key, but may be the whole body.
    let key = key.filter(|key| key.len() <= MAX_KEY_BYTES).map(str::to_owned);
    ApiError::InBatch { index, key, cause: Box::new(cause) }
}

/// What a write may say beside kind, op, key and conditions; `None` where there is no such operation.
fn takes(kind: BatchKind, op: BatchOp) -> Option<&'static [&'static str]> {
    match (kind, op) {
        (_, BatchOp::Delete) => Some(&[]),
        (BatchKind::Value, BatchOp::Put) => {
            Some(&["value", "base64", "metadata", "expiration", "expiration_ttl"])
        }
        (BatchKind::Counter, BatchOp::Add) => Some(&["amount", "expiration", "expiration_ttl"]),
        (BatchKind::Bounded, BatchOp::Add | BatchOp::Take) => Some(&["amount"]),
        (BatchKind::Set, BatchOp::Add) => Some(&["member", "expiration", "expiration_ttl"]),
        (BatchKind::Set, BatchOp::Remove) => Some(&["member"]),
        (BatchKind::Map, BatchOp::Put) => Some(&["field", "value", "base64", "expiration", "expiration_ttl"]),
        (BatchKind::Map, BatchOp::Remove) => Some(&["field"]),
        _ => None,
    }
}

/// What errors say of a kind: its name with its article, and its operations.
fn words(kind: BatchKind) -> (&'static str, &'static str) {
    match kind {
        BatchKind::Value => ("a value", "put and delete"),
        BatchKind::Counter => ("a counter", "add and delete"),
        BatchKind::Bounded => ("a bounded counter", "add, take and delete"),
        BatchKind::Set => ("a set", "add and remove of a member, and delete"),
        BatchKind::Map => ("a map", "put and remove of a field, and delete"),
    }
}

fn op_word(op: BatchOp) -> &'static str {
    match op {
        BatchOp::Put => "put",
        BatchOp::Delete => "delete",
        BatchOp::Add => "add",
        BatchOp::Take => "take",
        BatchOp::Remove => "remove",
    }
}

fn plan(write: BatchWrite, namespace: NamespaceId, now_s: u64) -> Result<Planned, ApiError> {
    check_key(&write.key)?;
    let (kind, op) = (write.kind, write.op);
    let (whole, ops) = words(kind);
    let taken = takes(kind, op)
        .ok_or_else(|| ApiError::invalid(format!("of {whole} a batch does {ops}, not {}", op_word(op))))?;
    let given = [
        ("member", write.member.is_some()),
        ("field", write.field.is_some()),
        ("value", write.value.is_some()),
        ("base64", write.base64.is_some()),
        ("amount", write.amount.is_some()),
        ("metadata", write.metadata.is_some()),
        ("expiration", write.expiration.is_some()),
        ("expiration_ttl", write.expiration_ttl.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(field, is_given)| *is_given && !taken.contains(field)) {
        return Err(ApiError::invalid(format!("{} of {whole} takes no \"{field}\"", op_word(op))));
    }
    let precondition = precondition(&write)?;
    let element = match (op, kind) {
        (BatchOp::Delete, BatchKind::Set | BatchKind::Map) if precondition.is_some() => {
            return Err(ApiError::invalid(
                "if_match and if_none_match are for one value, counter, member or field, not for this: leave them out",
            ));
        }
        (BatchOp::Delete, _) => "",
        (_, BatchKind::Set) => element("member", "the member", write.member.as_deref())?,
        (_, BatchKind::Map) => element("field", "the field", write.field.as_deref())?,
        _ => "",
    };
    let id = EntryId {
        namespace,
        kind: entry_kind(kind),
        key: Bytes::copy_from_slice(write.key.as_bytes()),
        element: Bytes::copy_from_slice(element.as_bytes()),
    };
    let step = step(&write, now_s)?;
    Ok(Planned { key: write.key, id, step, precondition })
}

fn entry_kind(kind: BatchKind) -> Kind {
    match kind {
        BatchKind::Value => Kind::Value,
        BatchKind::Counter => Kind::Counter,
        BatchKind::Bounded => Kind::Bounded,
        BatchKind::Set => Kind::Set,
        BatchKind::Map => Kind::Map,
    }
}

/// The member or field that is meant.
fn element<'a>(field: &'static str, what: &'static str, given: Option<&'a str>) -> Result<&'a str, ApiError> {
    let given = given.ok_or_else(|| ApiError::invalid(format!("give \"{field}\", {what} that is meant")))?;
    check_element(given, what)?;
    Ok(given)
}

fn precondition(write: &BatchWrite) -> Result<Option<Precondition>, ApiError> {
    let tags = |name, text: &Option<String>| text.as_ref().map(|text| tags_in(name, text)).transpose();
    let asked = Precondition {
        is: tags("if_match", &write.if_match)?,
        is_not: tags("if_none_match", &write.if_none_match)?,
    };
    Ok(Some(asked).filter(|asked| *asked != Precondition::default()))
}

/// What is done, where the write says all that it must.
fn step(write: &BatchWrite, now_s: u64) -> Result<Step, ApiError> {
    let seconds = |given: Option<u64>| given.map(|seconds| seconds as f64);
    let expires_at_s =
        expires_later_than(MIN_TTL_S, seconds(write.expiration), seconds(write.expiration_ttl), now_s)?;
    let change = match (write.kind, write.op) {
        (BatchKind::Value, BatchOp::Delete) => return Ok(Step::Delete),
        (BatchKind::Value, _) => {
            let bytes = content(write)?;
            if bytes.len() > MAX_INLINE_BYTES {
                return Err(ApiError::BatchValueTooLarge { len: bytes.len() });
            }
            let metadata = write.metadata.as_ref().map(|json| attributes::metadata(json.get().as_bytes()));
            let metadata = metadata.transpose()?.flatten();
            return Ok(Step::Put(Value { payload: Payload::Inline(bytes), metadata, expires_at_s }));
        }
        (_, BatchOp::Delete) => Change::Clear,
        (BatchKind::Counter, _) => Change::Add { amount: amount(write, -MAX_AMOUNT)?, expires_at_s },
        (_, BatchOp::Take) => Change::Add { amount: -amount(write, 1)?, expires_at_s: None },
        (BatchKind::Bounded, _) => Change::Add { amount: amount(write, 0)?, expires_at_s: None },
        (_, BatchOp::Remove) => Change::Remove,
        (BatchKind::Set, _) => Change::Put(Content { bytes: Bytes::new(), expires_at_s }),
        (BatchKind::Map, _) => {
            let bytes = content(write)?;
            if bytes.len() > MAX_INLINE_BYTES {
                return Err(ApiError::FieldTooLarge);
            }
            Change::Put(Content { bytes, expires_at_s })
        }
    };
    Ok(Step::Change(change))
}

/// The bytes to put.
fn content(write: &BatchWrite) -> Result<Bytes, ApiError> {
    match (&write.value, &write.base64) {
        (Some(text), None) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (None, Some(text)) => Ok(decode_value(&write.key, text)?.into()),
        _ => Err(ApiError::invalid("a put has one of \"value\" and \"base64\"")),
    }
}

fn amount(write: &BatchWrite, least: i64) -> Result<i64, ApiError> {
    let given = write
        .amount
        .ok_or_else(|| ApiError::invalid(format!("give \"amount\", how much to {}", op_word(write.op))))?;
    match (least..=MAX_AMOUNT).contains(&given) {
        true => Ok(given),
        false => Err(ApiError::invalid(format!("amount must be {least} to {MAX_AMOUNT} here, not {given}"))),
    }
}

/// The entries of a batch so far, with the write of each.
#[derive(Default)]
struct Entries {
    entries: BTreeMap<EntryId, usize>,
    /// Sets and maps of which a member or field is written, with the first such write.
    elements: BTreeMap<EntryId, usize>,
}

impl Entries {
    fn add(&mut self, index: usize, write: &Planned) -> Result<(), ApiError> {
        if let Some(other) = self.entries.insert(write.id.clone(), index) {
            return Err(ApiError::invalid(format!(
                "it is of the same entry as writes[{other}]: a batch has one write of each"
            )));
        }
        if !write.id.element.is_empty() {
            let whole = EntryId { element: Bytes::new(), ..write.id.clone() };
            self.elements.entry(whole).or_insert(index);
            return Ok(());
        }
        match self.elements.get(&write.id) {
            Some(other) => Err(ApiError::invalid(format!(
                "it deletes what writes[{other}] is about: put it before that one, and what follows stays"
            ))),
            None => Ok(()),
        }
    }
}

impl Planned {
    /// The error, as one of this write.
    pub(super) fn refused(&self, index: usize, cause: ApiError) -> ApiError {
        in_batch(index, Some(&self.key), cause)
    }

    /// What the engine is asked for.
    pub(super) fn write(&self) -> Write {
        let EntryId { namespace, key, .. } = &self.id;
        let write = match &self.step {
            Step::Put(value) => Write::Put { namespace: *namespace, key: key.clone(), value: value.clone() },
            Step::Delete => Write::Delete { namespace: *namespace, key: key.clone() },
            Step::Change(change) => Write::Change { id: self.id.clone(), change: change.clone() },
        };
        match &self.precondition {
            Some(asked) => Write::If { precondition: asked.clone(), write: Box::new(write) },
            None => write,
        }
    }

    /// What it takes of [`MAX_BATCH_BYTES`].
    fn bytes(&self) -> usize {
        let written = match &self.step {
            Step::Put(Value { payload, metadata, .. }) => {
                payload.len() as usize + metadata.as_ref().map_or(0, Bytes::len)
            }
            Step::Change(Change::Put(content)) => content.bytes.len(),
            Step::Delete | Step::Change(_) => 0,
        };
        self.id.key.len() + self.id.element.len() + written
    }

    /// Whether its event alone names the state that it leaves.
    pub(super) fn names_state(&self) -> bool {
        matches!(self.step, Step::Put(_) | Step::Change(Change::Put(_)))
    }

    /// Whether it adds to a counter or takes from one.
    pub(super) fn counts(&self) -> bool {
        matches!(self.step, Step::Change(Change::Add { .. }))
    }

    /// What the counter stands at here, and the name of that state; `None` where it is gone again.
    pub(super) fn counted(&self, engine: &Engine) -> Result<Option<(i64, Etag)>, ReadError> {
        let EntryId { namespace, kind, key, .. } = &self.id;
        let found = match kind {
            Kind::Bounded => engine.bounded(*namespace, key)?.map(|(view, etag)| (view.count, etag)),
            _ => engine.counter(*namespace, key)?.map(|(view, etag)| (view.count, etag)),
        };
        // More than a thousand PoPs would have to count as far as one may.
        let within =
            |count: i128| i64::try_from(count).unwrap_or(if count < 0 { i64::MIN } else { i64::MAX });
        Ok(found.map(|(count, etag)| (within(count), etag)))
    }

    /// How much it takes from a bounded counter, if it does.
    pub(super) fn taking(&self) -> Option<u64> {
        match (&self.step, self.id.kind) {
            (Step::Change(Change::Add { amount: taken @ ..0, .. }), Kind::Bounded) => {
                Some(taken.unsigned_abs())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use littoral::api::values::MAX_TAGS;
    use replication::entry::{MAX_ELEMENT_BYTES, MAX_METADATA_BYTES};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::engine::{Tag, Tags};

    const NAMESPACE: NamespaceId = NamespaceId([7; 16]);
    const NOW_S: u64 = 1_000;

    fn planned(writes: &Json) -> Result<Vec<Planned>, ApiError> {
        parse(json!({ "writes": writes }).to_string().as_bytes(), NAMESPACE, NOW_S)
    }

    /// The problem that this body is refused with.
    #[track_caller]
    fn problem(body: &str) -> Json {
        parse(body.as_bytes(), NAMESPACE, NOW_S).expect_err("it is refused").details()
    }

    #[track_caller]
    fn check_refused(writes: Json, index: u64, status: u64, text: &str) {
        let problem = problem(&json!({ "writes": writes }).to_string());
        assert_eq!((&problem["status"], &problem["index"]), (&json!(status), &json!(index)), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        let begin = format!("writes[{index}]");
        assert!(detail.starts_with(&begin) && detail.contains(text), "\"{text}\" is not in \"{detail}\"");
    }

    fn put(key: &str, bytes: usize) -> Json {
        json!({ "kind": "value", "op": "put", "key": key, "value": "v".repeat(bytes) })
    }

    #[test]
    fn each_kind_and_operation_becomes_its_write() {
        let content = |bytes: &'static str, expires_at_s| Content { bytes: bytes.into(), expires_at_s };
        let add = |amount, expires_at_s| Step::Change(Change::Add { amount, expires_at_s });
        let value = |bytes: &'static [u8], metadata: Option<&'static str>, expires_at_s| {
            let payload = Payload::Inline(Bytes::from_static(bytes));
            Step::Put(Value { payload, metadata: metadata.map(Bytes::from), expires_at_s })
        };
        let cases = [
            (
                json!({"kind": "value", "op": "put", "key": "k", "value": "v", "metadata": {"a": 1}, "expiration_ttl": 5}),
                (Kind::Value, "", value(b"v", Some("{\"a\":1}"), Some(NOW_S + 5))),
            ),
            (
                json!({"kind": "value", "op": "put", "key": "b", "base64": "/w==", "expiration": 2000}),
                (Kind::Value, "", value(b"\xff", None, Some(2000))),
            ),
            (
                json!({"kind": "value", "op": "put", "key": "n", "value": "", "metadata": null}),
                (Kind::Value, "", value(b"", None, None)),
            ),
            (json!({"kind": "value", "op": "delete", "key": "d"}), (Kind::Value, "", Step::Delete)),
            (
                json!({"kind": "counter", "op": "add", "key": "k", "amount": -3}),
                (Kind::Counter, "", add(-3, None)),
            ),
            (
                json!({"kind": "counter", "op": "add", "key": "e", "amount": 0, "expiration_ttl": 1}),
                (Kind::Counter, "", add(0, Some(NOW_S + 1))),
            ),
            (
                json!({"kind": "counter", "op": "delete", "key": "r"}),
                (Kind::Counter, "", Step::Change(Change::Clear)),
            ),
            (
                json!({"kind": "bounded", "op": "add", "key": "k", "amount": 4}),
                (Kind::Bounded, "", add(4, None)),
            ),
            (
                json!({"kind": "bounded", "op": "take", "key": "t", "amount": 4}),
                (Kind::Bounded, "", add(-4, None)),
            ),
            (
                json!({"kind": "set", "op": "delete", "key": "k"}),
                (Kind::Set, "", Step::Change(Change::Clear)),
            ),
            (
                json!({"kind": "set", "op": "add", "key": "k", "member": "m", "expiration_ttl": 9}),
                (Kind::Set, "m", Step::Change(Change::Put(content("", Some(NOW_S + 9))))),
            ),
            (
                json!({"kind": "set", "op": "remove", "key": "k", "member": "n"}),
                (Kind::Set, "n", Step::Change(Change::Remove)),
            ),
            (
                json!({"kind": "map", "op": "put", "key": "k", "field": "m", "value": "x"}),
                (Kind::Map, "m", Step::Change(Change::Put(content("x", None)))),
            ),
            (
                json!({"kind": "map", "op": "remove", "key": "k", "field": "n"}),
                (Kind::Map, "n", Step::Change(Change::Remove)),
            ),
        ];
        let found = planned(&cases.iter().map(|(write, _)| write.clone()).collect()).unwrap();
        assert_eq!(found.len(), cases.len());
        for (found, (write, (kind, element, step))) in found.iter().zip(cases) {
            assert_eq!((found.id.namespace, found.id.kind), (NAMESPACE, kind), "{write}");
            assert_eq!(
                (found.id.key.as_ref(), found.key.as_str()),
                (found.key.as_bytes(), write["key"].as_str().unwrap())
            );
            assert_eq!((&found.id.element[..], &found.step), (element.as_bytes(), &step), "{write}");
            assert!(found.precondition.is_none(), "{write}");
        }
    }

    #[test]
    fn what_a_write_does_not_take_or_lacks_is_named() {
        let refused = |write: Json, text: &str| check_refused(json!([put("first", 1), write]), 1, 400, text);
        let value =
            |more: Json| merged(json!({"kind": "value", "op": "put", "key": "k", "value": "v"}), more);
        refused(json!(["value", "put", "k"]), "no object");
        refused(json!({"kind": "doc", "op": "put", "key": "k"}), "changes no documents");
        refused(json!({"kind": "list", "op": "put", "key": "k"}), "unknown variant `list`");
        refused(json!({"kind": "value", "op": "clear", "key": "k"}), "unknown variant `clear`");
        refused(json!({"op": "put", "key": "k"}), "missing field `kind`");
        refused(
            json!({"kind": "value", "op": "add", "key": "k"}),
            "of a value a batch does put and delete, not add",
        );
        refused(json!({"kind": "counter", "op": "take", "key": "k", "amount": 1}), "not take");
        refused(json!({"kind": "set", "op": "put", "key": "k"}), "not put");
        refused(value(json!({"values": 1})), "unknown field `values`");
        refused(value(json!({"expiration": null})), "invalid type: null");
        refused(value(json!({"amount": 1})), "put of a value takes no \"amount\"");
        refused(value(json!({"base64": "/w=="})), "one of \"value\" and \"base64\"");
        refused(value(json!({"expiration": NOW_S})), "at least 1 seconds in the future");
        refused(value(json!({"expiration_ttl": 0})), "must be at least 1");
        refused(value(json!({"if_match": "abc"})), "if_match must be * or tags");
        refused(value(json!({"key": ""})), "cannot be empty");
        refused(value(json!({"key": ".."})), "not allowed as a key name");
        refused(json!({"kind": "value", "op": "put", "key": "k"}), "one of \"value\" and \"base64\"");
        refused(json!({"kind": "value", "op": "put", "key": "k", "base64": "?"}), "is not base64");
        refused(json!({"kind": "value", "op": "delete", "key": "k", "metadata": 1}), "takes no \"metadata\"");
        refused(json!({"kind": "counter", "op": "add", "key": "k"}), "give \"amount\"");
        refused(json!({"kind": "bounded", "op": "add", "key": "k", "amount": -1}), "amount must be 0 to");
        refused(json!({"kind": "bounded", "op": "take", "key": "k", "amount": 0}), "amount must be 1 to");
        refused(
            json!({"kind": "bounded", "op": "add", "key": "k", "amount": 1, "expiration_ttl": 9}),
            "takes no \"expiration_ttl\"",
        );
        refused(json!({"kind": "set", "op": "add", "key": "k"}), "give \"member\"");
        refused(json!({"kind": "set", "op": "add", "key": "k", "member": ""}), "the member cannot be empty");
        refused(json!({"kind": "set", "op": "add", "key": "k", "field": "f"}), "takes no \"field\"");
        refused(json!({"kind": "map", "op": "put", "key": "k", "value": "v"}), "give \"field\"");
        refused(json!({"kind": "map", "op": "delete", "key": "k", "if_match": "*"}), "for one value");
    }

    /// The fields of both objects.
    fn merged(mut base: Json, more: Json) -> Json {
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        base
    }

    #[test]
    fn a_body_that_is_no_batch_is_refused_as_a_whole() {
        for (body, text) in [
            ("", "no object"),
            ("[]", "no object"),
            (r#"[[{"kind":"value","op":"delete","key":"k"}]]"#, "no object"),
            ("{}", "missing field `writes`"),
            (r#"{"writes":{}}"#, "expected an array"),
            (r#"{"writes":[],"ack":"durable"}"#, "unknown field `ack`"),
            (r#"{"writes":[]}"#, "at least 1 write"),
            (r#"{"writes":[{"#, "EOF"),
            (r#"{"writes":[]} 1"#, "trailing"),
        ] {
            let problem = problem(body);
            assert_eq!((&problem["status"], problem.get("index")), (&json!(400), None), "{body}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(text), "{body}: {problem}");
        }
    }

    #[test]
    fn conditions_are_read_as_headers_are() {
        let of = |write: Json| planned(&json!([write])).map(|mut writes| writes.remove(0).precondition);
        let tag = |text: &str| Tags::These(vec![Tag { text: text.into(), is_weak: false }]);
        let write = |more| merged(json!({"kind": "set", "op": "remove", "key": "k", "member": "m"}), more);
        let found = of(write(json!({"if_match": "\"a\"", "if_none_match": "*"}))).unwrap();
        assert_eq!(found, Some(Precondition { is: Some(tag("a")), is_not: Some(Tags::Any) }));
        assert!(of(write(json!({"if_match": "\"a\", W/\"b\""}))).is_ok());
        for (count, fits) in [(MAX_TAGS - 1, true), (MAX_TAGS, true), (MAX_TAGS + 1, false)] {
            let tags = vec!["\"a\""; count].join(",");
            assert_eq!(of(write(json!({"if_none_match": tags}))).is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn an_entry_has_one_write_and_what_is_emptied_is_emptied_first() {
        let add = |member: &str| json!({"kind": "set", "op": "add", "key": "k", "member": member});
        let delete = |kind: &str| json!({"kind": kind, "op": "delete", "key": "k"});
        check_refused(json!([put("k", 1), put("j", 1), put("k", 2)]), 2, 400, "same entry as writes[0]");
        check_refused(json!([put("k", 1), delete("value")]), 1, 400, "same entry as writes[0]");
        check_refused(json!([add("m"), add("n"), add("m")]), 2, 400, "same entry as writes[0]");
        check_refused(
            json!([put("k", 1), add("m"), delete("set")]),
            2,
            400,
            "deletes what writes[1] is about",
        );
        // Kinds do not meet, and a member is not its set.
        let all = ["value", "counter", "bounded", "set", "map"].map(delete);
        assert_eq!(planned(&json!(all)).unwrap().len(), 5);
        assert_eq!(planned(&json!([delete("set"), add("m"), add("n")])).unwrap().len(), 3);
    }

    #[test]
    fn a_batch_has_so_many_writes() {
        for (count, fits) in
            [(MAX_BATCH_WRITES - 1, true), (MAX_BATCH_WRITES, true), (MAX_BATCH_WRITES + 1, false)]
        {
            let writes: Json = (0..count).map(|number| put(&format!("k{number}"), 1)).collect();
            if fits {
                assert_eq!(planned(&writes).unwrap().len(), count);
            } else {
                check_refused(writes, MAX_BATCH_WRITES as u64, 400, "101 writes exceed the limit of 100");
            }
        }
    }

    #[test]
    fn a_batch_has_so_many_bytes_of_names_and_what_is_written() {
        // Fifteen of the largest values, and one that fills what they leave.
        let full = |last: usize| -> Json {
            let large = (0..15).map(|number| put(&format!("{number:02}"), MAX_INLINE_BYTES));
            let field =
                json!({"kind": "map", "op": "put", "key": "kk", "field": "ffff", "value": "v".repeat(last)});
            large.chain([field]).collect()
        };
        let left = MAX_BATCH_BYTES - 15 * (2 + MAX_INLINE_BYTES) - 6;
        assert!(left <= MAX_INLINE_BYTES);
        for (last, fits) in [(left - 1, true), (left, true), (left + 1, false)] {
            match fits {
                true => assert_eq!(planned(&full(last)).unwrap().len(), 16, "{last}"),
                false => check_refused(full(last), 15, 413, "more than 262144"),
            }
        }
        // Metadata counts, too.
        let with_metadata = merged(put("zz", 0), json!({"metadata": "m".repeat(1_000)}));
        let mut writes = full(left - 1_004);
        writes.as_array_mut().unwrap().push(with_metadata.clone());
        assert_eq!(planned(&writes).unwrap().len(), 17);
        let mut writes = full(left - 1_003);
        writes.as_array_mut().unwrap().push(with_metadata);
        check_refused(writes, 16, 413, "more than 262144");
    }

    #[test]
    fn each_part_of_a_write_has_its_limit() {
        let check = |limit: usize, status: u64, text: &str, write: &dyn Fn(usize) -> Json| {
            for (len, fits) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
                match fits {
                    true => assert!(planned(&json!([write(len)])).is_ok(), "{text} {len}"),
                    false => check_refused(json!([write(len)]), 0, status, text),
                }
            }
        };
        check(MAX_INLINE_BYTES, 413, "and one of a batch at most 16384", &|len| put("k", len));
        check(
            MAX_INLINE_BYTES,
            413,
            "a field exceeds 16384",
            &|len| json!({"kind": "map", "op": "put", "key": "k", "field": "f", "value": "v".repeat(len)}),
        );
        check(MAX_KEY_BYTES, 414, "key length limit of 512", &|len| put(&"k".repeat(len), 1));
        check(
            MAX_ELEMENT_BYTES,
            400,
            "the limit of 512",
            &|len| json!({"kind": "set", "op": "add", "key": "k", "member": "m".repeat(len)}),
        );
        check(MAX_METADATA_BYTES, 413, "Metadata length", &|len| {
            merged(put("k", 1), json!({"metadata": "m".repeat(len - 2)}))
        });
        let add = |amount: i64| json!([{"kind": "counter", "op": "add", "key": "k", "amount": amount}]);
        for (amount, fits) in [(MAX_AMOUNT - 1, true), (MAX_AMOUNT, true), (MAX_AMOUNT + 1, false)] {
            assert_eq!(planned(&add(amount)).is_ok(), fits, "{amount}");
            assert_eq!(planned(&add(-amount)).is_ok(), fits, "-{amount}");
        }
    }

    #[test]
    fn a_key_that_is_too_long_is_not_told_again() {
        let problem = problem(&json!({"writes": [put(&"k".repeat(2 << 20), 1)]}).to_string());
        assert!(problem.to_string().len() < 1_000);
        assert_eq!(problem.get("key"), None);
    }
}
