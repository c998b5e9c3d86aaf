//! Runs cases: each on a runtime of its own, with a deadline, and with its history when it fails.

use std::collections::HashMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::{Capabilities, Clock, Context, Identity};

use crate::case::{Case, Failure, Need, Outcome, Tier, Verdict};
use crate::cases::{ENTRIES, Entry};
use crate::harness::{Arena, Harness, Missing};
use crate::history::Recorder;
use crate::stand::Stand;
use crate::torture::{self, Torture};
use crate::worker::worker_entry;

/// How many cases run side by side unless the command line says otherwise. Most of them wait most of
/// the time, so this is not bound to the number of cores.
const THREADS: usize = 4;
/// How much of its history a failed case shows.
const EXCERPT: usize = 40;
/// How long the tasks that a case leaves behind may take to end.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// Makes the `main` of a test target that runs the suite on a harness.
///
/// The target needs `harness = false` in its manifest. See the [crate documentation](crate).
#[macro_export]
macro_rules! main {
    ($harness:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::run_as_test($harness)
        }
    };
}

/// Runs the suite as a test program does: reads its arguments, prints as `cargo test` prints.
///
/// In a worker process it does the worker's work instead.
#[must_use]
pub fn run_as_test(harness: impl Harness) -> ExitCode {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if let Some(code) = worker_entry(&*harness) {
        return code;
    }
    if let Some(torture) = Torture::from_env() {
        return torture::run_as_program(harness, &torture);
    }
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(THREADS);
    let everything = std::env::var("LOCK_TEST_TIER").is_ok_and(|tier| tier == "full");
    let suite = Arc::new(Suite::new(harness));
    let trials = ENTRIES
        .iter()
        .map(|entry| {
            let (suite, case) = (Arc::clone(&suite), &entry.case);
            Trial::ignorable_test(case.title(), move || completion(suite.run(entry)))
                .with_ignored_flag(case.tier == Tier::Full && !everything)
        })
        .collect();
    let selected = args.filter.is_some() || !args.skip.is_empty() || args.list;
    let conclusion = libtest_mimic::run(&args, trials);
    suite.say_deviations();
    if conclusion.num_passed + conclusion.num_failed == 0 && !selected {
        if suite.missing.load(Ordering::Relaxed) {
            say("no case was executed: the server is missing, and that was allowed");
            return ExitCode::SUCCESS;
        }
        say("no case was executed: that proves nothing, and is a failure");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Runs every case whose title contains `filter`, one after the other.
#[must_use]
pub fn run(harness: impl Harness, filter: &str) -> Report {
    let suite = Suite::new(Arc::new(harness));
    let results = ENTRIES
        .iter()
        .filter(|entry| entry.case.title().contains(filter))
        .map(|entry| suite.run(entry))
        .collect();
    Report { results }
}

/// What became of the cases that were run.
#[derive(Clone, Debug)]
pub struct Report {
    /// One entry per case, in the order of [`CASES`](crate::CASES).
    pub results: Vec<CaseResult>,
}

impl Report {
    /// Whether at least one case was executed, and none failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let executed = |result: &CaseResult| matches!(result.ending, Ending::Passed);
        self.failures().next().is_none() && self.results.iter().any(executed)
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseResult> {
        self.results
            .iter()
            .filter(|result| matches!(result.ending, Ending::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.results {
            let title = result.case.title();
            match &result.ending {
                Ending::Passed => writeln!(f, "passed   {title} ({:.1?})", result.took)?,
                Ending::Skipped(why) => writeln!(f, "skipped  {title}: {why}")?,
                Ending::Deviates(why) => writeln!(f, "deviates {title}: {why}")?,
                Ending::Failed(why) => writeln!(f, "FAILED   {title}: {why}")?,
            }
        }
        Ok(())
    }
}

/// What became of one case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The case.
    pub case: Case,
    /// How it ended.
    pub ending: Ending,
    /// How long it took.
    pub took: Duration,
}

/// How a case ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// What must hold held.
    Passed,
    /// It could not be tried, for this reason.
    Skipped(String),
    /// It failed, and the harness had declared that, for this reason.
    Deviates(&'static str),
    /// It failed; what was seen.
    Failed(String),
}

fn completion(result: CaseResult) -> Result<Completion, Failed> {
    match result.ending {
        Ending::Passed => Ok(Completion::Completed),
        Ending::Skipped(why) => Ok(Completion::ignored_with(why)),
        Ending::Deviates(why) => Ok(Completion::ignored_with(format!(
            "declared deviation: {why}"
        ))),
        Ending::Failed(why) => Err(Failed::from(why)),
    }
}

struct Suite {
    harness: Arc<dyn Harness>,
    capabilities: OnceLock<Capabilities>,
    /// Written by a case that must be alone, read by all others.
    machine: RwLock<()>,
    deviating: Mutex<Vec<&'static str>>,
    /// Whether a case was skipped because a server is missing that is allowed to be.
    missing: Arc<AtomicBool>,
}

impl Suite {
    fn new(harness: Arc<dyn Harness>) -> Self {
        remember_panics();
        Self {
            harness,
            capabilities: OnceLock::new(),
            machine: RwLock::new(()),
            deviating: Mutex::default(),
            missing: Arc::default(),
        }
    }

    fn run(&self, entry: &Entry) -> CaseResult {
        let case = &entry.case;
        let (_shared, _alone);
        if case.alone {
            _alone = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _shared = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        }
        let clock = Clock::system();
        let began = clock.now();
        let recorder = Recorder::new();
        let verdict = match self.lacks(case) {
            Some(why) => Ok(Outcome::Skipped(why)),
            None => self.execute(*entry, recorder.clone()),
        };
        let deviation = self
            .harness
            .deviations()
            .iter()
            .find(|deviation| deviation.case == case.id);
        let ending = match (verdict, deviation) {
            (Ok(Outcome::Passed), _) => Ending::Passed,
            (Ok(Outcome::Skipped(why)), _) => Ending::Skipped(why),
            (Err(_), Some(deviation)) => {
                let mut deviating = self
                    .deviating
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                deviating.push(case.id);
                Ending::Deviates(deviation.reason)
            }
            (Err(failure), None) => Ending::Failed(explain(case, &failure, &recorder)),
        };
        CaseResult {
            case: *case,
            ending,
            took: clock.now().saturating_since(began),
        }
    }

    /// What the case cannot run without and the harness does not have, as far as that is known.
    fn lacks(&self, case: &Case) -> Option<String> {
        case.needs.iter().find_map(|need| match need {
            Need::Fault(fault) if !self.harness.supports(*fault) => Some(format!(
                "{} offers no way of {}",
                self.harness.name(),
                fault.describe()
            )),
            Need::Processes if !self.harness.crosses_processes() => Some(format!(
                "{} cannot be reached from another process",
                self.harness.name()
            )),
            Need::Capability(what, has) => {
                let lacking = self.capabilities.get().is_some_and(|caps| !has(caps));
                lacking.then(|| undeclared(self.harness.name(), what))
            }
            _ => None,
        })
    }

    fn execute(&self, entry: Entry, recorder: Recorder) -> Verdict {
        let case = entry.case;
        let (done, outcome) = mpsc::channel();
        let harness = Arc::clone(&self.harness);
        let known = self.capabilities.get().cloned();
        let missing = Arc::clone(&self.missing);
        let thread = thread::Builder::new()
            .name(thread_name(&case))
            .spawn(move || {
                // The suite may have stopped waiting: then this case has failed already.
                let _ = done.send(on_runtime(entry, harness, known, &missing, recorder));
            });
        if let Err(error) = thread {
            return Err(error.into());
        }
        match outcome.recv_timeout(case.deadline) {
            Ok((capabilities, verdict)) => {
                if let Some(capabilities) = capabilities {
                    let _ = self.capabilities.set(capabilities);
                }
                verdict
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Err(Failure::new(format!(
                "it hangs: still running after {:?}",
                case.deadline
            ))),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Failure::new("its thread ended without an answer"))
            }
        }
    }

    fn say_deviations(&self) {
        let deviating = self
            .deviating
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for deviation in self.harness.deviations() {
            let seen = match deviating.contains(&deviation.case) {
                true => "seen in this run",
                false => "not seen in this run",
            };
            say(&format!(
                "declared deviation {}: {} ({seen})",
                deviation.case, deviation.reason
            ));
        }
    }
}

fn undeclared(harness: &str, what: &str) -> String {
    format!("{harness} does not declare {what}")
}

fn thread_name(case: &Case) -> String {
    format!("case {}", case.id)
}

/// Runs the case to its end, and answers the capabilities too if they had to be asked for.
fn on_runtime(
    Entry { case, run }: Entry,
    harness: Arc<dyn Harness>,
    known: Option<Capabilities>,
    missing: &AtomicBool,
    recorder: Recorder,
) -> (Option<Capabilities>, Verdict) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(thread_name(&case))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return (None, Err(error.into())),
    };
    let arena = {
        // A harness may start a proxy on the case's runtime.
        let _entered = runtime.enter();
        panic::catch_unwind(AssertUnwindSafe(|| harness.arena(&case)))
    };
    let mut asked = None;
    let verdict = match arena {
        Err(_) => Err(panicked(&case)),
        Ok(Err(Missing {
            what,
            allowed: true,
        })) => {
            missing.store(true, Ordering::Relaxed);
            Ok(Outcome::Skipped(what))
        }
        Ok(Err(absent)) => Err(Failure::new(absent.to_string())),
        Ok(Ok(arena)) => {
            let work = AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let capabilities = match known {
                        Some(capabilities) => capabilities,
                        None => asked.insert(ask_capabilities(&arena, &case).await?).clone(),
                    };
                    for need in case.needs {
                        if let Need::Capability(what, has) = need
                            && !has(&capabilities)
                        {
                            return Ok(Outcome::Skipped(undeclared(harness.name(), what)));
                        }
                    }
                    let harness = Arc::clone(&harness);
                    let stand = Stand::new(case, harness, arena.clone(), capabilities, recorder);
                    run(stand).await
                })
            });
            panic::catch_unwind(work).unwrap_or_else(|_| Err(panicked(&case)))
        }
    };
    runtime.shutdown_timeout(WIND_DOWN);
    (asked, verdict)
}

pub(crate) async fn ask_capabilities(arena: &Arena, case: &Case) -> Result<Capabilities, Failure> {
    let context = Context::new(Identity::of_this_process(case.id));
    let backend = (arena.connector)().connect(context).await?;
    let capabilities = backend.capabilities();
    backend.close().await?;
    Ok(capabilities)
}

/// What the last panic on a case's threads said.
static PANICS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// Keeps what panics on the threads of cases say, for their reports; all others are shown as ever.
fn remember_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            match thread.name().filter(|name| name.starts_with("case ")) {
                Some(name) => {
                    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                    let panics = panics.get_or_insert_default();
                    panics.insert(name.to_owned(), info.to_string());
                }
                None => usual(info),
            }
        }));
    });
}

fn panicked(case: &Case) -> Failure {
    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    let said = panics
        .as_mut()
        .and_then(|panics| panics.remove(&thread_name(case)));
    Failure::new(said.unwrap_or_else(|| "it panicked".to_owned()))
}

/// A failure as it is reported: what was seen, the end of the history, and how to see it again.
fn explain(case: &Case, failure: &Failure, recorder: &Recorder) -> String {
    let mut text = format!("{}\n{failure}\n", case.title());
    let history = recorder.excerpt(EXCERPT);
    if !history.is_empty() {
        text.push_str("history, on the machine's clock:\n");
        text.push_str(&history);
    }
    text.push_str("again: ");
    if let Some(seed) = failure.seed() {
        text.push_str(&format!("{}={seed} ", crate::workload::SEED));
    }
    text.push_str(&command(case));
    text
}

/// The command that runs just this case again.
fn command(case: &Case) -> String {
    let tier = match case.tier {
        Tier::Fast => "",
        Tier::Full => "LOCK_TEST_TIER=full ",
    };
    let (program, cargo) = this_program();
    let dashes = if cargo { "-- " } else { "" };
    format!("{tier}{program} {dashes}--exact {}", case.title())
}

/// How this program is called, and whether that is by way of Cargo.
pub(crate) fn this_program() -> (String, bool) {
    let program = std::env::args().next().unwrap_or_default();
    match std::env::var("CARGO_PKG_NAME") {
        Ok(package) => {
            let target = target_name(&program);
            (format!("cargo test -p {package} --test {target}"), true)
        }
        Err(_) => (program, false),
    }
}

/// The name of a test target, from the file that Cargo made of it: without the hash.
fn target_name(program: &str) -> &str {
    let file = program.rsplit('/').next().unwrap_or(program);
    match file.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => file,
    }
}

#[expect(clippy::print_stderr, reason = "the end of a test program's report")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_named_without_its_hash() {
        let program = "/t/debug/deps/conformance-0123456789abcdef";
        assert_eq!(target_name(program), "conformance");
        assert_eq!(target_name("lock-ctl"), "lock-ctl");
    }
}
