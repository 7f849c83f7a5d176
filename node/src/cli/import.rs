//! `kv import`: NDJSON into a namespace, by bulk puts.
//!
//! A thread of its own reads, checks and cuts the input into batches; a few of them are on their way at
//! once. The rules: acknowledgements are counted in the order of the input, so that "up to line N" is true
//! of every line before; and two batches with a key in common never overtake each other, so that the last
//! line of a key wins.

mod batches;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use indicatif::ProgressBar;
use littoral::Namespace;
use serde_json::json;
use tokio::sync::mpsc;

use self::batches::{Batch, Batches};
use super::failure::{self, Failure};
use super::resume::{self, Imported};
use super::{connection::AccountArgs, print};

/// Batches on their way at once.
const MAX_BATCHES_IN_FLIGHT: usize = 4;
/// Batches read ahead.
const MAX_BATCHES_AHEAD: usize = 2;
/// The buffer of the input.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// The most bad lines told one by one.
const MAX_BAD_LINES_TOLD: u64 = 20;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The NDJSON file; standard input if not given
    file: Option<PathBuf>,
    /// Keep how far it came in this file, and go on from there
    #[arg(long, value_name = "STATE_FILE")]
    resume: Option<PathBuf>,
    /// Leave out lines that are wrong instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
}

/// What an import did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    written: u64,
    expired: u64,
    bad: u64,
    /// All before is acknowledged, of this run and earlier ones.
    lines: u64,
}

pub(super) async fn run(args: Args, account: &AccountArgs, json: bool) -> Result<(), Failure> {
    let namespace = account.namespace().await?;
    let begun = Instant::now();
    let (input, length) = open(args.file.as_ref())?;
    let bar = print::bar(length, "lines");
    let outcome = import(input, &namespace, &args, &bar).await;
    bar.finish_and_clear();
    let report = outcome?;
    if json {
        let Report { written, expired, bad, lines } = report;
        let time_ms = begun.elapsed().as_millis() as u64;
        return print::json(&json!({
            "written": written, "expired": expired, "bad": bad, "lines": lines, "time_ms": time_ms
        }));
    }
    let [written, expired, bad] = [report.written, report.expired, report.bad].map(print::count);
    let time = print::time(begun.elapsed());
    print::line(format!("imported {written} keys in {time}; left out: {expired} expired, {bad} bad"))
}

fn open(file: Option<&PathBuf>) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
    let Some(path) = file else {
        return Ok((Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, io::stdin())), None));
    };
    let file =
        File::open(path).map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))?;
    let length = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
    Ok((Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, file)), length))
}

/// Imports all of `input`, or fails with the line up to which all is acknowledged.
async fn import(
    input: Box<dyn BufRead + Send>,
    namespace: &Namespace,
    args: &Args,
    bar: &ProgressBar,
) -> Result<Report, Failure> {
    let begin = match &args.resume {
        Some(path) => resume::load::<Imported>(path)?.unwrap_or_default(),
        None => Imported::default(),
    };
    if begin.lines > 0 && begin.namespace != namespace.id() {
        let path = args.resume.clone().unwrap_or_default();
        let what = format!("{} belongs to the namespace {}", path.display(), begin.namespace);
        return Err(Failure::usage(what).hint(resume::start_anew(&path)));
    }
    let mut done = Acknowledged { args, bar, namespace: namespace.id(), report: Report::default() };
    done.report.lines = begin.lines;
    let batches = read_ahead(input, begin, args.skip_bad);
    send_all(batches, namespace, &mut done).await.map_err(|failure| done.stopped_by(failure))?;
    Ok(done.report)
}

/// Reads on a thread of its own, which ends with the input, or when the receiver is dropped. It is not
/// waited for: a read of standard input may never return.
fn read_ahead(
    input: Box<dyn BufRead + Send>,
    begin: Imported,
    skip_bad: bool,
) -> mpsc::Receiver<Result<Batch, Failure>> {
    let (sender, receiver) = mpsc::channel(MAX_BATCHES_AHEAD);
    std::thread::spawn(move || {
        let mut batches = match Batches::new(input, begin, skip_bad) {
            Ok(batches) => batches,
            Err(failure) => return drop(sender.blocking_send(Err(failure))),
        };
        while let Some(batch) = batches.next(now_s()).transpose() {
            let is_last = batch.is_err();
            if sender.blocking_send(batch).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

async fn send_all(
    mut batches: mpsc::Receiver<Result<Batch, Failure>>,
    namespace: &Namespace,
    done: &mut Acknowledged<'_>,
) -> Result<(), Failure> {
    let mut in_flight = FuturesOrdered::new();
    let mut sent: VecDeque<Arc<Batch>> = VecDeque::new();
    let mut held: Option<Arc<Batch>> = None;
    let mut is_read = false;
    let mut stopped = Ok(());
    loop {
        let may_read = !is_read && held.is_none() && sent.len() < MAX_BATCHES_IN_FLIGHT;
        tokio::select! {
            Some(outcome) = in_flight.next() => {
                let batch = sent.pop_front();
                outcome?;
                if let Some(batch) = batch { done.note(&batch)? }
            }
            batch = batches.recv(), if may_read => match batch {
                Some(Ok(batch)) => held = Some(Arc::new(batch)),
                // What was read before the bad line is still sent.
                Some(Err(failure)) => (is_read, stopped) = (true, Err(failure)),
                None => is_read = true,
            },
            else => break,
        }
        if let Some(batch) = held.take_if(|batch| !sent.iter().any(|other| other.shares_a_key_with(batch))) {
            sent.push_back(batch.clone());
            in_flight.push_back(send(namespace, batch));
        }
    }
    stopped
}

async fn send(namespace: &Namespace, batch: Arc<Batch>) -> Result<(), Failure> {
    if batch.pairs.is_empty() {
        return Ok(());
    }
    let lines = || format!("lines {} to {}", batch.first_line, batch.end.lines);
    let result =
        namespace.bulk_put(&batch.pairs).await.map_err(|error| Failure::from(error).while_doing(lines()))?;
    match result.unsuccessful_keys.first() {
        None => Ok(()),
        Some(key) => Err(Failure::new(format!("{}: the PoP did not write the key {key:?}", lines()))),
    }
}

/// Keeps count of what is acknowledged, in the order of the input.
struct Acknowledged<'a> {
    args: &'a Args,
    bar: &'a ProgressBar,
    namespace: &'a str,
    report: Report,
}

impl Acknowledged<'_> {
    /// Adds to a failure how far all is well, and how to go on.
    fn stopped_by(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Told { exit, what, hint } if exit != failure::USAGE => {
                let what = format!(
                    "stopped; all up to line {} is acknowledged: {what}",
                    print::count(self.report.lines)
                );
                let mend = hint.unwrap_or("mend the cause".into());
                let again = match &self.args.resume {
                    Some(_) => "then give the same command again: it goes on from there",
                    None => "then import again (with --resume STATE_FILE it would go on from there)",
                };
                Failure::Told { exit, what, hint: Some(format!("{mend}; {again}")) }
            }
            other => other,
        }
    }

    fn note(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.tell_bad_lines(batch);
        self.report.written += batch.pairs.len() as u64;
        self.report.expired += batch.expired;
        self.report.lines = batch.end.lines;
        self.bar.set_position(batch.end.bytes);
        self.bar.set_message(print::count(batch.end.lines));
        match &self.args.resume {
            Some(path) => {
                resume::save(path, &Imported { namespace: self.namespace.into(), ..batch.end.clone() })
            }
            None => Ok(()),
        }
    }

    fn tell_bad_lines(&mut self, batch: &Batch) {
        for bad in &batch.bad {
            self.report.bad += 1;
            match self.report.bad {
                ..=MAX_BAD_LINES_TOLD => self.bar.suspend(|| eprintln!("left out {bad}")),
                number if number == MAX_BAD_LINES_TOLD + 1 => self.bar.suspend(|| eprintln!("left out more")),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
