//! Tables on standard output, and the few statistics they need.

/// Prints tables, all in one form.
pub(crate) struct Tables {
    markdown: bool,
}

impl Tables {
    pub(crate) fn new(markdown: bool) -> Self {
        Self { markdown }
    }

    /// Prints a table. The first column is text, the others are figures.
    pub(crate) fn print<const N: usize>(&mut self, title: &str, columns: [&str; N], rows: &[[String; N]]) {
        let width = |n: usize| rows.iter().map(|row| row[n].len()).max().unwrap_or(0).max(columns[n].len());
        let cell = |n: usize, text: &str| {
            let width = width(n);
            if n == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        let line = |cells: [&str; N]| {
            let cells: Vec<String> = cells.iter().enumerate().map(|(n, text)| cell(n, text)).collect();
            if self.markdown { format!("| {} |", cells.join(" | ")) } else { cells.join("  ") }
        };
        println!("\n{title}\n");
        println!("{}", line(columns));
        if self.markdown {
            let rules: Vec<&str> = (0..N).map(|n| if n == 0 { "---" } else { "---:" }).collect();
            println!("| {} |", rules.join(" | "));
        }
        for row in rows {
            println!("{}", line(row.each_ref().map(String::as_str)));
        }
    }
}

/// The middle one; of an even number, the mean of the two.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n => (figures[(n - 1) / 2] + figures[n / 2]) / 2.0,
    }
}

/// `median (least to greatest)`.
pub(crate) fn spread(figures: &[f64]) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({least:.2} to {greatest:.2})", median(figures.iter().copied()))
}

/// A whole number with commas.
pub(crate) fn whole(figure: f64) -> String {
    let digits = format!("{:.0}", figure.max(0.0));
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_as_people_read_them() {
        for (figure, text) in [(0.4, "0"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.8, "1,234,568")] {
            assert_eq!(whole(figure), text);
        }
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[1.0, 0.5, 2.0]), "1.00 (0.50 to 2.00)");
    }
}
