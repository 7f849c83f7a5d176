//! The Rust client of Littoral, an edge key-value store that converges.
//!
//! A [`Client`] speaks to one PoP over its REST API; every PoP takes reads and writes. Calls are retried
//! with backoff while the PoP is overloaded or away, up to [`MAX_ATTEMPTS`].
//!
//! ```no_run
//! use littoral::{Client, PutOptions};
//!
//! # async fn example() -> Result<(), littoral::Error> {
//! let client = Client::new("http://127.0.0.1:8787", "littoral-dev")?;
//! let kv = client.account("0123456789abcdef0123456789abcdef").namespace_titled("demo").await?;
//!
//! kv.put("greeting", "hello", PutOptions::default().expiration_ttl_s(3_600)).await?;
//! if let Some(value) = kv.get("greeting").await? {
//!     println!("{} bytes, gone at {:?}", value.bytes.len(), value.expires_at_s);
//! }
//! let mut listing = kv.list(Default::default());
//! while let Some(page) = listing.next_page().await? {
//!     page.keys.iter().for_each(|key| println!("{}", key.name));
//! }
//! # Ok(()) }
//! ```

pub mod api;

mod account;
mod client;
mod counter;
mod doc;
mod endpoints;
mod error;
mod inspect;
mod listing;
mod map;
mod namespace;
mod pages;
mod request;
mod session;
mod set;
mod tls;
mod tokens;
pub mod transport;
mod values;
mod waiting;
mod watch;
mod whole;

pub use account::Account;
pub use client::{Client, ClientBuilder};
pub use counter::Counter;
pub use doc::{Doc, DocOptions, Snapshot};
pub use error::Error;
pub use listing::{KeyPage, ListOptions, Listing};
pub use map::Map;
pub use namespace::{Ack, Condition, Namespace, PutOptions, Value};
pub use pages::{Page, PageOptions, Pages};
pub use request::{MAX_ATTEMPTS, MAX_RETRY_AFTER};
pub use session::HeldBy;
pub use set::Set;
pub use values::Entry;
pub use watch::{MAX_WATCH_OUTAGE, Watch, WatchOptions};
pub use whole::ChangeOptions;
