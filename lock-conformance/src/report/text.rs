//! The report as lines, for a terminal.

use std::fmt;
use std::time::Duration;

use super::{CaseResult, Report, Totals};

impl fmt::Display for Report {
    /// One line for each case and a [`summary`](Report::summary).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.results {
            writeln!(f, "{result}")?;
        }
        write!(f, "{}", self.summary())
    }
}

impl fmt::Display for CaseResult {
    /// One line, or more where the reason has more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = self.ending.words();
        let took = seconds(self.took);
        write!(f, "{word:<9} {took:>7}  {} {}", self.id, self.name)?;
        match why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            deviating,
            skipped,
            missing,
        } = self;
        write!(
            f,
            "{passed} passed, {failed} failed, {deviating} deviating, {skipped} skipped"
        )?;
        match missing {
            0 => Ok(()),
            missing => write!(f, ", {missing} without a server"),
        }
    }
}

impl Report {
    /// Backend, suite and counts, then what is declared not to hold: a line each.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}: suite {}{}: {}\n",
            self.backend,
            self.suite,
            self.part(),
            self.totals()
        );
        for deviation in &self.deviations {
            text.push_str(&format!(
                "declared deviation {}: {} ({})\n",
                deviation.case,
                deviation.reason,
                deviation.seen_or_not()
            ));
        }
        text
    }

    /// What was left out, if something was.
    pub(super) fn part(&self) -> &'static str {
        match self.complete {
            true => "",
            false => ", some of its cases",
        }
    }
}

impl super::DeclaredDeviation {
    pub(super) fn seen_or_not(&self) -> &'static str {
        match self.seen {
            true => "seen in this run",
            false => "not seen in this run",
        }
    }
}

/// Seconds to a tenth.
pub(super) fn seconds(length: Duration) -> String {
    format!("{:.1} s", length.as_secs_f64())
}
