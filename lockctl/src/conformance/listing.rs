//! The suite's cases, without running them.

use lock_conformance::{Case, Tier};
use serde_json::{Value, json};

use crate::output;

pub(crate) fn text(cases: &[&Case]) -> String {
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

pub(crate) fn json(cases: &[&Case]) -> Value {
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
