//! The list of namespaces.
