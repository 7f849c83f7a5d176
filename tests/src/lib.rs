//! What the suites share: the simulator of the core.

pub mod sim;
