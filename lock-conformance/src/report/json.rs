//! The JSON document.

use serde::ser::{Serialize, Serializer};

use super::{CaseResult, Declared, DeclaredDeviation, Report, Totals};
use crate::case::Tier;

/// The document as it is written: the report, and what follows from it.
#[derive(serde::Serialize)]
struct Document<'a> {
    suite: u32,
    version: &'a str,
    backend: &'a str,
    tier: Tier,
    complete: bool,
    success: bool,
    #[serde(flatten)]
    totals: Totals,
    capabilities: Option<&'a Declared>,
    faults: &'a [String],
    processes: bool,
    deviations: &'a [DeclaredDeviation],
    results: &'a [CaseResult],
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Document {
            suite: self.suite,
            version: &self.version,
            backend: &self.backend,
            tier: self.tier,
            complete: self.complete,
            success: self.is_success(),
            totals: self.totals(),
            capabilities: self.capabilities.as_ref(),
            faults: &self.faults,
            processes: self.processes,
            deviations: &self.deviations,
            results: &self.results,
        }
        .serialize(serializer)
    }
}

impl Report {
    /// The report as a JSON document, on many lines. Any serde reader makes a [`Report`] of it again.
    ///
    /// # Panics
    /// Never: everything in a report can be written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings, numbers and lists");
        text.push('\n');
        text
    }
}

/// A duration as whole milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::report) fn serialize<S: Serializer>(
        length: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::report) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
