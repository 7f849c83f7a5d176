//! The replication core of Littoral.

pub mod clock;
pub mod entry;
pub mod link;

pub use clock::{Clock, Dot, Hlc, Now, ReplicaId};
pub use entry::{Body, ChunkId, Entry, EntryId, Manifest, NamespaceId, Payload, Value};
pub use link::Lane;
