//! The checks of the fuzz targets, without libFuzzer: over the committed corpus, and over seeded changes of it.
//!
//! This runs everywhere; `tests/scripts/fuzz` goes further where it can.

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use littoral_tests::decoders::{TARGETS, Target, corpus, recording};
use littoral_tests::random::Random;
use replication::codec::message::Message;

/// Changed copies of each input that are tried.
const CHANGES: u64 = 100;
/// The most files and bytes of the corpus: it is part of every clone.
const MAX_CORPUS: (usize, usize) = (200, 300_000);
/// What to do when the corpus is not what the code makes.
const REFRESH: &str = "run cargo run -p littoral-tests --bin make-corpus, and commit what changes";

#[track_caller]
fn check(target: Target, name: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    catch_unwind(|| (target.check)(bytes)).unwrap_or_else(|_| panic!("{} {name}: {hex}", target.name));
}

/// One to four changes, as a broken disk or a hostile peer makes them.
fn changed(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next_u64() as u8),
            2 => bytes.splice(at..at, u64::MAX.to_le_bytes()).for_each(drop),
            3 => bytes.drain(at..(at + rng.below(9) as usize).min(bytes.len())).for_each(drop),
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << rng.below(8)),
        }
    }
    bytes
}

#[test]
fn every_target_holds_over_its_corpus_and_over_changes_of_it() {
    for target in TARGETS {
        let inputs = corpus::read(target.name).expect(REFRESH);
        assert!(!inputs.is_empty(), "{} has no corpus: {REFRESH}", target.name);
        check(target, "nothing", b"");
        for (name, bytes) in inputs {
            assert!(bytes.len() <= target.max_len, "{} {name} is too long to be tried", target.name);
            check(target, &name, &bytes);
            let mut rng = Random::new(bytes.len() as u64);
            (0..CHANGES).for_each(|_| check(target, &name, &changed(&mut rng, &bytes)));
        }
    }
}

#[test]
fn the_corpus_has_frames_of_every_kind() {
    let stored = corpus::read("frames").expect(REFRESH);
    let mut kinds = BTreeSet::new();
    for (name, frame) in stored.iter().filter(|(name, _)| !name.starts_with(corpus::FOUND)) {
        let message = Message::from_frame(frame);
        let message =
            message.unwrap_or_else(|error| panic!("{name} is no frame any more ({error}): {REFRESH}"));
        kinds.insert(recording::kind(&message));
    }
    assert_eq!(kinds, BTreeSet::from(recording::KINDS), "{REFRESH}");
}

#[test]
fn the_corpus_stays_small() {
    let inputs = TARGETS.iter().flat_map(|target| corpus::read(target.name).expect(REFRESH));
    let (files, bytes) = inputs.fold((0, 0), |(files, bytes), (_, input)| (files + 1, bytes + input.len()));
    assert!(files <= MAX_CORPUS.0 && bytes <= MAX_CORPUS.1, "{files} files, {bytes} bytes");
}
