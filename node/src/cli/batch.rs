//! `kv batch`: several writes as one, from the JSON that the API takes.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use littoral::Ack;
use littoral::api::batch::{Batch, BatchWrite, BatchWritten};

use super::connection::AccountArgs;
use super::failure::Failure;
use super::print;

/// The most bytes of JSON, as the API takes them.
const MAX_INPUT_BYTES: u64 = 4 << 20;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The file with the JSON; "-" is standard input
    file: PathBuf,
    /// Do not wait for the disk: a power cut within the next moment may lose the batch
    #[arg(long)]
    buffered: bool,
}

pub(super) async fn run(args: &Args, account: &AccountArgs, json: bool) -> Result<(), Failure> {
    let writes = parse(&read(&args.file)?)?;
    let ack = if args.buffered { Ack::Buffered } else { Ack::Durable };
    let batch = account.namespace().await?.batch().ack(ack);
    let done = writes.iter().cloned().fold(batch, littoral::Batch::write).commit().await?;
    if json { print::json(&done) } else { print::line(told(&writes, &done)) }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path != Path::new("-") {
        let cannot = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
        return File::open(path).map_err(cannot).and_then(|file| read_all(file).map_err(cannot));
    }
    if io::stdin().is_terminal() {
        eprintln!("reading the batch from standard input; Ctrl-D ends it");
    }
    Ok(read_all(io::stdin())?)
}

fn read_all(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_INPUT_BYTES} bytes, more than any batch"
        )));
    }
    Ok(bytes)
}

fn parse(json: &[u8]) -> Result<Vec<BatchWrite>, Failure> {
    let not_a_batch = |error| {
        Failure::usage(format!("this is no batch: {error}"))
            .hint(r#"such as {"writes": [{"kind": "value", "op": "put", "key": "k", "value": "v"}]}"#)
    };
    Ok(serde_json::from_slice::<Batch>(json).map_err(not_a_batch)?.writes)
}

/// How many were done, and what the counters among them stand at.
fn told(writes: &[BatchWrite], done: &BatchWritten) -> String {
    let BatchWritten { receipt, writes: each } = done;
    let summary = format!("{} written together, the last by\n{receipt}", each.len());
    let counts = writes.iter().zip(each).filter_map(|(write, done)| Some((write, done.count?)));
    let rows: Vec<_> = counts.map(|(write, count)| [print::name(&write.key), count.to_string()]).collect();
    match rows.is_empty() {
        true => summary,
        false => format!("{summary}\n\n{}", print::table(["COUNTER", "COUNT"], rows)),
    }
}

#[cfg(test)]
mod tests {
    use littoral::api::batch::{BatchDone, BatchKind, BatchOp};

    use super::*;

    #[test]
    fn what_is_no_batch_is_told_with_an_example() {
        for wrong in ["", "{}", "[]", r#"{"writes":[{"kind":"value","op":"put"}]}"#, r#"{"writes":[],"a":1}"#]
        {
            match parse(wrong.as_bytes()) {
                Err(Failure::Told { what, hint: Some(hint), .. }) => {
                    assert!(
                        what.starts_with("this is no batch") && hint.contains("writes"),
                        "{wrong}: {what}"
                    );
                }
                other => panic!("{wrong}: {other:?}"),
            }
        }
        let input = |bytes: u64| read_all(io::repeat(b' ').take(bytes));
        for (bytes, fits) in
            [(MAX_INPUT_BYTES - 1, true), (MAX_INPUT_BYTES, true), (MAX_INPUT_BYTES + 1, false)]
        {
            assert_eq!(input(bytes).is_ok(), fits, "{bytes}");
        }
    }

    #[test]
    fn what_was_done_fits_a_terminal() {
        let receipt = format!("{}-{}", "0".repeat(16), "f".repeat(32));
        let of = |kind, count| {
            let write = BatchWrite::new(kind, BatchOp::Add, "k\u{1b}".repeat(60));
            (write, BatchDone { receipt: receipt.clone(), etag: None, count })
        };
        let one = of(BatchKind::Set, None);
        let told_of = |pairs: &[(BatchWrite, BatchDone)]| {
            let (writes, each): (Vec<_>, Vec<_>) = pairs.iter().cloned().unzip();
            told(&writes, &BatchWritten { receipt: receipt.clone(), writes: each })
        };
        assert_eq!(
            told_of(std::slice::from_ref(&one)),
            format!("1 written together, the last by\n{receipt}")
        );
        let text = told_of(&[one, of(BatchKind::Counter, Some(i64::MIN))]);
        assert!(text.contains("-9223372036854775808"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
