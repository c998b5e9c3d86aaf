//! `lockctl conformance`: the suite on whatever a URL names.
//!
//! Only cases that inject no fault can run: nobody breaks somebody else's server. They leave the
//! backend's own locks alone and stay beside them, see [`harness`].

mod harness;
mod report;

use std::process::ExitCode;

use distlock::Nonce;
use lock_conformance::worker::worker_entry as suite_worker;
use lock_conformance::{CASES, Case, Need, Report, Tier};

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
            Format::Json => output::print_json(&report::list_json(&cases))?,
            Format::Text => output::print(&report::list_text(&cases))?,
        }
        return Ok(exit::OK);
    }
    let run = Nonce::new().to_string();
    let harness = UrlHarness::new(url, run[..8].to_owned())?;
    let live = format == Format::Text && !args.markdown;
    let mut report = Report {
        results: Vec::new(),
    };
    for case in cases {
        // One at a time, so that each is shown when it has ended.
        for result in lock_conformance::run(harness.clone(), &case.title()).results {
            if live {
                output::print(&report::line(&result))?;
            }
            report.results.push(result);
        }
    }
    let backend = lock_conformance::Harness::name(&harness);
    if args.markdown {
        output::print(&report::markdown(backend, &report))?;
    } else if format == Format::Json {
        output::print_json(&report::json(backend, &report))?;
    } else {
        output::print(&format!("\n{backend}: {}\n", report::summary(&report)))?;
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
