//! Writes for certain states only: decided on the engine's thread, against the state that the write will change.
//!
//! The rule this file upholds: between a decision and its write nothing else is written, and of a group nothing is
//! written before all is decided. That holds at this PoP. Another may write at the same moment, as with every write:
//! the states merge.

use replication::kinds::Cleared;
use replication::{Body, EntryId, Now, Replica, Store, StoreError};

use super::{Etag, Write, WriteError};

/// In which states of an entry a write is to be done; RFC 9110, section 13.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// Where the state is among these (`If-Match`). Weak tags are none.
    pub is: Option<Tags>,
    /// Where the state is none of these (`If-None-Match`).
    pub is_not: Option<Tags>,
}

/// Names of states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// Any state in which there is something.
    Any,
    /// These.
    These(Vec<Tag>),
}

/// The name of a state as a client gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Without its quotes.
    pub text: String,
    /// Whether it is marked as weak, which none of ours is.
    pub is_weak: bool,
}

/// What comes of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// The state is none that it must be.
    IsNot,
    /// The state is one that it must not be.
    Is,
}

impl Precondition {
    /// Whether this state is one that it is for; `None` where there is nothing.
    pub fn verdict(&self, current: Option<&Etag>) -> Verdict {
        let among = |tags: &Tags, counts: fn(&Tag) -> bool| match (tags, current) {
            (_, None) => false,
            (Tags::Any, Some(_)) => true,
            (Tags::These(tags), Some(current)) => {
                tags.iter().any(|tag| counts(tag) && tag.text == current.as_str())
            }
        };
        if self.is.as_ref().is_some_and(|tags| !among(tags, |tag| !tag.is_weak)) {
            return Verdict::IsNot;
        }
        if self.is_not.as_ref().is_some_and(|tags| among(tags, |_| true)) {
            return Verdict::Is;
        }
        Verdict::Holds
    }
}

/// What is said of the state that a write was not for.
pub(super) fn explain(current: Option<&Etag>) -> String {
    let current = match current {
        Some(etag) => format!("it is \"{}\"", etag.as_str()),
        None => "there is nothing".to_owned(),
    };
    format!("the state here is not one that this request is for: {current}; read it, and decide anew")
}

/// Why a group was not written.
pub(super) enum Undecided {
    Refused(WriteError),
    Store(StoreError),
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The writes without their conditions, where all of these hold.
pub(super) fn decide<S: Store>(
    replica: &Replica<S>,
    writes: Vec<Write>,
    now: Now,
) -> Result<Vec<Write>, Undecided> {
    for (index, write) in writes.iter().enumerate() {
        let mut rest = write;
        while let Write::If { precondition, write } = rest {
            let current = current(replica, &write.id(), now.wall_ms / 1000)?;
            if precondition.verdict(current.as_ref()) != Verdict::Holds {
                return Err(Undecided::Refused(WriteError::Precondition { index, current }));
            }
            rest = write;
        }
    }
    let bare = |mut write| {
        while let Write::If { write: inner, .. } = write {
            write = *inner;
        }
        write
    };
    Ok(writes.into_iter().map(bare).collect())
}

impl Write {
    fn id(&self) -> EntryId {
        match self {
            Self::Put { namespace, key, .. } | Self::Delete { namespace, key } => {
                EntryId::value(*namespace, key.clone())
            }
            Self::Change { id, .. } => id.clone(),
            Self::If { write, .. } => write.id(),
        }
    }
}

/// The name of the state that the next write to this entry meets.
fn current<S: Store>(replica: &Replica<S>, id: &EntryId, now_s: u64) -> Result<Option<Etag>, StoreError> {
    let Some(entry) = replica.shown_entry(id)? else { return Ok(None) };
    let head = match id.kind.has_elements() {
        true => replica.shown_entry(&EntryId { element: Default::default(), ..id.clone() })?,
        false => None,
    };
    let cleared = match head.map(|head| head.body) {
        Some(Body::Head(head)) => head.cleared(now_s),
        _ => Cleared::default(),
    };
    Ok(Etag::of(&entry, &cleared, now_s))
}
