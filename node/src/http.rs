//! Stub: HTTP.
