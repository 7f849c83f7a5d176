//! The process `littoral`: drives the replication core with threads, QUIC, sled and HTTP.
//!
//! `main.rs` only parses the command line and calls [`cli::run`].

pub mod accounts;
mod chunk_collect;
pub mod chunk_flight;
mod chunk_pull;
pub mod chunks;
pub mod cli;
pub(crate) mod cursor;
mod documents;
pub mod embedded;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;
mod gauges;
pub mod homes;
pub mod http;
pub mod identity;
pub mod namespaces;
pub mod node;
mod peering;
pub mod quotas;
mod rebuild;
mod request_rate;
mod sent_file;
mod smoothed;
pub mod storage;
mod system_cache;
pub mod tokens;
pub mod transport;
mod verifier;

pub use embedded::Embedded;
