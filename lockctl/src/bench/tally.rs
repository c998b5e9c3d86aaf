//! What was counted.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Waits are kept to three digits.
const DIGITS: u8 = 3;

/// What one process, or all of them, did in one level.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Tally {
    /// Sections that came to their end.
    pub(crate) sections: u64,
    /// Those whose lock somebody else had had before.
    pub(crate) hand_offs: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Sections of each task.
    pub(crate) by_task: Vec<u64>,
    /// How long was waited for the lock: microseconds, and how often.
    pub(crate) waits: Vec<(u64, u64)>,
}

impl Tally {
    pub(crate) fn failed(&mut self, error: impl ToString) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// Adds what others counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.sections += other.sections;
        self.hand_offs += other.hand_offs;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.by_task.extend(other.by_task);
        self.waits.extend(other.waits);
    }
}

/// The waits of a level.
#[derive(Debug)]
pub(crate) struct Waits(Histogram<u64>);

impl Waits {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(DIGITS).expect("three digits are few enough"))
    }

    pub(crate) fn of(tally: &Tally) -> Self {
        let mut waits = Self::new();
        for &(micros, count) in &tally.waits {
            // The histogram grows by itself.
            let _ = waits.0.record_n(micros, count);
        }
        waits
    }

    pub(crate) fn record(&mut self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let _ = self.0.record(micros);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }

    /// Every wait there was, for [`Tally::waits`].
    pub(crate) fn pairs(&self) -> Vec<(u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }

    pub(crate) fn mean_ms(&self) -> f64 {
        self.0.mean() / 1e3
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        ms(self.0.value_at_quantile(quantile))
    }

    pub(crate) fn max_ms(&self) -> f64 {
        ms(self.0.max())
    }
}

fn ms(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_survive_their_way_between_processes() {
        let mut waits = Waits::new();
        for millis in [1, 2, 2, 40] {
            waits.record(Duration::from_millis(millis));
        }
        let tally = Tally {
            waits: waits.pairs(),
            ..Tally::default()
        };
        let read = Waits::of(&tally);
        assert_eq!(read.0.len(), 4);
        assert!((read.max_ms() - 40.0).abs() < 0.1, "{}", read.max_ms());
        assert!((read.quantile_ms(0.5) - 2.0).abs() < 0.1);
    }

    #[test]
    fn first_error_is_kept() {
        let mut all = Tally::default();
        let mut other = Tally::default();
        other.failed("first");
        other.failed("second");
        all.merge(other);
        assert_eq!((all.errors, all.first_error.as_deref()), (2, Some("first")));
    }
}
