//! `kv export`: a namespace as NDJSON, in the order of its keys.
//!
//! Values are read one by one, a few at once, since only that is byte-exact for values that are no text. A
//! key deleted between its listing and its reading is left out. A page is on disk before the resume file
//! says so.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use littoral::api::kv::KeyInfo;
use littoral::{ListOptions, Namespace};
use serde_json::json;

use super::failure::Failure;
use super::resume::{self, Exported};
use super::{connection::AccountArgs, print, record};

/// Values read at once. Each may have 25 MiB, so this also bounds the memory.
const MAX_READS_IN_FLIGHT: usize = 8;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The file to write; standard output if not given
    file: Option<PathBuf>,
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// Keep how far it came in this file, and go on from there
    #[arg(long, value_name = "STATE_FILE", requires = "file")]
    resume: Option<PathBuf>,
}

pub(super) async fn run(args: Args, account: &AccountArgs, json: bool) -> Result<(), Failure> {
    let namespace = account.namespace().await?;
    let begun = Instant::now();
    let begin = begin(&args, &namespace)?;
    let mut output = match &args.file {
        Some(path) => Output::File(open(path, begin.bytes).map_err(|error| cannot_write(path, error))?),
        None => Output::Stdout,
    };
    let bar = print::bar(None, "keys");
    let outcome = export(&namespace, begin, &mut output, args.resume.as_deref(), &bar).await;
    bar.finish_and_clear();
    let done = outcome.map_err(|failure| match args.resume {
        Some(_) => failure.hint("mend the cause, then give the same command again: it goes on from there"),
        None => failure,
    })?;
    match args.file {
        // Standard output holds the records alone.
        None => Ok(()),
        Some(_) if json => print::json(&json!({
            "keys": done.keys, "bytes": done.bytes, "time_ms": begun.elapsed().as_millis() as u64
        })),
        Some(path) => print::line(format!(
            "exported {} keys ({}) to {} in {}",
            print::count(done.keys),
            print::size(done.bytes),
            path.display(),
            print::time(begun.elapsed())
        )),
    }
}

/// Where to go on.
fn begin(args: &Args, namespace: &Namespace) -> Result<Exported, Failure> {
    let new =
        Exported { namespace: namespace.id().into(), prefix: args.prefix.clone(), ..Exported::default() };
    let Some(path) = &args.resume else { return Ok(new) };
    let Some(earlier) = resume::load::<Exported>(path)? else { return Ok(new) };
    if (&earlier.namespace, &earlier.prefix) != (&new.namespace, &new.prefix) {
        let what = format!("{} belongs to another namespace or prefix", path.display());
        return Err(Failure::usage(what).hint(resume::start_anew(path)));
    }
    Ok(earlier)
}

/// The output, cut to what is known to be whole.
fn open(path: &Path, bytes: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() < bytes {
        return Err(io::Error::other(format!(
            "it is shorter than the {bytes} bytes the resume file speaks of"
        )));
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

enum Output {
    File(File),
    Stdout,
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => Ok(file.write_all(lines)?),
            Self::Stdout => print::bytes(lines),
        }
    }
}

async fn export(
    namespace: &Namespace,
    mut done: Exported,
    output: &mut Output,
    state_file: Option<&Path>,
    bar: &ProgressBar,
) -> Result<Exported, Failure> {
    if done.is_done {
        return Ok(done);
    }
    let options = ListOptions { prefix: done.prefix.clone(), page_limit: None, cursor: done.cursor.clone() };
    let mut listing = namespace.list(options);
    while let Some(page) = listing.next_page().await? {
        let mut lines = stream::iter(page.keys).map(|key| read(namespace, key)).buffered(MAX_READS_IN_FLIGHT);
        while let Some(line) = lines.try_next().await? {
            let Some(line) = line else { continue };
            output.write(&line)?;
            done.keys += 1;
            done.bytes += line.len() as u64;
            bar.set_message(print::count(done.keys));
        }
        done.is_done = page.cursor.is_none();
        done.cursor = page.cursor;
        if let (Some(path), Output::File(file)) = (state_file, &*output) {
            file.sync_data()?;
            resume::save(path, &done)?;
        }
    }
    Ok(done)
}

/// The line of a key; `None` if it is gone by now.
async fn read(namespace: &Namespace, key: KeyInfo) -> Result<Option<Vec<u8>>, Failure> {
    match namespace.get(&key.name).await? {
        Some(value) => record::write(key.name, &value.bytes, value.expires_at_s, key.metadata).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::fake_pop::FakePop;

    fn args(file: &Path, state: &Path) -> Args {
        Args { file: Some(file.into()), prefix: String::new(), resume: Some(state.into()) }
    }

    #[tokio::test]
    async fn an_export_is_in_order_and_byte_exact_and_goes_on_where_it_stood() {
        let pop = FakePop::start().await;
        for index in 0..25_u8 {
            pop.insert(&format!("key-{index:02}"), vec![index, b'\n', 0xff - index]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (file, state) = (folder.path().join("out"), folder.path().join("state"));

        // It fails in the middle; half a line is left behind by the crash that follows.
        pop.fail_reads_of("key-17");
        run(args(&file, &state), &pop.account_args(), false).await.expect_err("key-17 cannot be read");
        let mut torn = OpenOptions::new().append(true).open(&file).expect("the file");
        torn.write_all(b"{\"key\":\"ke").expect("written");
        pop.fail_reads_of("");
        run(args(&file, &state), &pop.account_args(), false).await.expect("it goes on");
        // Once done, it stays done.
        run(args(&file, &state), &pop.account_args(), true).await.expect("nothing to do");

        let lines = fs::read_to_string(&file).expect("text");
        let keys: Vec<_> = lines
            .lines()
            .map(|line| match record::parse(line.as_bytes(), 0) {
                Ok(record::Line::Write(pair)) => pair.key,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys, (0..25).map(|index| format!("key-{index:02}")).collect::<Vec<_>>());
        assert_eq!(lines.lines().next(), Some(r#"{"key":"key-00","value":"AAr/","base64":true}"#));
    }

    #[tokio::test]
    async fn a_resume_file_of_another_prefix_is_refused() {
        let pop = FakePop::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let (file, state) = (folder.path().join("out"), folder.path().join("state"));
        run(args(&file, &state), &pop.account_args(), false).await.expect("nothing to export");
        let other = Args { prefix: "p".into(), ..args(&file, &state) };
        run(other, &pop.account_args(), false).await.expect_err("another prefix");
    }
}
