//! One libFuzzer program for every decoder: `LITTORAL_FUZZ_TARGET` names which. What must hold is in
//! `tests/src/decoders.rs`; `tests/scripts/fuzz` builds and runs this.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use littoral_tests::decoders::{TARGETS, Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("LITTORAL_FUZZ_TARGET").unwrap_or_default();
    let names = || TARGETS.map(|target| target.name).join(", ");
    target(&name).unwrap_or_else(|| panic!("LITTORAL_FUZZ_TARGET is {name:?}: use one of {}", names()))
});

fuzz_target!(|bytes: &[u8]| (TARGET.check)(bytes));
