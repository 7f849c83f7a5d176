//! The Rust client of Littoral, an edge key-value store that converges.
//!
//! A [`Client`] speaks to one PoP over its REST API; every PoP takes reads and writes. Calls are retried
//! with backoff while the PoP is overloaded or away, up to [`MAX_ATTEMPTS`].
//!
//! Three PoPs to try it with are started by `cargo run --release -- dev` in the repository; the address, the token, the account
//! and the namespace below are those that it prints. This is a whole program; it needs
//!
//! ```toml
//! [dependencies]
//! littoral = { git = "https://github.com/littoral-kv/littoral" }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! ```no_run
//! use littoral::{Client, PutOptions};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), littoral::Error> {
//!     let client = Client::new("http://127.0.0.1:8787", "littoral-dev")?;
//!     let kv = client.account("0123456789abcdef0123456789abcdef").namespace_titled("demo").await?;
//!
//!     kv.put("greeting", "hello", PutOptions::default().expiration_ttl_s(3_600)).await?;
//!     if let Some(value) = kv.get("greeting").await? {
//!         println!("{} bytes, gone at {:?}", value.bytes.len(), value.expires_at_s);
//!     }
//!     println!("{} visits", kv.counter("visits").add(1).await?);
//!     let mut listing = kv.list(Default::default());
//!     while let Some(page) = listing.next_page().await? {
//!         page.keys.iter().for_each(|key| println!("{}", key.name));
//!     }
//!
//!     // Another PoP of the same cluster. It goes on from what this client has seen.
//!     let elsewhere = Client::new("http://127.0.0.1:8789", "littoral-dev")?;
//!     let elsewhere = match client.session() {
//!         Some(session) => elsewhere.with_session(&session)?,
//!         None => elsewhere,
//!     };
//!     let same = elsewhere.account("0123456789abcdef0123456789abcdef").namespace(kv.id());
//!     println!("{:?}", same.get("greeting").await?);
//!     Ok(())
//! }
//! ```
//!
//! Where to go on: [`Namespace`] has the values, and leads to a [`Counter`], a [`Set`], a [`Map`], a [`Doc`] and a [`Watch`], and
//! to a [`Batch`] of several writes that become visible together; programs to
//! copy are in the folder `examples` of this crate. A program that has a node inside itself (`littoral_node::Embedded`) uses
//! the same client, by a [`transport`] without a socket.
//!
//! Features: `automerge` has copies of documents in the app (`Doc::pull`, `Doc::push`).

pub mod api;

mod account;
mod batch;
mod bounded;
mod client;
mod condition;
mod conflicts;
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
pub use batch::Batch;
pub use bounded::Bounded;
pub use client::{Client, ClientBuilder};
pub use condition::Condition;
pub use conflicts::{ConflictOptions, LostValue};
pub use counter::Counter;
pub use doc::{Doc, DocOptions, Snapshot};
pub use error::Error;
pub use listing::{KeyPage, ListOptions, Listing};
pub use map::Map;
pub use namespace::{Ack, Namespace, PutOptions, Value};
pub use pages::{Page, PageOptions, Pages};
pub use request::{MAX_ATTEMPTS, MAX_RETRY_AFTER};
pub use session::HeldBy;
pub use set::Set;
pub use values::Entry;
pub use watch::{MAX_WATCH_OUTAGE, Watch, WatchOptions};
pub use whole::ChangeOptions;
