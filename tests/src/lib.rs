//! What the suites share: the simulator of the core, the transport on a network in memory, models of the rules,
//! emulated power cuts, clusters of real processes, a wide-area network for them, the ledger of what was acknowledged, what holds for every
//! decoder of foreign bytes, mounts that clean up after themselves, and seeded choices.

pub mod cluster;
pub mod decoders;
pub mod ledger;
pub mod models;
pub mod mounts;
pub mod power;
pub mod quic;
pub mod random;
pub mod sim;
pub mod wan;
