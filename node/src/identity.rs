//! Stub: certificates and cluster identity.
