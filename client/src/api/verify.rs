//! The types of `/v1/verify`: a node checks its own store. What differs between two nodes is in [`super::diff`].

use serde::{Deserialize, Serialize};

/// `GET /v1/verify`, and the answer to the `POST` that begins a verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The PoP that answers.
    pub pop: String,
    /// How far the running verification has come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running: Option<VerifyProgress>,
    /// What the last one has found since the node started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<Verification>,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// What it is at.
    pub stage: VerifyStage,
    /// Rows or chunks checked.
    pub done: u64,
    /// Rows or chunks there are; moves as writes go on.
    pub total: u64,
}

/// What a verification is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyStage {
    /// The rows of the store.
    Rows,
    /// The chunk files of large values.
    Chunks,
}

/// What a verification has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Rows of values and tombstones at the end of the walk.
    pub entries: u64,
    /// Rows of the log at the end of the walk.
    pub log_rows: u64,
    /// Bytes of the rows that were read.
    pub bytes: u64,
    /// The root recomputed from the rows.
    pub root: String,
    /// What does not fit of the rows, in sentences: the store is not what was written to it.
    pub mismatches: Vec<String>,
    /// Names and faults of damaged chunk files; not more than the first few.
    pub damaged_chunks: Vec<String>,
    /// The chunk files.
    pub chunks: ChunkCheck,
}

/// What became of the chunk files that values name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkCheck {
    /// Chunks whose bytes are those of their name.
    pub good: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Files whose bytes are not those of their name, or that cannot be read. They are moved aside, and come again
    /// from a peer.
    pub damaged: u64,
    /// Chunks that values name and that are not here: lost, or still on their way.
    pub missing: u64,
}

impl Verification {
    /// Whether nothing is damaged: what is here is what was written.
    pub fn is_sound(&self) -> bool {
        self.mismatches.is_empty() && self.chunks.damaged == 0
    }

    /// Whether everything is here, and sound.
    pub fn fits(&self) -> bool {
        self.is_sound() && self.chunks.missing == 0
    }
}
