//! What the suites share: the simulator of the core, the links on virtual time, emulated power cuts, clusters of real processes, the
//! ledger of what was acknowledged, mounts that clean up after themselves, and seeded choices.

pub mod cluster;
pub mod ledger;
pub mod mounts;
pub mod power;
pub mod quic;
pub mod random;
pub mod sim;
