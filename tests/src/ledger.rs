//! What a store may hold after a crash, known without looking at the store. Each key has one writer, which
//! waits for each answer; the n-th write to a key is made from the seed, the key and n alone. So two
//! numbers a key are the whole record: how many writes were issued, and the newest that was acknowledged.
//!
//! The rule: the value found is that of the newest acknowledged write, or of one issued after it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::random::Random;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Sizes of values in bytes, each at least [`MIN_VALUE_BYTES`], with their weights.
    pub sizes: &'static [(u64, usize)],
    /// The share of deletes.
    pub delete_percent: u64,
}

/// A value starts with its key and its number; no value is shorter.
pub const MIN_VALUE_BYTES: usize = 64;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write this value.
    Put(Vec<u8>),
    /// Delete the key.
    Delete,
}

/// The record of all writes.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    mix: Mix,
    keys: Mutex<BTreeMap<String, Numbers>>,
}

/// The newest acknowledged write of each key at some moment; 0 where there is none.
pub type Acked = BTreeMap<String, u64>;

#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    issued: u64,
    acked: u64,
}

impl Ledger {
    /// An empty record.
    pub fn new(seed: u64, mix: Mix) -> Self {
        assert!(mix.sizes.iter().all(|size| size.1 >= MIN_VALUE_BYTES), "too short to name its key");
        Self { seed, mix, keys: Mutex::default() }
    }

    /// The next write to a key, noted as issued.
    pub fn issue(&self, key: &str) -> (u64, Change) {
        let mut keys = self.keys();
        let numbers = keys.entry(key.to_owned()).or_default();
        numbers.issued += 1;
        (numbers.issued, self.change(key, numbers.issued))
    }

    /// Notes that a write was acknowledged.
    pub fn ack(&self, key: &str, number: u64) {
        self.keys().get_mut(key).expect("issued before").acked = number;
    }

    /// What is acknowledged now. Take it before a crash: everything in it was acknowledged before.
    pub fn acked(&self) -> Acked {
        self.keys().iter().map(|(key, numbers)| (key.clone(), numbers.acked)).collect()
    }

    /// Goes back to what was acknowledged when a power cut came: what was acknowledged later was never there.
    pub fn go_back(&self, acked: &Acked) {
        for (key, numbers) in self.keys().iter_mut() {
            numbers.acked = acked.get(key).copied().unwrap_or(0);
        }
    }

    /// Notes what a reader has seen after a crash: from then on it may not vanish either.
    pub fn note_seen(&self, seen: &Acked) {
        let mut keys = self.keys();
        for (key, number) in seen {
            let numbers = keys.entry(key.clone()).or_default();
            numbers.acked = numbers.acked.max(*number);
        }
    }

    /// Compares what was found under a key with what may be there after a crash before which `acked` was
    /// taken: gives the number of the write that explains it (0 for none), or says what is wrong.
    pub fn check(&self, acked: &Acked, key: &str, found: Option<&[u8]>) -> Result<u64, String> {
        let acked = acked.get(key).copied().unwrap_or(0);
        let issued = self.keys().get(key).map_or(0, |numbers| numbers.issued);
        let wanted = format!("{key}: writes up to {issued} were issued and {acked} was acknowledged");
        let Some(found) = found else {
            if acked == 0 {
                return Ok(0);
            }
            let delete = (acked..=issued).find(|number| self.change(key, *number) == Change::Delete);
            return delete.ok_or_else(|| format!("{wanted}, but there is no value"));
        };
        let Some(number) = number_in(found, key) else {
            return Err(format!("{wanted}, but there are {} foreign bytes", found.len()));
        };
        if !(acked.max(1)..=issued).contains(&number) {
            return Err(format!("{wanted}, but there is the value of {number}"));
        }
        match self.change(key, number) {
            Change::Put(value) if value == found => Ok(number),
            _ => Err(format!("{wanted}, but the value of {number} is damaged")),
        }
    }

    fn change(&self, key: &str, number: u64) -> Change {
        let key_bits =
            key.bytes().fold(self.seed, |bits, byte| Random::new(bits ^ u64::from(byte)).next_u64());
        let mut random = Random::new(key_bits ^ number);
        if random.percent(self.mix.delete_percent) {
            return Change::Delete;
        }
        let mut pick = random.below(self.mix.sizes.iter().map(|size| size.0).sum());
        let chosen = self.mix.sizes.iter().find(|size| {
            let is_chosen = pick < size.0;
            pick = pick.saturating_sub(size.0);
            is_chosen
        });
        let mut value = vec![0; chosen.expect("the pick is below the sum of the weights").1];
        random.fill(&mut value);
        let head = format!("{key}#{number};");
        value[..head.len()].copy_from_slice(head.as_bytes());
        Change::Put(value)
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<String, Numbers>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_in(value: &[u8], key: &str) -> Option<u64> {
    let rest = value.strip_prefix(key.as_bytes())?.strip_prefix(b"#")?;
    let end = rest.iter().position(|byte| *byte == b';')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUTS: Mix = Mix { sizes: &[(3, 64), (1, 1000)], delete_percent: 0 };

    fn value_of(ledger: &Ledger, number: u64) -> Vec<u8> {
        match ledger.change("k", number) {
            Change::Put(value) => value,
            Change::Delete => panic!("no deletes in this mix"),
        }
    }

    #[test]
    fn only_the_acknowledged_write_and_later_ones_may_be_found() {
        let ledger = Ledger::new(1, PUTS);
        for _ in 0..5 {
            ledger.issue("k");
        }
        ledger.ack("k", 3);
        let acked = ledger.acked();
        for (number, is_right) in [(1, false), (2, false), (3, true), (4, true), (5, true), (6, false)] {
            let found = value_of(&ledger, number);
            assert_eq!(ledger.check(&acked, "k", Some(&found)).is_ok(), is_right, "the value of {number}");
        }
        assert!(ledger.check(&acked, "k", None).is_err(), "an acknowledged value that is gone");
        let mut damaged = value_of(&ledger, 4);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(ledger.check(&acked, "k", Some(&damaged)).is_err(), "one flipped bit");
        assert!(ledger.check(&acked, "k", Some(b"k")).is_err(), "a value cut off");
        assert!(ledger.check(&acked, "never written", None).is_ok());
    }

    #[test]
    fn a_delete_that_may_have_been_done_excuses_a_missing_value() {
        let ledger = Ledger::new(1, Mix { delete_percent: 50, ..PUTS });
        let (mut deletes, mut puts) = (0, 0);
        for number in 1..=100 {
            let (_, change) = ledger.issue("k");
            ledger.ack("k", number);
            let is_delete = change == Change::Delete;
            *(if is_delete { &mut deletes } else { &mut puts }) += 1;
            assert_eq!(ledger.check(&ledger.acked(), "k", None).is_ok(), is_delete, "write {number}");
        }
        assert!(deletes > 20 && puts > 20, "{deletes} deletes, {puts} puts");
    }
}
