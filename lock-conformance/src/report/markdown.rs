//! The report for a pull request or a page.

use std::fmt::Write as _;
use std::time::Duration;

use super::text::seconds;
use super::{Declared, Ending, Report, TtlDeclared};
use crate::case::Tier;

impl Report {
    /// The report as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = self.heading();
        if let Some(declared) = &self.capabilities {
            text.push_str(&table_of(declared));
        }
        if !self.deviations.is_empty() {
            text.push_str(
                "\n## Declared deviations\n\n| case | what is not promised | |\n|---|---|---|\n",
            );
            for deviation in &self.deviations {
                let (why, seen) = (cell(&deviation.reason), deviation.seen_or_not());
                line(
                    &mut text,
                    format_args!("| {} | {why} | {seen} |", deviation.case),
                );
            }
        }
        text.push_str("\n## Cases\n\n| case | | result | time |\n|---|---|---|---|\n");
        for result in &self.results {
            let outcome = match result.ending.words() {
                (word, None) => word.to_owned(),
                (word, Some(why)) => format!("{}: {}", emphasis(&result.ending, word), cell(why)),
            };
            let (name, took) = (cell(&result.name), seconds(result.took));
            line(
                &mut text,
                format_args!("| {} | {name} | {outcome} | {took} |", result.id),
            );
        }
        text
    }

    fn heading(&self) -> String {
        let verdict = match (self.is_success(), self.complete) {
            (true, true) => "conforms",
            (true, false) => "conforms in what was tried",
            (false, _) => "does **not** conform",
        };
        let tier = match self.tier {
            Tier::Fast => "fast",
            Tier::Full => "full",
        };
        let processes = match self.processes {
            true => "yes",
            false => "no",
        };
        let faults = match self.faults.is_empty() {
            true => "none".to_owned(),
            false => self.faults.join(", "),
        };
        format!(
            "# Conformance of {}\n\nThe backend {verdict}: {}.\n\n| | |\n|---|---|\n\
             | suite | {}{} |\n| lock-conformance | {} |\n| tier | {tier} |\n\
             | faults | {faults} |\n| worker processes | {processes} |\n",
            self.backend,
            self.totals(),
            self.suite,
            self.part(),
            self.version,
        )
    }
}

fn table_of(declared: &Declared) -> String {
    let mut text = String::from("\n## Declared capabilities\n\n| | |\n|---|---|\n");
    let ttl = |range: Option<TtlDeclared>| range.map_or("has no end".to_owned(), shown_range);
    let mut row = |what: &str, value: String| line(&mut text, format_args!("| {what} | {value} |"));
    row("scope", declared.scope.clone());
    row(
        "exclusion survives what the backend survives",
        yes(declared.linearizable),
    );
    row(
        "tokens",
        format!("{}, up to {}", declared.fence, declared.largest_token),
    );
    row("order of waiters", declared.wait_order.clone());
    row("a dead holder is freed by", declared.crash_release.clone());
    row("lease", ttl(declared.ttl));
    if declared.fixed_ttl.is_some() {
        row("lease that is not renewed", ttl(declared.fixed_ttl));
    }
    row("expiry is late by at most", shown(declared.expiry_slack_ns));
    if let Some(window) = declared.claim_window_ns {
        row("claim window of a hand-off", shown(window));
    }
    row("longest name", format!("{} bytes", declared.name_max));
    row("shared", yes(declared.shared));
    row("permits", yes(declared.permits));
    row("listing", yes(declared.list));
    row("breaking", yes(declared.break_hold));
    text
}

fn shown_range(range: TtlDeclared) -> String {
    let [min, max, step] = [range.min_ns, range.max_ns, range.step_ns].map(shown);
    format!("{min} to {max} in steps of {step}")
}

fn shown(nanos: u64) -> String {
    format!("{:?}", Duration::from_nanos(nanos))
}

fn yes(is: bool) -> String {
    let word = if is { "yes" } else { "no" };
    word.to_owned()
}

fn emphasis(ending: &Ending, word: &str) -> String {
    match ending {
        Ending::Failed(_) => format!("**{word}**"),
        _ => word.to_owned(),
    }
}

/// Text that does not break its table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _ = writeln!(text, "{what}");
}
