//! Running steps: each is named before it begins, timed, and listed at the end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::tally::Tally;

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    done: Vec<Step>,
    tally: Tally,
    started: Instant,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    passed: bool,
}

impl Steps {
    pub(crate) fn new() -> Steps {
        Steps {
            done: Vec::new(),
            tally: Tally::default(),
            started: now(),
        }
    }

    /// Runs a step; an error is said here, so that the caller only has to stop.
    pub(crate) fn run<T>(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut Tally) -> Result<T>,
    ) -> Result<T> {
        println!("\n==> {name}");
        let start = now();
        let result = step(&mut self.tally);
        let took = start.elapsed();
        match &result {
            Ok(_) => println!("<== {name}: ok, {}", seconds(took)),
            Err(error) => println!("<== {name}: FAILED after {}\n{error:#}", seconds(took)),
        }
        self.done.push(Step {
            name: name.to_owned(),
            took,
            passed: result.is_ok(),
        });
        result
    }

    /// Runs one command as a step.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.run(name, |_| run(command))
    }

    /// Prints the table, and last, alone on its line, how many tests passed and failed.
    pub(crate) fn print_summary(&self) {
        println!("\nSummary");
        for step in &self.done {
            let verdict = if step.passed { "ok" } else { "FAILED" };
            println!("  {:<44} {:>9}  {verdict}", step.name, seconds(step.took));
        }
        println!("  {:<44} {:>9}", "total", seconds(self.started.elapsed()));
        println!("{}", self.tally);
    }
}

/// Runs a command, its output going where this tool's goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("    {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| shown(command))?;
    ensure!(status.success(), "{status}: {}", shown(command));
    Ok(())
}

/// Runs a command that runs tests: passes its output on and counts what it says.
pub(crate) fn run_tests(command: &mut Command, tally: &mut Tally) -> Result<()> {
    println!("    {}", shown(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| shown(command))?;
    let output = child.stdout.take().context("the output was piped")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait()?;
    ensure!(status.success(), "{status}: {}", shown(command));
    if tally.passed == 0 {
        bail!("no test ran: {}", shown(command));
    }
    Ok(())
}

/// The command as one could type it, a script among its arguments left out.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        words.push(' ');
        words.push_str(if arg.contains('\n') { "..." } else { &arg });
    }
    words
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "times the steps of a build; no lock depends on it"
)]
fn now() -> Instant {
    Instant::now()
}
