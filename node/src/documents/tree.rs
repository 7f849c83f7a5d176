//! A part of a document by itself, as it is read, and as it is to be.
//!
//! JSON has fewer types than automerge. An object with one member of these names stands for what JSON cannot say:
//! `{"$text": "..."}` a text that several edit at once, `{"$counter": 1}`, `{"$timestamp": ms}` and
//! `{"$bytes": "base64"}`. Read are texts as strings, counters and timestamps as numbers, and bytes as they were written.

use std::collections::BTreeMap;

use automerge::ScalarValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value as Json, json};

use super::{DocumentError, MAX_COUNT, MAX_DEPTH};

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Map(BTreeMap<String, Tree>),
    List(Vec<Tree>),
    Text(String),
    Scalar(ScalarValue),
}

impl Tree {
    /// What this JSON says, at this depth of a document.
    pub(crate) fn from_json(json: &Json, depth: usize) -> Result<Self, DocumentError> {
        if depth > MAX_DEPTH && (json.is_object() || json.is_array()) {
            return Err(DocumentError::TooDeep);
        }
        if let Some(literal) = literal(json)? {
            return Ok(literal);
        }
        Ok(match json {
            Json::Object(members) => {
                let member = |(key, value): (&String, _)| {
                    Self::from_json(value, depth + 1).map(|tree| (key.clone(), tree))
                };
                Self::Map(members.iter().map(member).collect::<Result<_, _>>()?)
            }
            Json::Array(items) => Self::List(
                items.iter().map(|item| Self::from_json(item, depth + 1)).collect::<Result<_, _>>()?,
            ),
            Json::String(text) => Self::Scalar(ScalarValue::Str(text.into())),
            Json::Number(number) => Self::Scalar(scalar_of(number)),
            Json::Bool(bool) => Self::Scalar(ScalarValue::Boolean(*bool)),
            Json::Null => Self::Scalar(ScalarValue::Null),
        })
    }

    /// As clients read it.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Map(members) => {
                Json::Object(members.iter().map(|(key, tree)| (key.clone(), tree.to_json())).collect())
            }
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Text(text) => Json::String(text.clone()),
            Self::Scalar(scalar) => scalar_json(scalar),
        }
    }

    /// What errors call it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Map(_) => "an object",
            Self::List(_) => "a list",
            Self::Text(_) => "a text",
            Self::Scalar(ScalarValue::Str(_)) => "a string",
            Self::Scalar(ScalarValue::Counter(_)) => "a counter",
            Self::Scalar(_) => "a scalar",
        }
    }

    /// How deep it is in itself: 0 of what holds nothing, 1 of an empty object.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Map(members) => 1 + members.values().map(Self::depth).max().unwrap_or(0),
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Text(_) | Self::Scalar(_) => 0,
        }
    }

    /// Whether what is there is read as this is: of numbers only the value counts.
    pub(crate) fn reads_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Map(one), Self::Map(other)) => {
                one.len() == other.len()
                    && one.iter().zip(other).all(|((a, one), (b, other))| a == b && one.reads_as(other))
            }
            (Self::List(one), Self::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.reads_as(other))
            }
            (Self::Scalar(one), Self::Scalar(other)) => same_scalar(one, other),
            (one, other) => matches!((one.text(), other.text()), (Some(one), Some(other)) if one == other),
        }
    }

    /// Whether nothing is to be done where this is, for `wanted` to be there: who asks for a text or a counter is not
    /// content with a string or a number.
    pub(crate) fn satisfies(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Map(one), Self::Map(wanted)) => {
                one.len() == wanted.len()
                    && one.iter().zip(wanted).all(|((a, one), (b, wanted))| a == b && one.satisfies(wanted))
            }
            (Self::List(one), Self::List(wanted)) => {
                one.len() == wanted.len() && one.iter().zip(wanted).all(|(one, wanted)| one.satisfies(wanted))
            }
            (Self::Scalar(_), Self::Text(_)) => false,
            (Self::Scalar(one), Self::Scalar(ScalarValue::Counter(wanted))) => {
                matches!(one, ScalarValue::Counter(one) if one == wanted)
            }
            (Self::Scalar(one), Self::Scalar(ScalarValue::Timestamp(wanted))) => {
                matches!(one, ScalarValue::Timestamp(one) if one == wanted)
            }
            _ => self.reads_as(wanted),
        }
    }

    /// A name that two have in common where they are read as the same.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Map(members) => {
                let member = |(key, tree): (&String, &Self)| format!("{}:{}", json!(key), tree.name());
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
            Self::List(items) => format!("[{}]", items.iter().map(Self::name).collect::<Vec<_>>().join(",")),
            Self::Text(text) => json!(text).to_string(),
            Self::Scalar(scalar) => match number(scalar) {
                Some(Count::Whole(whole)) => whole.to_string(),
                Some(Count::Real(real)) => real.to_string(),
                None => scalar_json(scalar).to_string(),
            },
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Scalar(ScalarValue::Str(text)) => Some(text),
            _ => None,
        }
    }
}

/// What an object with one member of a name of ours stands for; `None` of everything else.
fn literal(json: &Json) -> Result<Option<Tree>, DocumentError> {
    let Json::Object(members) = json else { return Ok(None) };
    let Some((name, value)) = members.iter().next().filter(|_| members.len() == 1) else { return Ok(None) };
    let wrong = |wanted: &str| DocumentError::NotUnderstood {
        reason: format!("the only member \"{name}\" of an object must be {wanted}"),
    };
    let scalar = match name.as_str() {
        "$text" => {
            let text = value.as_str().ok_or_else(|| wrong("a string"))?;
            return Ok(Some(Tree::Text(text.to_owned())));
        }
        "$counter" => {
            let count = value.as_i64().filter(|count| count.unsigned_abs() <= MAX_COUNT as u64);
            ScalarValue::counter(count.ok_or_else(|| wrong("a whole number of at most 2^53 - 1 either way"))?)
        }
        "$timestamp" => {
            let at_ms = value.as_i64();
            ScalarValue::Timestamp(at_ms.ok_or_else(|| wrong("a whole number of milliseconds since 1970"))?)
        }
        "$bytes" => {
            let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
            ScalarValue::Bytes(bytes.ok_or_else(|| wrong("a string in base64"))?)
        }
        _ => return Ok(None),
    };
    Ok(Some(Tree::Scalar(scalar)))
}

/// Whether this JSON is an object whose members are meant, and not one that stands for something else.
pub(crate) fn plain_members(json: &Json) -> Result<Option<&serde_json::Map<String, Json>>, DocumentError> {
    Ok(match literal(json)? {
        Some(_) => None,
        None => json.as_object(),
    })
}

fn scalar_of(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) => ScalarValue::Int(whole),
        (None, Some(whole)) => ScalarValue::Uint(whole),
        (None, None) => ScalarValue::F64(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn scalar_json(scalar: &ScalarValue) -> Json {
    match scalar {
        // What a later version of automerge brings is shown as its bytes.
        ScalarValue::Bytes(bytes) | ScalarValue::Unknown { bytes, .. } => {
            json!({ "$bytes": STANDARD.encode(bytes) })
        }
        ScalarValue::Str(text) => Json::String(text.to_string()),
        ScalarValue::Int(whole) | ScalarValue::Timestamp(whole) => json!(whole),
        ScalarValue::Uint(whole) => json!(whole),
        // JSON has no NaN and no infinity.
        ScalarValue::F64(real) => Number::from_f64(*real).map_or(Json::Null, Json::Number),
        ScalarValue::Counter(count) => json!(i64::from(count)),
        ScalarValue::Boolean(bool) => Json::Bool(*bool),
        ScalarValue::Null => Json::Null,
    }
}

/// The value of a number, whatever its type.
#[derive(PartialEq)]
enum Count {
    Whole(i128),
    Real(f64),
}

fn number(scalar: &ScalarValue) -> Option<Count> {
    /// From here on each float is a whole number, and casts to one as it is, up to 2^126.
    const MAX_WHOLE: f64 = (1_u128 << 126) as f64;
    match scalar {
        ScalarValue::Int(whole) | ScalarValue::Timestamp(whole) => Some(Count::Whole((*whole).into())),
        ScalarValue::Uint(whole) => Some(Count::Whole((*whole).into())),
        ScalarValue::Counter(count) => Some(Count::Whole(i64::from(count).into())),
        ScalarValue::F64(real) if !real.is_finite() => None,
        ScalarValue::F64(real) if real.fract() == 0.0 && real.abs() < MAX_WHOLE => {
            Some(Count::Whole(*real as i128))
        }
        ScalarValue::F64(real) => Some(Count::Real(*real)),
        _ => None,
    }
}

fn same_scalar(one: &ScalarValue, other: &ScalarValue) -> bool {
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => scalar_json(one) == scalar_json(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Json {
        (1..depth).fold(json!({}), |inner, _| json!([inner]))
    }

    #[test]
    fn json_comes_back_as_it_went_in() {
        for json in [
            json!({"a": [1, -1, 1.5, u64::MAX, i64::MIN, true, null, "x", {}, []]}),
            json!({"b": {"$bytes": "AAEC"}}),
            json!({"$other": 1}),
            json!({"$text": "a", "b": 1}),
        ] {
            assert_eq!(Tree::from_json(&json, 1).unwrap().to_json(), json);
        }
        let typed = json!([{"$text": "t"}, {"$counter": -3}, {"$timestamp": 4}]);
        assert_eq!(Tree::from_json(&typed, 1).unwrap().to_json(), json!(["t", -3, 4]));
    }

    #[test]
    fn what_stands_for_something_is_held_to_it() {
        for (json, is_fine) in [
            (json!({"$text": 1}), false),
            (json!({"$bytes": "?"}), false),
            (json!({"$timestamp": 1.5}), false),
            (json!({"$counter": MAX_COUNT}), true),
            (json!({"$counter": MAX_COUNT + 1}), false),
            (json!({"$counter": -MAX_COUNT - 1}), false),
        ] {
            assert_eq!(Tree::from_json(&json, 1).is_ok(), is_fine, "{json}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (depth, is_fine) in [(MAX_DEPTH - 1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
            let tree = Tree::from_json(&nested(depth), 1);
            assert_eq!(tree.is_ok(), is_fine, "{depth}");
            assert!(tree.map_or(true, |tree| tree.depth() == depth));
        }
    }

    #[test]
    fn of_numbers_the_value_counts() {
        let check = |one: Json, other: Json, expected| {
            let [one, other] = [one, other].map(|json| Tree::from_json(&json, 1).unwrap());
            assert_eq!((one.reads_as(&other), one.name() == other.name()), (expected, expected), "{one:?}");
        };
        check(json!(1), json!(1.0), true);
        check(json!(1), json!({"$counter": 1}), true);
        check(json!("a"), json!({"$text": "a"}), true);
        check(json!({"a": [0]}), json!({"a": [-0.0]}), true);
        check(json!(u64::MAX), json!(i64::MAX), false);
        check(json!(u64::MAX), json!(u64::MAX as f64), false);
        check(json!(1), json!("1"), false);
        check(json!([1, 2]), json!([[1], 2]), false);
        check(json!({"a": 1}), json!({"a": 1, "b": 1}), false);
    }
}
