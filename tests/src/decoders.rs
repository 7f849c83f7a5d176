//! What must hold for every decoder of foreign bytes, whatever the bytes: the checks behind the fuzz targets.
//!
//! They are plain functions, so that the suite `decoders` runs them over the committed corpus in every test run,
//! and `tests/fuzz` under libFuzzer, with a sanitizer and coverage. Each takes bytes as a stranger sends them, and
//! panics where a rule is broken. What is understood must come back the same when it is encoded and read again.

pub mod core;
pub mod corpus;
pub mod edges;
pub mod recording;
pub mod session;

/// One kind of foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: the folder of its corpus, and what `tests/scripts/fuzz --target` takes.
    pub name: &'static str,
    /// Panics where a rule is broken.
    pub check: fn(&[u8]),
    /// The longest input worth trying, in bytes.
    pub max_len: usize,
}

/// Every decoder of foreign bytes.
pub const TARGETS: [Target; 12] = [
    Target { name: "frames", check: core::frame, max_len: 64 << 10 },
    Target { name: "rows", check: core::row, max_len: 4 << 10 },
    Target { name: "row-keys", check: core::row_key, max_len: 600 },
    Target { name: "session", check: session::check, max_len: 8 << 10 },
    Target { name: "hello", check: edges::hello, max_len: 512 },
    Target { name: "chunk-request", check: edges::chunk_request, max_len: 64 },
    Target { name: "packed", check: edges::packed, max_len: 8 << 10 },
    Target { name: "join-token", check: edges::join_token, max_len: 8 << 10 },
    Target { name: "request", check: edges::request, max_len: 2 << 10 },
    Target { name: "binding", check: edges::binding, max_len: 4 << 10 },
    Target { name: "body", check: edges::body, max_len: 8 << 10 },
    Target { name: "config", check: edges::config, max_len: 16 << 10 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
