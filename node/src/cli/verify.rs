//! `verify`: has a PoP check its whole store, shows how far it is, and says what it found.

use std::time::Duration;

use littoral::api::verify::{Verification, VerifyProgress, VerifyStage};

use super::connection::Connection;
use super::failure::Failure;
use super::print;

/// How often the PoP is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(super) async fn run(connection: Connection, json: bool) -> Result<(), Failure> {
    let client = connection.client()?;
    client.verify().await?;
    let bar = print::bar(Some(1), "");
    let (pop, found) = loop {
        let report = client.verify_report().await?;
        match (report.running, report.last) {
            (Some(progress), _) => {
                bar.set_length(progress.total.max(1));
                bar.set_position(progress.done);
                bar.set_message(at(&progress));
            }
            (None, Some(found)) => break (report.pop, found),
            (None, None) => {
                return Err(Failure::new("the node was started again meanwhile; nothing was found out"));
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    };
    bar.finish_and_clear();
    if json {
        print::json(&found)?
    } else {
        print::line(page(&pop, &found))?
    }
    if found.fits() {
        return Ok(());
    }
    let remedy = if found.mismatches.is_empty() {
        "damaged files were moved aside; a read of the value fetches what is not here from a peer, as a start does"
    } else {
        "start the node with --rebuild, which sets the store aside and copies it anew from the peers"
    };
    Err(Failure::new(format!("the store of {pop} does not fit")).hint(remedy))
}

fn at(progress: &VerifyProgress) -> String {
    let unit = match progress.stage {
        VerifyStage::Rows => "rows",
        VerifyStage::Chunks => "chunk files",
    };
    format!("{} of {} {unit}", print::count(progress.done), print::count(progress.total))
}

fn page(pop: &str, found: &Verification) -> String {
    let chunks = &found.chunks;
    let rows = [
        ("entries", print::count(found.entries)),
        ("log rows", print::count(found.log_rows)),
        ("root", found.root.clone()),
        ("read", format!("{} in {}", print::size(found.bytes + chunks.bytes), print::time(took(found)))),
        (
            "chunk files",
            format!(
                "{} good, {} damaged, {} missing",
                print::count(chunks.good),
                print::count(chunks.damaged),
                print::count(chunks.missing)
            ),
        ),
    ];
    let table = print::table([pop, ""], rows.map(|(what, figure)| [what.to_owned(), figure]));
    let verdict = if found.fits() {
        "everything fits: rows, digests and chunk files are what was written".to_owned()
    } else if found.is_sound() {
        "rows and digests fit; some chunk files are not here".to_owned()
    } else {
        let chunks = found.damaged_chunks.iter().map(|chunk| format!("chunk file {chunk}"));
        let findings = found.mismatches.iter().cloned().chain(chunks);
        print::table(["DOES NOT FIT"], findings.map(|finding| [print::name(&finding)]))
    };
    format!("{table}\n\n{verdict}")
}

fn took(found: &Verification) -> Duration {
    Duration::from_millis(found.took_ms)
}

#[cfg(test)]
mod tests {
    use littoral::api::verify::ChunkCheck;

    use super::*;

    #[test]
    fn the_page_fits_80_columns_and_says_what_does_not_fit() {
        let mut found = Verification {
            entries: 1_000_000,
            root: "0123456789abcdef0123456789abcdef".into(),
            chunks: ChunkCheck { good: 12, bytes: 5 << 20, ..ChunkCheck::default() },
            ..Verification::default()
        };
        assert!(page("ams", &found).ends_with("are what was written"), "{}", page("ams", &found));
        found.chunks.missing = 2;
        assert!(page("ams", &found).contains("12 good, 0 damaged, 2 missing"), "{}", page("ams", &found));
        assert!(page("ams", &found).ends_with("are not here"), "{}", page("ams", &found));
        found.mismatches.push(format!("the row e{} is damaged: its check does not fit", "\\x00".repeat(60)));
        let text = page("ams", &found);
        assert!(text.contains("DOES NOT FIT") && text.contains("its check"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
