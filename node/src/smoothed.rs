//! A rate over the recent past, in which what is longer ago counts for less.

/// An exponential mean. Until it has seen as much time as it is over, it is the mean of what it has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Smoothed {
    over_s: f64,
    amount: f64,
    span_s: f64,
}

impl Smoothed {
    /// One that forgets all but 1/e of what is so long ago.
    pub(crate) fn over_s(over_s: f64) -> Self {
        Self { over_s, amount: 0.0, span_s: 0.0 }
    }

    /// So much came in the last `elapsed_s`, evenly.
    pub(crate) fn add(&mut self, amount: f64, elapsed_s: f64) {
        if elapsed_s > 0.0 {
            let kept = (-elapsed_s / self.over_s).exp();
            let weight_s = self.over_s * (1.0 - kept);
            self.amount = self.amount * kept + amount / elapsed_s * weight_s;
            self.span_s = self.span_s * kept + weight_s;
        }
    }

    /// How much comes in a second, once at least about `seen_s` were seen.
    pub(crate) fn per_s(&self, seen_s: f64) -> Option<f64> {
        // What the weights of so many seconds add up to.
        let needed_s = self.over_s * (1.0 - (-seen_s / self.over_s).exp());
        (self.span_s > 0.0 && self.span_s >= needed_s * 0.999).then(|| self.amount / self.span_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(smoothed: &Smoothed, per_s: f64) {
        let found = smoothed.per_s(0.0).unwrap();
        assert!((found - per_s).abs() < per_s.abs() * 0.01 + 1e-9, "{found}, not {per_s}");
    }

    #[test]
    fn an_even_rate_is_told_from_the_first_second_on_whatever_the_steps() {
        for steps in [&[1.0; 3] as &[f64], &[0.2, 7.0, 0.5], &[300.0]] {
            let mut smoothed = Smoothed::over_s(10.0);
            assert_eq!(smoothed.per_s(0.0), None);
            smoothed.add(5.0, 0.0);
            steps.iter().for_each(|elapsed_s| smoothed.add(70.0 * elapsed_s, *elapsed_s));
            check(&smoothed, 70.0);
        }
    }

    #[test]
    fn what_is_long_ago_counts_for_little() {
        let mut smoothed = Smoothed::over_s(10.0);
        (0..20).for_each(|_| smoothed.add(-100.0, 1.0));
        check(&smoothed, -100.0);
        (0..60).for_each(|_| smoothed.add(40.0, 1.0));
        check(&smoothed, 40.0);
    }

    #[test]
    fn nothing_is_told_before_enough_was_seen() {
        let mut smoothed = Smoothed::over_s(10.0);
        smoothed.add(1.0, 0.9);
        assert_eq!(smoothed.per_s(1.0), None);
        smoothed.add(1.0, 0.1);
        assert!(smoothed.per_s(1.0).is_some());
    }
}
