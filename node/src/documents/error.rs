//! Why something was not done with a document. Whatever is named here, the document is as it was.

use super::{Limit, MAX_CHANGE_OPS, MAX_COUNT, MAX_DEPTH, MAX_JSON_BYTES};

/// Why something was not done with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The text is no JSON, or no such patch.
    #[error("{reason}")]
    NotUnderstood { reason: String },
    /// The whole of a document would be a list or a scalar.
    #[error("a document is a JSON object, not {given}")]
    NoObject { given: &'static str },
    /// Containers inside each other.
    #[error("the document would be nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It would be large as it is stored.
    #[error("the document would have {given} bytes, more than {limit}")]
    TooLarge { given: u64, limit: Limit },
    /// Its history would be long.
    #[error("the document would have {given} operations, more than {limit}")]
    TooManyOps { given: u64, limit: Limit },
    /// One edit does too much.
    #[error("the change has more than {MAX_CHANGE_OPS} operations, the most of one; send several")]
    ChangeTooLong,
    /// It repeats so much that it is large as JSON.
    #[error("this takes reading more than {MAX_JSON_BYTES} bytes of JSON; ask for less with a pointer")]
    TooMuchJson,
    /// More than a list of something may have.
    #[error("{given} {what} exceed the limit of {limit} in one request")]
    TooMany { what: &'static str, given: usize, limit: usize },
    /// A pointer that is none.
    #[error("\"{pointer}\" is no JSON pointer: {reason}")]
    BadPointer { pointer: String, reason: &'static str },
    /// Nothing is where a pointer leads.
    #[error("there is nothing at \"{pointer}\"")]
    Nothing { pointer: String },
    /// What is there is of another type.
    #[error("at \"{pointer}\" is {found}, not {wanted}")]
    OtherType { pointer: String, found: &'static str, wanted: &'static str },
    /// A position beyond the end.
    #[error("at \"{pointer}\" is no position {given}: its length is {len}")]
    BadPosition { pointer: String, given: usize, len: usize },
    /// A counter would leave its bounds.
    #[error("the counter would be beyond {MAX_COUNT} either way")]
    CountTooLarge,
    /// An operation of a patch did not go; nothing of the patch was done.
    #[error("operation {number} (counted from 0): {cause}")]
    Operation { number: usize, cause: Box<DocumentError> },
    /// The test of a patch failed.
    #[error("what is at \"{pointer}\" is not what the test wants")]
    TestFailed { pointer: String },
    /// A client's changes that are none, or no such.
    #[error("the changes cannot be taken: {reason}")]
    BadChanges { reason: String },
    /// A client's changes that build on others.
    #[error("these changes are needed first, and are not here: {}", hashes.join(", "))]
    MissingChanges { hashes: Vec<String> },
    /// Heads that are not of this document's history, as it is known here.
    #[error("these heads are not known here: {}", hashes.join(", "))]
    UnknownHeads { hashes: Vec<String> },
    /// Automerge could not go on with it.
    #[error("the document cannot be worked with: {reason}")]
    Broken { reason: String },
}

impl From<automerge::AutomergeError> for DocumentError {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::Broken { reason: error.to_string() }
    }
}
