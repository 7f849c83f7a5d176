//! How results look: tables within 80 columns, numbers people can read, lines redrawn in place.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::failure::Failure;

/// The widest a table gets, also on a wider terminal.
const MAX_WIDTH: u16 = 80;
/// How often a progress bar is redrawn, at most.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// Prints a line.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    bytes(format!("{}\n", text.as_ref()).as_bytes())
}

/// Prints these bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints a line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value).map_err(Failure::new)?)
}

/// A table without rules, its columns apart by two spaces.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(MAX_WIDTH);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Text of words, broken into lines that fit. A word that is longer stays whole.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(word),
            Some(last) if line + 1 + word.chars().count() <= usize::from(MAX_WIDTH) => {
                last.extend([" ", word]);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// `60123` as `60,123`.
pub(super) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// `1536` as `1.50 KiB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Milliseconds below a second, seconds below two minutes, then minutes and hours.
pub(super) fn time(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// Unix milliseconds as `2026-11-22 09:00:00 UTC`.
pub(super) fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).ok();
    let moment = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    moment.map_or_else(
        || "an unknown time".into(),
        |moment| {
            let (date, (hour, minute, second)) = (moment.date(), moment.to_hms());
            format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
        },
    )
}

/// A key or title on a terminal: what could move the cursor is escaped.
pub(super) fn name(text: &str) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

/// A bar over `length` bytes (a counter where the length is not known), on standard error if that is a
/// terminal, else nowhere.
pub(super) fn bar(length: Option<u64>, unit: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    };
    let template = match length {
        Some(_) => "{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} to go".to_owned(),
        None => format!("{{spinner}} {{msg}} {unit}  {{elapsed}}"),
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(length, target).with_style(style);
    bar.enable_steady_tick(BAR_INTERVAL);
    bar
}

/// Text that changes: redrawn in place on a terminal, else printed again, only the lines that changed.
pub(super) struct Redrawn {
    is_terminal: bool,
    drawn: Vec<String>,
}

impl Redrawn {
    pub(super) fn on_stdout() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), drawn: Vec::new() }
    }

    pub(super) fn show(&mut self, lines: Vec<String>) -> Result<(), Failure> {
        let text = self.next(lines, terminal_columns());
        if text.is_empty() { Ok(()) } else { bytes(text.as_bytes()) }
    }

    /// On a terminal of so many columns longer lines are cut: one that wraps would not be redrawn as a whole.
    fn next(&mut self, mut lines: Vec<String>, columns: usize) -> String {
        if self.is_terminal {
            lines.iter_mut().for_each(|line| *line = line.chars().take(columns).collect());
        }
        let mut text = String::new();
        if lines != self.drawn {
            if self.is_terminal && !self.drawn.is_empty() {
                // Up to the first drawn line, and clear from there.
                text = format!("\x1b[{}A\x1b[J", self.drawn.len());
            }
            for (index, line) in lines.iter().enumerate() {
                if self.is_terminal || self.drawn.get(index) != Some(line) {
                    text.extend([line, "\n"]);
                }
            }
        }
        self.drawn = lines;
        text
    }
}

/// The width of the terminal; no limit where it does not tell one.
fn terminal_columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| size.ws_col.into()).filter(|columns| *columns > 0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_fits_80_columns() {
        let row = || {
            ["a-long-pop-name-01", "connected", "0123456789abcdef0123456789abcdef", "-1,234 ms", "12.3 ms"]
        };
        let text = table(["POP", "LINK", "ROOT", "CLOCK", "ROUND TRIP"], [row().map(str::to_owned)]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrapped("a few words"), "a few words");
        let long = "x".repeat(100);
        assert_eq!(wrapped(&format!("a {long} b")), format!("a\n{long}\nb"));
        assert_eq!(wrapped(&"abc ".repeat(30)).lines().map(str::len).max(), Some(79));
    }

    #[test]
    fn times_read_well() {
        for (ms, text) in
            [(0, "0 ms"), (999, "999 ms"), (1_500, "1.5 s"), (125_000, "2 min"), (7_200_000, "2 h")]
        {
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn off_a_terminal_only_changed_lines_are_printed() {
        let mut live = Redrawn { is_terminal: false, drawn: Vec::new() };
        let lines = |lines: [&str; 2]| lines.map(str::to_owned).to_vec();
        assert_eq!(live.next(lines(["a", "b"]), 1), "a\nb\n");
        assert_eq!(live.next(lines(["a", "b"]), 1), "");
        assert_eq!(live.next(lines(["a", "cc"]), 1), "cc\n");
        live.is_terminal = true;
        assert_eq!(live.next(lines(["a", "d"]), 1), "\x1b[2A\x1b[Ja\nd\n");
    }

    /// On 60 columns the lines of `dev` wrapped, and each redrawing left half of them behind.
    #[test]
    fn a_line_is_cut_to_the_terminal() {
        let mut live = Redrawn { is_terminal: true, drawn: Vec::new() };
        assert_eq!(live.next(vec!["füü bar".into()], 3), "füü\n");
        assert_eq!(live.next(vec!["füü baz".into()], 3), "");
    }
}
