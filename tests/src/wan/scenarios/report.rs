//! The table a scenario ends with, in 80 columns.

use std::fmt;

/// The width of what was measured; the rest of a line is for its figure, the wish and the verdict.
const WHAT_COLUMNS: usize = 47;

/// What a scenario showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was done, in a line or two.
    pub title: String,
    /// In the order to be read.
    pub rows: Vec<Row>,
    /// Lines below the table.
    pub notes: Vec<String>,
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    measured: String,
    wished: String,
    is_met: Option<bool>,
}

impl Report {
    /// An empty table.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a figure that nothing is asked of.
    pub fn tell(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        let (what, measured) = (what.into(), measured.into());
        self.rows.push(Row { what, measured, wished: String::new(), is_met: None });
    }

    /// Adds a figure that should be at most `most`, with so many digits behind the point.
    pub fn at_most(&mut self, what: impl Into<String>, measured: f64, most: f64, digits: usize) {
        self.rows.push(Row {
            what: what.into(),
            measured: format!("{measured:.digits$}"),
            wished: format!("<= {most:.digits$}"),
            is_met: Some(measured <= most),
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for Row { what, measured, wished, is_met } in &self.rows {
            let verdict = match is_met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let line = format!("  {what:WHAT_COLUMNS$} {measured:>12} {wished:>11}  {verdict}");
            writeln!(f, "{}", line.trim_end())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_into_80_columns() {
        let mut report = Report::new("t");
        report.at_most("w".repeat(WHAT_COLUMNS), 123_456_789.5, 280.0, 1);
        report.tell("told", "once");
        let text = report.to_string();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("<= 280.0  NO\n"), "{text}");
        assert!(text.contains("once\n"), "{text}");
    }
}
