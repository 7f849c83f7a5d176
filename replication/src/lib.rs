//! The replication core of Littoral: a pure state machine, as quinn-proto is to quinn.
//!
//! [`Replica`] is the whole of it; its documentation lists what a driver owes it. There are no sockets,
//! threads, clocks or random numbers here, and no map whose order could show, so that a cluster of replicas
//! runs in one thread, on virtual time, from one seed: the simulator tests the very code that ships.

/// Whether this bug is planted: the constant `false`, but in the build that `cargo sim -- --mutants` makes.
#[cfg(not(planted_bugs))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}
#[cfg(planted_bugs)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_selected($crate::planted::Bug::$bug)
    };
}

pub mod budget;
pub mod clock;
pub mod codec;
pub mod digest;
pub mod doc;
pub mod entry;
pub mod keys;
pub mod kinds;
pub mod link;
pub mod member;
#[cfg(planted_bugs)]
pub mod planted;
pub mod read;
pub mod replica;
pub mod sketch;
pub mod store;
pub mod turns;
pub mod vector;

pub use clock::{Clock, Dot, Hlc, Now, ReplicaId};
pub use digest::{Digest, DigestKey};
pub use entry::{Body, ChunkId, Entry, EntryId, Kind, Manifest, NamespaceId, Payload, Value};
pub use kinds::{Change, Content};
pub use link::Lane;
pub use member::{MemberRecord, RemovalReason};
pub use replica::{Replica, Settings};
pub use store::{Store, StoreError};
pub use vector::{Position, VersionVector};
