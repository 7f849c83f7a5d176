//! The Rust client of Littoral.

pub mod api;
