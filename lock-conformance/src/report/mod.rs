//! What a run of the suite has found out, to keep, to compare and to publish.
//!
//! A test program made by [`main!`](crate::main) writes its report when `LOCK_TEST_REPORT` names a directory, also when
//! cases fail: `<backend>.json`, `<backend>.md`, `<backend>.svg` and `<backend>.badge.json`, the last two a badge by
//! itself and one for <https://shields.io/badges/endpoint-badge>. Blanks in the backend's name become hyphens there. A
//! relative path begins at the package, where Cargo starts its tests.
//!
//! # The JSON document
//!
//! In this order; a reader is to expect more fields and more words in later versions.
//!
//! | field | |
//! |---|---|
//! | `suite` | [`SUITE_VERSION`] |
//! | `version` | of the crate `lock-conformance` |
//! | `backend` | the harness' name for it |
//! | `tier` | `fast`, or `full` with the long cases |
//! | `complete` | whether every case of that tier is in `results`; false with a filter |
//! | `success` | whether a case has passed, and none failed |
//! | `passed` `failed` `deviating` `skipped` `missing` | how many cases ended so |
//! | `capabilities` | what the backend declares: [`Declared`]; `null` when it could not be asked |
//! | `faults` | what the harness can break, as [`Fault`](crate::Fault) names it, in kebab-case |
//! | `processes` | whether worker processes reach the backend |
//! | `deviations` | `case`, `reason`, and `seen`: whether the case did fail in this run |
//! | `results` | `case`, `name`, `rule`, `tier`, `result` (a word of the counts above), `reason` unless it passed, `took_ms` |

mod badge;
mod declared;
mod json;
mod markdown;
mod text;

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

pub(crate) use self::declared::word;
pub use self::declared::{Declared, TtlDeclared};
use crate::case::{Case, Tier};

/// The suite as a whole: two reports of one version have asked the same.
///
/// Raised by one in each release in which a case was added or removed, or asks for more than it did; a case that was
/// only made quicker or clearer does not raise it. Numbers of cases are never used again, so an older report stays
/// readable, and says nothing about the cases that came later. Each version has a line in CHANGELOG.md.
pub const SUITE_VERSION: u32 = 1;

/// What became of the cases that were run.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Report {
    /// The [`SUITE_VERSION`] that was run.
    pub suite: u32,
    /// The version of this crate.
    pub version: String,
    /// The backend, as its harness calls it.
    pub backend: String,
    /// Whether the long cases were meant to run too.
    pub tier: Tier,
    /// Whether every case of the tier is among the results.
    pub complete: bool,
    /// What the backend declares; `None` when no case came as far as asking it.
    pub capabilities: Option<Declared>,
    /// What the harness can break.
    pub faults: Vec<String>,
    /// Whether worker processes reach the backend.
    pub processes: bool,
    /// What the harness declares not to pass.
    pub deviations: Vec<DeclaredDeviation>,
    /// One entry per case, in the order of [`CASES`](crate::CASES).
    pub results: Vec<CaseResult>,
}

/// A case that the harness declares not to pass.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeclaredDeviation {
    /// The case.
    pub case: String,
    /// What is not promised.
    pub reason: String,
    /// Whether the case did fail in this run. One that is not seen any more is to be taken back.
    pub seen: bool,
}

/// What became of one case.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CaseResult {
    /// The case's number, such as `R1.03`.
    #[serde(rename = "case")]
    pub id: String,
    /// What must hold, as a sentence.
    pub name: String,
    /// The rule of the contract that the case belongs to.
    pub rule: String,
    /// The tier the case belongs to.
    pub tier: Tier,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
    /// How long it took; whole milliseconds in a document.
    #[serde(rename = "took_ms", with = "json::millis")]
    pub took: Duration,
}

impl CaseResult {
    pub(crate) fn new(case: &Case, ending: Ending, took: Duration) -> Self {
        Self {
            id: case.id.to_owned(),
            name: case.name.to_owned(),
            rule: case.rule().to_owned(),
            tier: case.tier,
            ending,
            took,
        }
    }
}

/// How a case ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "result", content = "reason", rename_all = "lowercase")]
pub enum Ending {
    /// What must hold held.
    Passed,
    /// It failed; what was seen.
    Failed(String),
    /// It failed, and the harness had declared that, for this reason.
    #[serde(rename = "deviating")]
    Deviates(String),
    /// It could not be tried: the backend does not declare, or the harness does not have, what it takes.
    Skipped(String),
    /// It was not tried since a server is not there, which was allowed.
    Missing(String),
}

impl Ending {
    /// The word for it, and the reason if there is one.
    #[must_use]
    pub fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Passed => ("passed", None),
            Self::Failed(why) => ("failed", Some(why)),
            Self::Deviates(why) => ("deviating", Some(why)),
            Self::Skipped(why) => ("skipped", Some(why)),
            Self::Missing(why) => ("missing", Some(why)),
        }
    }
}

/// How many cases ended in which way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// What must hold held.
    pub passed: usize,
    /// It did not.
    pub failed: usize,
    /// It did not, as declared.
    pub deviating: usize,
    /// They could not be tried.
    pub skipped: usize,
    /// Their server is not there, which was allowed.
    pub missing: usize,
}

impl Report {
    /// Whether at least one case was executed, and none failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let totals = self.totals();
        totals.failed == 0 && totals.passed > 0
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseResult> {
        self.results
            .iter()
            .filter(|result| matches!(result.ending, Ending::Failed(_)))
    }

    /// How many cases ended in which way.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for result in &self.results {
            let count = match result.ending {
                Ending::Passed => &mut totals.passed,
                Ending::Failed(_) => &mut totals.failed,
                Ending::Deviates(_) => &mut totals.deviating,
                Ending::Skipped(_) => &mut totals.skipped,
                Ending::Missing(_) => &mut totals.missing,
            };
            *count += 1;
        }
        totals
    }

    /// Writes the report into `dir`, which is made when it is not there, in every form; see the
    /// [module's documentation](self).
    ///
    /// Each file appears whole or not at all, and takes the place of an earlier one.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let stem = self.backend.replace(|c: char| !c.is_alphanumeric(), "-");
        for (extension, text) in [
            ("json", self.to_json()),
            ("md", self.to_markdown()),
            ("svg", self.to_svg()),
            ("badge.json", self.to_shields_endpoint()),
        ] {
            let path = dir.join(format!("{stem}.{extension}"));
            let under_way = dir.join(format!(".{stem}.{extension}.{}", std::process::id()));
            fs::write(&under_way, text)?;
            fs::rename(under_way, path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
