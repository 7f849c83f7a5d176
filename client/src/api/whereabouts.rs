//! Who holds a write, or all that a session has seen.

use serde::{Deserialize, Serialize};

/// `GET /v1/where`: the members of the cluster, as the PoP that answers knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// The PoP that answers.
    pub pop: String,
    /// The members, by PoP.
    pub members: Vec<HeldAt>,
}

/// What one member holds of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAt {
    /// Its PoP.
    pub pop: String,
    /// Its region.
    pub region: String,
    /// Its replica id.
    pub replica: String,
    /// Whether it is the PoP that answers.
    pub is_this: bool,
    /// Whether it holds all of it durably, as far as it has said. It may hold more by now.
    pub holds: bool,
    /// Events that it lacks of the origins asked about.
    pub ops: u64,
    /// Bytes of keys and values that those wrote.
    pub bytes: u64,
    /// Milliseconds since the oldest of them; 0 without any.
    pub time_ms: u64,
}
