//! What the suites share: emulated power cuts, clusters of real processes, and seeded choices.

pub mod power;
pub mod random;
