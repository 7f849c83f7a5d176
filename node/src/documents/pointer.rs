//! JSON pointers (RFC 6901), and where they lead in a document.

use automerge::{ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, Value};

use super::{DocumentError, MAX_DEPTH};

/// A pointer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    tokens: Vec<String>,
}

/// A place in an object or list that is there. Whether anything is at it is another question.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) object: ObjId,
    pub(crate) is_list: bool,
    pub(crate) token: String,
    /// How deep what holds it is: 1 in the document itself.
    pub(crate) depth: usize,
}

impl Pointer {
    /// The pointer in this text.
    pub(crate) fn parse(text: &str) -> Result<Self, DocumentError> {
        let bad = |reason| DocumentError::BadPointer { pointer: text.to_owned(), reason };
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let rest = text.strip_prefix('/').ok_or_else(|| bad("it is empty or begins with \"/\""))?;
        let token = |raw: &str| {
            let is_escape = |part: &str| part.starts_with('0') || part.starts_with('1');
            if !raw.split('~').skip(1).all(is_escape) {
                return Err(bad("after \"~\" comes 0 or 1"));
            }
            Ok(raw.replace("~1", "/").replace("~0", "~"))
        };
        let tokens: Vec<_> = rest.split('/').map(token).collect::<Result<_, _>>()?;
        // The deepest container has its members one token further down.
        if tokens.len() > MAX_DEPTH {
            return Err(DocumentError::TooDeep);
        }
        Ok(Self { tokens })
    }

    /// Whether it is of the whole document.
    pub(crate) fn is_root(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the other leads to inside of what this leads to.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.tokens.len() < other.tokens.len() && other.tokens.starts_with(&self.tokens)
    }

    /// Where it leads, of any but the root: what holds it must be there.
    pub(crate) fn spot(
        &self,
        doc: &impl ReadDoc,
        heads: Option<&[ChangeHash]>,
    ) -> Result<Spot, DocumentError> {
        let Some((last, above)) = self.tokens.split_last() else { return Err(self.nothing()) };
        let mut spot = Spot { object: ROOT, is_list: false, token: String::new(), depth: 1 };
        for (depth, token) in above.iter().enumerate() {
            let prop = Spot { token: token.clone(), ..spot.clone() }.prop().ok_or_else(|| self.nothing())?;
            let (object, is_list) = match value_at(doc, &spot.object, prop, heads)? {
                Some((Value::Object(ObjType::Map | ObjType::Table), object)) => (object, false),
                Some((Value::Object(ObjType::List), object)) => (object, true),
                _ => return Err(self.nothing()),
            };
            spot = Spot { object, is_list, depth: depth + 2, ..spot };
        }
        Ok(Spot { token: last.clone(), ..spot })
    }

    /// What is there, with its object where it is one; an error where nothing is.
    pub(crate) fn value(
        &self,
        doc: &impl ReadDoc,
        heads: Option<&[ChangeHash]>,
    ) -> Result<(Value<'static>, ObjId, usize), DocumentError> {
        if self.is_root() {
            return Ok((Value::Object(ObjType::Map), ROOT, 1));
        }
        let spot = self.spot(doc, heads)?;
        let prop = spot.prop().ok_or_else(|| self.nothing())?;
        let (value, id) = value_at(doc, &spot.object, prop, heads)?.ok_or_else(|| self.nothing())?;
        Ok((value, id, spot.depth + 1))
    }

    pub(crate) fn nothing(&self) -> DocumentError {
        DocumentError::Nothing { pointer: self.to_string() }
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let escaped = |token: &String| token.replace('~', "~0").replace('/', "~1");
        self.tokens.iter().try_for_each(|token| write!(f, "/{}", escaped(token)))
    }
}

impl Spot {
    /// What is asked for of the object: a member by its name, or an item by its number, which is written in one way only.
    pub(crate) fn prop(&self) -> Option<Prop> {
        if !self.is_list {
            return Some(Prop::Map(self.token.clone()));
        }
        let is_number = self.token == "0" || !self.token.starts_with(['0', '+']);
        self.token.parse().ok().filter(|_| is_number).map(Prop::Seq)
    }
}

/// The value of a member or item.
fn value_at(
    doc: &impl ReadDoc,
    object: &ObjId,
    prop: Prop,
    heads: Option<&[ChangeHash]>,
) -> Result<Option<(Value<'static>, ObjId)>, DocumentError> {
    let found = match heads {
        None => doc.get(object, prop)?,
        Some(heads) => doc.get_at(object, prop, heads)?,
    };
    Ok(found.map(|(value, id)| (value.into_owned(), id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_taken_apart_and_put_together() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let found = Pointer::parse(text).ok();
            assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), expected.map(|_| text), "{text}");
            let tokens = found.map(|pointer| pointer.tokens);
            assert_eq!(
                tokens,
                expected.map(|tokens| tokens.iter().map(|token| (*token).to_owned()).collect())
            );
        };
        check("", Some(&[]));
        check("/", Some(&[""]));
        check("/a~1b/m~0n//0", Some(&["a/b", "m~n", "", "0"]));
        check("/~01", Some(&["~1"]));
        check("/ü \"%", Some(&["ü \"%"]));
        for bad in ["a", "/~", "/~2", "/a~", "#/a"] {
            check(bad, None);
        }
        for (len, is_fine) in [(MAX_DEPTH - 1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
            assert_eq!(Pointer::parse(&"/a".repeat(len)).is_ok(), is_fine, "{len}");
        }
    }

    #[test]
    fn an_item_has_one_number() {
        let spot = |token: &str| Spot { object: ROOT, is_list: true, token: token.into(), depth: 1 }.prop();
        assert_eq!(spot("0"), Some(Prop::Seq(0)));
        assert_eq!(spot("10"), Some(Prop::Seq(10)));
        for none in ["", "-", "00", "01", "+1", "-1", "1.0", "1e1", " 1", "99999999999999999999"] {
            assert_eq!(spot(none), None, "{none}");
        }
    }
}
