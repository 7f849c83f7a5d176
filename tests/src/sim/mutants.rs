//! Placeholder for the run of planted bugs.
