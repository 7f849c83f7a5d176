//! The types of `/v1/accounts/{id}/namespaces/{namespace}/home`: which PoP decides about conditional writes.

use serde::{Deserialize, Serialize};

/// The body of `PUT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetHome {
    /// The region of which one PoP is to decide; `None` for each PoP to decide for itself.
    pub region: Option<String>,
}

/// `GET` of a home, and the answer to `PUT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeReport {
    /// The namespace's id.
    pub namespace: String,
    /// The home region, where there is one.
    pub region: Option<String>,
    /// The PoP there that decides.
    pub pop: Option<String>,
}
