//! The process `littoral`: drives the replication core with threads, QUIC, sled and HTTP.
//!
//! `main.rs` only parses the command line and calls [`cli::run`].

pub mod chunks;
pub mod cli;
pub mod engine;
pub mod http;
pub mod identity;
pub mod node;
pub mod namespaces;
pub mod storage;
pub mod transport;
