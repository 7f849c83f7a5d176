//! The input of an import, cut into batches of bounded size.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use littoral::api::kv::BulkPair;

use crate::cli::failure::Failure;
use crate::cli::record::{self, Line};
use crate::cli::resume::Imported;

/// The most pairs in a batch.
pub(super) const MAX_BATCH_PAIRS: usize = 1_000;
/// A batch is full with the line that passes this many bytes.
const FULL_BATCH_BYTES: u64 = 4 << 20;
/// The most lines a batch spans, pairs or not, so that progress is noted.
const MAX_BATCH_LINES: u64 = 10_000;
/// The longest line: a value of 25 MiB as base64 has 33.4 MiB.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Some lines of the input, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Counted from 1.
    pub(super) first_line: u64,
    /// What to write; no key twice.
    pub(super) pairs: Vec<BulkPair>,
    /// Where each key is among them.
    keys: HashMap<String, usize>,
    /// Lines left out because their time has passed.
    pub(super) expired: u64,
    /// Lines left out because they are wrong: number and what is wrong.
    pub(super) bad: Vec<String>,
    /// Where the input stands after them.
    pub(super) end: Imported,
}

impl Batch {
    /// Whether the order of the two matters.
    pub(super) fn shares_a_key_with(&self, other: &Batch) -> bool {
        self.keys.keys().any(|key| other.keys.contains_key(key))
    }

    /// A later line of the same key takes the place of the earlier.
    fn add(&mut self, pair: BulkPair) {
        match self.keys.get(&pair.key) {
            Some(&index) => self.pairs[index] = pair,
            None => {
                self.keys.insert(pair.key.clone(), self.pairs.len());
                self.pairs.push(pair);
            }
        }
    }
}

/// Cuts an input into batches.
pub(super) struct Batches<R> {
    input: R,
    /// Where the input stands; its hash is in `hasher`.
    position: Imported,
    hasher: blake3::Hasher,
    skip_bad: bool,
    /// A bad line that ends the import once what came before it is out.
    stop: Option<Failure>,
    line: Vec<u8>,
}

impl<R: BufRead> Batches<R> {
    /// Passes over what `begin` says is done; fails if the input is another than the one begun.
    pub(super) fn new(mut input: R, begin: Imported, skip_bad: bool) -> Result<Self, Failure> {
        let mut hasher = blake3::Hasher::new();
        let skipped = io::copy(&mut input.by_ref().take(begin.bytes), &mut hasher)?;
        if begin.lines > 0 && (skipped < begin.bytes || hasher.finalize().to_string() != begin.hash) {
            let what = "the input is not the one that the resume file was made for";
            return Err(Failure::usage(what).hint("to start from the beginning, remove the resume file"));
        }
        Ok(Self { input, position: begin, hasher, skip_bad, stop: None, line: Vec::new() })
    }

    /// The next batch; `None` at the end of the input.
    pub(super) fn next(&mut self, now_s: u64) -> Result<Option<Batch>, Failure> {
        if let Some(stop) = self.stop.take() {
            return Err(stop);
        }
        let mut batch = Batch { first_line: self.position.lines + 1, ..Batch::default() };
        let full_at = self.position.bytes + FULL_BATCH_BYTES;
        while batch.pairs.len() < MAX_BATCH_PAIRS
            && self.position.bytes < full_at
            && self.position.lines + 1 < batch.first_line + MAX_BATCH_LINES
        {
            let before = (self.position.clone(), self.hasher.clone());
            let Some(is_whole) = self.read_line()? else { break };
            let parsed = match is_whole {
                true => record::parse(&self.line, now_s),
                false => Err(format!("longer than {MAX_LINE_BYTES} bytes")),
            };
            match parsed {
                Ok(Line::Blank) => {}
                Ok(Line::Expired) => batch.expired += 1,
                Ok(Line::Write(pair)) => batch.add(pair),
                Err(what) => {
                    let what = format!("line {}: {what}", self.position.lines);
                    if !self.skip_bad {
                        self.stop = Some(Failure::new(what));
                        (self.position, self.hasher) = before;
                        break;
                    }
                    batch.bad.push(what);
                }
            }
        }
        if self.position.lines < batch.first_line {
            return self.stop.take().map_or(Ok(None), Err);
        }
        batch.end = Imported { hash: self.hasher.finalize().to_string(), ..self.position.clone() };
        Ok(Some(batch))
    }

    /// Reads a line into `self.line`: `None` at the end, `false` if it is too long and was passed over.
    fn read_line(&mut self) -> Result<Option<bool>, Failure> {
        self.line.clear();
        let mut length = 0;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::new(format!("cannot read the input: {error}"))),
            };
            if available.is_empty() && length == 0 {
                return Ok(None);
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let used = end.map_or(available.len(), |end| end + 1);
            if length + used <= MAX_LINE_BYTES {
                self.line.extend_from_slice(&available[..used]);
            }
            self.hasher.update(&available[..used]);
            length += used;
            self.input.consume(used);
            if end.is_some() || used == 0 {
                self.position.lines += 1;
                self.position.bytes += length as u64;
                return Ok(Some(length <= MAX_LINE_BYTES));
            }
        }
    }
}
