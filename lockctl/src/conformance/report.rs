//! The suite's results, for people, for machines and for a pull request.

use lock_conformance::{Case, CaseResult, Ending, Report, Tier};
use serde_json::{Value, json};

use crate::output;

/// One case, as soon as it has ended.
pub(crate) fn line(result: &CaseResult) -> String {
    let (word, why) = word(&result.ending);
    let took = output::age(result.took);
    let title = format!("{} {}", result.case.id, result.case.name);
    match why.is_empty() {
        true => format!("{word:<8} {took:>6}  {title}\n"),
        false => format!("{word:<8} {took:>6}  {title}: {why}\n"),
    }
}

pub(crate) fn summary(report: &Report) -> String {
    let counts = counts(report);
    counts
        .map(|(count, what)| format!("{count} {what}"))
        .join(", ")
}

fn counts(report: &Report) -> [(usize, &'static str); 4] {
    ["passed", "failed", "skipped", "deviating"].map(|what| {
        let is_such = |result: &&CaseResult| word(&result.ending).0 == what;
        (report.results.iter().filter(is_such).count(), what)
    })
}

pub(crate) fn json(backend: &str, report: &Report) -> Value {
    let result = |result: &CaseResult| {
        let (word, why) = word(&result.ending);
        json!({
            "case": result.case.id,
            "name": result.case.name,
            "rule": result.case.rule(),
            "result": word,
            "reason": Some(why).filter(|why| !why.is_empty()),
            "took_ms": output::millis(result.took),
        })
    };
    let mut document = json!({
        "backend": backend,
        "success": report.is_success(),
        "results": report.results.iter().map(result).collect::<Vec<_>>(),
    });
    for (count, what) in counts(report) {
        document[what] = count.into();
    }
    document
}

pub(crate) fn markdown(backend: &str, report: &Report) -> String {
    let verdict = match report.is_success() {
        true => "conforms",
        false => "does **not** conform",
    };
    let mut text = format!(
        "# Conformance of {backend}\n\nThe backend {verdict} in what was tried: {}.\n\n\
         | case | | result | time |\n|---|---|---|---|\n",
        summary(report)
    );
    for result in &report.results {
        let (word, why) = word(&result.ending);
        let why = match why.is_empty() {
            true => String::new(),
            false => format!(": {}", cell(why)),
        };
        text.push_str(&format!(
            "| {} | {} | {word}{why} | {} |\n",
            result.case.id,
            cell(result.case.name),
            output::age(result.took)
        ));
    }
    text
}

/// Text that does not break its table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}

fn word(ending: &Ending) -> (&'static str, &str) {
    match ending {
        Ending::Passed => ("passed", ""),
        Ending::Failed(why) => ("failed", why.as_str()),
        Ending::Skipped(why) => ("skipped", why.as_str()),
        Ending::Deviates(why) => ("deviating", why),
    }
}

pub(crate) fn list_text(cases: &[&Case]) -> String {
    let heading = ["CASE", "TIER", "NAME", "NEEDS"].map(str::to_owned);
    let row = |case: &&Case| {
        [
            case.id.to_owned(),
            tier(case).to_owned(),
            case.name.to_owned(),
            needs(case).join("; "),
        ]
    };
    let rows: Vec<_> = std::iter::once(heading)
        .chain(cases.iter().map(row))
        .collect();
    output::table(&rows)
}

pub(crate) fn list_json(cases: &[&Case]) -> Value {
    cases
        .iter()
        .map(|case| {
            json!({
                "case": case.id,
                "name": case.name,
                "rule": case.rule(),
                "tier": tier(case),
                "needs": needs(case),
            })
        })
        .collect()
}

fn tier(case: &Case) -> &'static str {
    match case.tier {
        Tier::Fast => "fast",
        Tier::Full => "full",
    }
}

fn needs(case: &Case) -> Vec<String> {
    case.needs.iter().map(|need| format!("{need:?}")).collect()
}
