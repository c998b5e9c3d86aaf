//! A flash sale: few items, many buyers, all at the same moment.
//!
//! ```text
//! cargo run --release --example flash_sale
//! cargo run --release --example flash_sale -- --url redis://127.0.0.1:6379 --processes 4 --buyers 200
//! ```
//!
//! Three acts: without a lock more is sold than there is; with the lock the sale is exact; and a
//! buyer that was paused past its TTL wakes up and writes, which its fencing token prevents.
//!
//! * [`warehouse`] has the stock, and the gate in front of it; [`socket`] brings it to other processes.
//! * [`sale`] is what a buyer does: the code that a service would have. [`paused`] is the third act.
//! * [`stage`] runs buyers here, or in [`workers`], each of them a process that runs [`worker`].
//! * [`args`], [`report`] and [`failure`]: what goes in, what comes out.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: printing is what it is for"
)]

mod args;
mod failure;
mod paused;
mod report;
mod sale;
mod socket;
mod stage;
mod warehouse;
mod wire;
mod worker;
mod workers;

use std::process::ExitCode;
use std::sync::Arc;

use distlock::Clock;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::failure::Failure;
use crate::report::{Report, Row};
use crate::sale::Sale;
use crate::stage::Stage;
use crate::warehouse::Shelf;

fn main() -> ExitCode {
    let outcome = Args::read().and_then(|args| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        if args.worker {
            return runtime.block_on(worker::run()).map(|()| true);
        }
        runtime.block_on(until_interrupted(args))
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("flash_sale: {failure}");
            failure.exit_code()
        }
    }
}

/// Runs the sales; a signal drops everything that is going on, and with it the worker processes.
async fn until_interrupted(args: Args) -> Result<bool, Failure> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let by = tokio::select! {
        outcome = run(&args) => return outcome,
        _ = hangup.recv() => Signal::SIGHUP,
        _ = interrupt.recv() => Signal::SIGINT,
        _ = terminate.recv() => Signal::SIGTERM,
    };
    Err(Failure::interrupted(by))
}

async fn run(args: &Args) -> Result<bool, Failure> {
    let shelf = Arc::new(Shelf::default());
    let mut stage = Stage::set(args, &shelf).await?;
    let mut report = Report::new(stage.backend(), args);
    let say = |text: String| {
        if !args.json {
            println!("{text}");
        }
    };

    say(report.title());
    for (locked, act) in [(false, report::WITHOUT), (true, report::WITH)] {
        say(format!("\n{act}"));
        for &buyers in &args.buyers {
            let row = hold_sale(&mut stage, &shelf, Sale { buyers, locked }, args).await?;
            say(row.sentence());
            report.rows.push(row);
        }
    }
    say(format!("\n{}", report::PAUSED));
    shelf.restock(2);
    let paused = stage.paused_buyer().await?;
    say(paused.sentence());
    report.paused = Some(paused);
    stage.clear().await?;

    if args.json {
        println!("{}", report.json());
    } else {
        println!("\n{}", report.table());
        println!("{}", report.verdict());
    }
    Ok(report.is_good())
}

async fn hold_sale(
    stage: &mut Stage,
    shelf: &Shelf,
    sale: Sale,
    args: &Args,
) -> Result<Row, Failure> {
    shelf.restock(args.stock_for(sale.buyers));
    let clock = Clock::system();
    let opening = clock.now();
    let tally = stage.sale(sale).await?;
    let took = clock.now().saturating_since(opening);
    Ok(Row::new(sale, &tally, shelf.count(), took))
}
