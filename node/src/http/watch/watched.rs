//! What of a namespace is watched: kinds, and a key or a prefix of keys.

use replication::entry::MAX_KEY_BYTES;
use replication::{EntryId, Kind, NamespaceId, keys};

use crate::http::error::ApiError;
use crate::http::query::{Query, check_key};

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) namespace: NamespaceId,
    /// `None` is every kind.
    kind: Option<Kind>,
    /// A whole key, or what keys begin with.
    text: String,
    is_key: bool,
}

impl Watched {
    /// From the parameters `key`, `prefix` and `kind`.
    pub(super) fn parse(namespace: NamespaceId, query: &Query<'_>) -> Result<Self, ApiError> {
        let kind = query.text("kind").map(parse_kind).transpose()?;
        let (text, is_key) = match (query.text("key"), query.text("prefix")) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("key and prefix exclude each other: give one of them"));
            }
            (Some(key), None) => {
                check_key(key)?;
                (key, true)
            }
            (None, prefix) => (prefix.unwrap_or_default(), false),
        };
        if text.len() > MAX_KEY_BYTES {
            return Err(ApiError::KeyTooLong { len: text.len() });
        }
        Ok(Self { namespace, kind, text: text.to_owned(), is_key })
    }

    /// The key or prefix, which who watches must be allowed to read and list.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether this entry is watched.
    pub(super) fn covers(&self, id: &EntryId) -> bool {
        let text = self.text.as_bytes();
        let is_text = if self.is_key { *id.key == *text } else { id.key.starts_with(text) };
        id.namespace == self.namespace && is_text && self.kind.is_none_or(|kind| kind == id.kind)
    }

    /// What the row keys of all watched entries begin with. There may be others that begin so.
    pub(super) fn ranges(&self) -> Vec<Vec<u8>> {
        let kinds = Kind::ALL.into_iter().filter(|kind| self.kind.is_none_or(|wanted| wanted == *kind));
        let range = |kind: Kind| match self.is_key && kind.has_elements() {
            true => keys::entry(&EntryId::whole(self.namespace, kind, self.text.clone())),
            false => keys::key_parts(self.namespace, kind, self.text.as_bytes()),
        };
        kinds.map(range).collect()
    }

    /// What a cursor is good for.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let kind = self.kind.map_or(0, |kind| kind as u8);
        [&self.namespace.0[..], &[kind, u8::from(self.is_key)], self.text.as_bytes()].concat()
    }
}

fn parse_kind(text: &str) -> Result<Kind, ApiError> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    kind.ok_or_else(|| {
        ApiError::invalid(format!("kind must be value, counter, bounded, set, map or doc, not \"{text}\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NamespaceId = NamespaceId([9; 16]);

    fn watched(query: &str) -> Watched {
        Watched::parse(HERE, &Query::parse(Some(query)).unwrap()).unwrap()
    }

    #[test]
    fn prefix_key_and_kind_say_what_is_watched() {
        let cases = [
            ("", Kind::Value, "a", true),
            ("prefix=a", Kind::Set, "ab", true),
            ("prefix=ab", Kind::Set, "a", false),
            ("key=a", Kind::Map, "a", true),
            ("key=a", Kind::Map, "ab", false),
            ("kind=map", Kind::Map, "a", true),
            ("kind=map", Kind::Set, "a", false),
        ];
        for (query, kind, key, is_covered) in cases {
            let watched = watched(query);
            let id = EntryId::element(HERE, kind, key, if kind.has_elements() { "e" } else { "" });
            assert_eq!(watched.covers(&id), is_covered, "{query} {id:?}");
            let is_in_range = watched.ranges().iter().any(|range| keys::entry(&id).starts_with(range));
            assert!(!is_covered || is_in_range, "{query} {id:?}");
            let elsewhere = EntryId { namespace: NamespaceId([8; 16]), ..id };
            assert!(!watched.covers(&elsewhere));
        }
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        for query in ["key=a&prefix=b", "key=", "kind=list", "kind=", &format!("prefix={}", "a".repeat(513))]
        {
            let parsed = Watched::parse(HERE, &Query::parse(Some(query)).unwrap());
            assert!(parsed.is_err(), "{query}");
        }
    }

    #[test]
    fn a_cursor_of_one_watch_is_none_of_another() {
        let all =
            ["", "prefix=a", "key=a", "kind=value", "kind=map", "key=ab"].map(|q| watched(q).to_bytes());
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one));
        }
    }
}
