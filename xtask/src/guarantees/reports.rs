//! The reports that the suite's test programs have written, as far as the document needs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::may_be_missing;

/// A run of the suite that the document speaks of.
#[derive(Debug)]
pub(super) struct Run {
    /// The backend, as its reports call it.
    pub(super) backend: &'static str,
    /// The column of the document that it fills; none for the same backend with more members.
    pub(super) column: Option<&'static str>,
    /// What `LOCK_TEST_ALLOW_MISSING` calls its server.
    server: Option<&'static str>,
}

const fn run(
    backend: &'static str,
    column: Option<&'static str>,
    server: Option<&'static str>,
) -> Run {
    Run {
        backend,
        column,
        server,
    }
}

pub(super) const RUNS: [Run; 7] = [
    run("memory", Some("M"), None),
    run("file", Some("F"), None),
    run("redis", Some("R"), Some("redis")),
    run("etcd", Some("E"), Some("etcd")),
    run("etcd cluster", None, Some("etcd")),
    run("zookeeper", Some("Z"), Some("zookeeper")),
    run("zookeeper ensemble", None, Some("zookeeper")),
];

/// One backend's report.
#[derive(Debug)]
pub(super) struct Report {
    full: bool,
    results: BTreeMap<String, String>,
    /// Case and reason.
    pub(super) deviations: Vec<(String, String)>,
}

/// The reports by their backend's name. One that is allowed to be missing may not be there.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<&'static str, Report>);

impl Reports {
    /// Reads the report of every one of [`RUNS`].
    pub(super) fn read(dir: &Path) -> Result<Reports> {
        let mut reports = Reports::default();
        for Run {
            backend, server, ..
        } in &RUNS
        {
            let path = dir.join(format!("{}.json", backend.replace(' ', "-")));
            if !path.is_file() && server.is_some_and(may_be_missing) {
                println!("    no report of {backend}, as LOCK_TEST_ALLOW_MISSING allows");
                continue;
            }
            let text = fs::read_to_string(&path)
                .with_context(|| format!("the report of {backend}, {}", path.display()))?;
            reports.add(backend, &text)?;
        }
        Ok(reports)
    }

    /// Adds the report that `text` is.
    pub(super) fn add(&mut self, backend: &'static str, text: &str) -> Result<()> {
        let report = Report::parse(text).with_context(|| format!("the report of {backend}"))?;
        self.0.insert(backend, report);
        Ok(())
    }

    pub(super) fn of(&self, backend: &str) -> Option<&Report> {
        self.0.get(backend)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Report {
    fn parse(text: &str) -> Result<Report> {
        let json: Value = serde_json::from_str(text)?;
        ensure!(
            json["complete"] == true,
            "it has only some of the cases: run them all"
        );
        let list = |field: &str| json[field].as_array().cloned().unwrap_or_default();
        let mut results = BTreeMap::new();
        for result in list("results") {
            results.insert(word(&result, "case")?, word(&result, "result")?);
        }
        let failed = results.iter().filter(|(_, result)| *result == "failed");
        let failed: Vec<_> = failed.map(|(case, _)| case.as_str()).collect();
        ensure!(failed.is_empty(), "failed: {}", failed.join(" "));
        let deviations = list("deviations");
        let deviations = deviations
            .iter()
            .map(|deviation| Ok((word(deviation, "case")?, word(deviation, "reason")?)));
        Ok(Report {
            full: json["tier"] == "full",
            results,
            deviations: deviations.collect::<Result<_>>()?,
        })
    }

    /// What the document has to show for these cases; `None` when this report cannot tell: they run in the full tier
    /// only, or their server was allowed to be missing.
    pub(super) fn mark(&self, cases: &[super::document::Named]) -> Result<Option<&'static str>> {
        let (mut passed, mut others) = (0, 0);
        for case in cases.iter().filter(|case| self.full || !case.full) {
            let result = self.results.get(&case.id);
            match result.map(String::as_str) {
                Some("passed") => passed += 1,
                Some("skipped" | "deviating") => others += 1,
                Some("missing") => return Ok(None),
                Some(other) => bail!("{} has {other}", case.id),
                None => bail!("{} did not run, and is not marked †", case.id),
            }
        }
        Ok(match (passed, others) {
            (0, 0) => None,
            (0, _) => Some("—"),
            (_, 0) => Some("●"),
            _ => Some("◐"),
        })
    }
}

fn word(value: &Value, field: &str) -> Result<String> {
    let word = value[field].as_str();
    let word = word.with_context(|| format!("no {field} in {value}"))?;
    Ok(word.to_owned())
}
