//! Keys and values to write: the same in every run, and not compressible.

/// How long values are, in bytes.
pub(crate) const VALUE_BYTES: usize = 100;
/// How long keys are, in bytes.
pub(crate) const KEY_BYTES: usize = 16;

/// The key of this number.
pub(crate) fn key(number: u64) -> String {
    format!("key-{number:012}")
}

/// A value of [`VALUE_BYTES`] letters, digits, `-` and `_`, no two numbers with the same.
pub(crate) fn value(number: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = number;
    let letter = |_| {
        // SplitMix64: https://prng.di.unimi.it/splitmix64.c
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        char::from(LETTERS[((z ^ (z >> 31)) >> 58) as usize])
    };
    (0..VALUE_BYTES).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_sizes() {
        for number in [0, 1, 99_999, 999_999_999_999] {
            assert_eq!(key(number).len(), KEY_BYTES);
            assert_eq!(value(number).len(), VALUE_BYTES);
            assert_ne!(value(number), value(number + 1));
        }
    }
}
