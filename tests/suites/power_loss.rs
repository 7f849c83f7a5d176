//! Power cuts, a few of them: the two controls that prove the emulator, then the store. The command
//! `cargo run --release -p littoral-tests --bin power-loss -- --images 100` does more of the same.
