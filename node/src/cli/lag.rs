//! `lag`: how far every PoP is behind every origin, once or watched.

use std::time::Duration;

use littoral::api::{Lag, LagReport};

use super::connection::Connection;
use super::failure::Failure;
use super::print::{self, Redrawn};

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Ask again every second, until stopped
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut screen = Redrawn::on_stdout();
    loop {
        let report = client.lag().await?;
        match (json, args.watch) {
            (true, _) => print::json(&report)?,
            (false, true) => screen.show(page(&report).lines().map(str::to_owned).collect())?,
            (false, false) => print::line(page(&report))?,
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn page(report: &LagReport) -> String {
    let table = if report.lag.is_empty() {
        format!("{} knows no other PoP yet", report.pop)
    } else {
        print::table(["PEER", "BEHIND", "OPS", "BYTES", "TIME", "GONE IN"], report.lag.iter().map(row))
    };
    match report.chunks_missing {
        0 => table,
        chunks => format!(
            "{}\n\n{} lacks {} chunks of large values ({});\na read fetches what it needs",
            table.trim_end(),
            report.pop,
            print::count(chunks),
            print::size(report.chunk_bytes_missing)
        ),
    }
}

fn row(lag: &Lag) -> [String; 6] {
    [
        lag.peer.clone(),
        lag.origin.clone(),
        print::count(lag.ops),
        print::size(lag.bytes),
        print::time(Duration::from_millis(lag.time_ms)),
        gone_in(lag),
    ]
}

fn gone_in(lag: &Lag) -> String {
    match (lag.ops, lag.gone_in_ms, lag.shrinks_bytes_per_s) {
        (0, _, _) => String::new(),
        (_, Some(ms), _) => print::time(Duration::from_millis(ms)),
        (_, None, Some(_)) => "never at this pace".into(),
        (_, None, None) => "not known yet".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_fits_80_columns() {
        let lag = Lag {
            origin: "a-pop-with-a-long-name".into(),
            peer: "another-pop-of-that-kind".into(),
            ops: 1_234_567_890,
            bytes: u64::from(u32::MAX),
            time_ms: 604_800_000,
            shrinks_bytes_per_s: Some(-1),
            gone_in_ms: None,
        };
        let report = LagReport {
            pop: "ams".into(),
            lag: vec![lag],
            chunks_missing: 1_234_567,
            chunk_bytes_missing: 600 << 30,
        };
        let text = page(&report);
        assert!(text.contains("ams lacks 1,234,567 chunks of large values (600"), "{text}");
        let none = page(&LagReport { chunks_missing: 0, ..report });
        assert!(!none.contains("chunks"), "{none}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("1,234,567,890") && text.contains("168 h"), "{text}");
    }

    #[test]
    fn a_backlog_is_gone_after_a_time_or_never_or_that_is_not_known_yet() {
        let lag = |ops, gone_in_ms, shrinks_bytes_per_s| Lag {
            origin: "fra".into(),
            peer: "sin".into(),
            ops,
            gone_in_ms,
            shrinks_bytes_per_s,
            ..Lag::default()
        };
        let cases = [
            (lag(0, Some(0), None), ""),
            (lag(5, Some(86_000), Some(9)), "86.0 s"),
            (lag(5, Some(86_000), None), "86.0 s"),
            (lag(5, None, Some(0)), "never at this pace"),
            (lag(5, None, None), "not known yet"),
        ];
        for (lag, text) in cases {
            assert_eq!(gone_in(&lag), text, "{lag:?}");
        }
    }
}
