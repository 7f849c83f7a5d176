//! The section `[conflicts]`: what is kept of values that lost to a write whose writer had not seen them.

use std::ops::RangeInclusive;

use serde::Serialize;

use crate::source::Source;

/// How long a value that lost is kept, in days: up to a year; 0 keeps none.
pub const CONFLICT_DAYS: RangeInclusive<u64> = 0..=366;
/// How many such values are kept.
pub const CONFLICT_ROWS: RangeInclusive<u64> = 1..=10_000_000;
/// What they may take, in bytes: 1 MiB to 1 TiB.
pub const CONFLICT_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;

/// The ledger of conflicts of this PoP. Where there is no room, what was noticed first goes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflicts {
    /// How long a value that lost is kept; within [`CONFLICT_DAYS`].
    pub kept_days: u64,
    /// The most of them; within [`CONFLICT_ROWS`].
    pub max_rows: u64,
    /// The most that they take on the disk, their chunks among it; within [`CONFLICT_BYTES`].
    pub max_bytes: u64,
}

impl Default for Conflicts {
    fn default() -> Self {
        Self { kept_days: 7, max_rows: 100_000, max_bytes: 64 << 20 }
    }
}

impl Conflicts {
    pub(crate) fn read(source: &mut Source<'_>) -> Option<Self> {
        let default = Self::default();
        let kept_days = source.number("conflicts.kept_days", default.kept_days, CONFLICT_DAYS);
        let max_rows = source.number("conflicts.max_rows", default.max_rows, CONFLICT_ROWS);
        let max_bytes = source.number("conflicts.max_bytes", default.max_bytes, CONFLICT_BYTES);
        Some(Self { kept_days: kept_days?, max_rows: max_rows?, max_bytes: max_bytes? })
    }
}
