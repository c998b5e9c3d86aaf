//! `lockctl conformance`: the suite on whatever a URL names.
//!
//! Only cases that inject no fault can run: nobody breaks somebody else's server. They leave the
//! backend's own locks alone and stay beside them, see [`harness`].

mod harness;
mod listing;

use std::fs;
use std::process::ExitCode;

use distlock::Nonce;
use lock_conformance::worker::worker_entry as suite_worker;
use lock_conformance::{CASES, Case, Need, Tier};
use serde_json::json;

use self::harness::{UrlHarness, WorkerHarness};
use crate::cli::{ConformanceArgs, Format};
use crate::exit::{self, Failure};
use crate::output;

/// Does the work of one of the suite's processes, if this is one.
pub(crate) fn worker_entry() -> Option<ExitCode> {
    suite_worker(&WorkerHarness)
}

pub(crate) fn conformance(
    url: &str,
    format: Format,
    args: &ConformanceArgs,
) -> Result<u8, Failure> {
    let cases = select(args)?;
    if args.list {
        match format {
            Format::Json => output::print_json(&listing::json(&cases))?,
            Format::Text => output::print(&listing::text(&cases))?,
        }
        return Ok(exit::OK);
    }
    if let Some(dir) = &args.report {
        // Before cases run for minutes whose report could not be written.
        let made = fs::create_dir_all(dir);
        made.map_err(|error| Failure::system(&dir.display().to_string(), &error))?;
    }
    let run = Nonce::new().to_string();
    let harness = UrlHarness::new(url, run[..8].to_owned())?;
    let live = format == Format::Text && !args.markdown;
    let tier = if args.full { Tier::Full } else { Tier::Fast };
    let wanted = |case: &Case| cases.iter().any(|wanted| wanted.id == case.id);
    let mut printed = Ok(());
    let report = lock_conformance::run_each(harness, tier, wanted, |result| {
        if live && printed.is_ok() {
            printed = output::print(&format!("{result}\n"));
        }
    });
    printed?;
    if let Some(dir) = &args.report {
        let written = report.write(dir);
        written.map_err(|error| Failure::system(&dir.display().to_string(), &error))?;
    }
    match format {
        _ if args.markdown => output::print(&report.to_markdown())?,
        Format::Json => output::print_json(&json!(report))?,
        Format::Text => output::print(&format!("\n{}", report.summary()))?,
    }
    Ok(output::verdict(report.is_success()))
}

/// The cases that are meant: to run them, they must need no fault.
fn select(args: &ConformanceArgs) -> Result<Vec<&'static Case>, Failure> {
    let cases: Vec<_> = CASES
        .iter()
        .filter(|case| case.title().contains(&args.filter))
        .filter(|case| args.list || args.full || case.tier == Tier::Fast)
        .filter(|case| args.list || !needs_a_fault(case))
        .collect();
    match cases.is_empty() {
        false => Ok(cases),
        true => Err(Failure::usage(format!(
            "no case without a fault has {:?} in its name; see lockctl conformance --list",
            args.filter
        ))),
    }
}

fn needs_a_fault(case: &Case) -> bool {
    case.needs.iter().any(|need| matches!(need, Need::Fault(_)))
}
