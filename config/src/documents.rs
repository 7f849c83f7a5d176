//! The section `[documents]`: how large a document may be, and how many are kept in memory.

use std::ops::RangeInclusive;

use serde::Serialize;

use crate::source::Source;

/// What a document may take as it is stored, in bytes: 1 KiB to 8 MiB.
pub const DOCUMENT_BYTES: RangeInclusive<u64> = 1 << 10..=8 << 20;
/// The operations that a document's history may have.
pub const DOCUMENT_OPS: RangeInclusive<u64> = 100..=10_000_000;
/// The memory for documents that are in use, in bytes: 1 MiB to 1 TiB.
pub const WARM_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;

/// Documents. The limits hold for what is edited at this PoP: what others have edited is merged, however large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Documents {
    /// The most bytes of a document as it is stored; within [`DOCUMENT_BYTES`].
    pub max_bytes: u64,
    /// The most operations of its history; within [`DOCUMENT_OPS`].
    pub max_ops: u64,
    /// About how much memory documents take that were used of late; within [`WARM_BYTES`].
    pub warm_bytes: u64,
}

impl Default for Documents {
    fn default() -> Self {
        Self { max_bytes: 4 << 20, max_ops: 1_000_000, warm_bytes: 64 << 20 }
    }
}

impl Documents {
    pub(crate) fn read(source: &mut Source<'_>) -> Option<Self> {
        let default = Self::default();
        let max_bytes = source.number("documents.max_bytes", default.max_bytes, DOCUMENT_BYTES);
        let max_ops = source.number("documents.max_ops", default.max_ops, DOCUMENT_OPS);
        let warm_bytes = source.number("documents.warm_bytes", default.warm_bytes, WARM_BYTES);
        Some(Self { max_bytes: max_bytes?, max_ops: max_ops?, warm_bytes: warm_bytes? })
    }
}
