//! One libFuzzer program for every decoder: `LITTORAL_FUZZ_TARGET` names which, and without it the targets are
//! listed. What must hold is in `tests/src/decoders.rs`; `tests/scripts/fuzz` builds and runs this.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use littoral_tests::decoders::{TARGETS, Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("LITTORAL_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.max_len));
        std::process::exit(i32::from(!name.is_empty()))
    })
});

fuzz_target!(init: LazyLock::force(&TARGET), |bytes: &[u8]| (TARGET.check)(bytes));
