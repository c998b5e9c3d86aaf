//! Runs cases: each on a runtime of its own, with a deadline, and with its history when it fails.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::{Capabilities, Clock};

use crate::case::{Case, Failure, Need, Outcome, Tier, Verdict};
use crate::cases::{CASES, ENTRIES, Entry};
use crate::environment;
use crate::harness::{Harness, Missing};
use crate::history::Recorder;
use crate::panics;
use crate::program::this_program;
use crate::report::{CaseResult, Declared, DeclaredDeviation, Ending, Report, SUITE_VERSION, word};
use crate::stand::Stand;
use crate::torture::{self, Torture};
use crate::worker::worker_entry;
use crate::workload;

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

/// Runs the suite as a test program does: reads its arguments, prints as `cargo test` prints, and
/// writes a [report](crate::report) into the directory that `LOCK_TEST_REPORT` names.
///
/// In a worker process it does the worker's work instead.
#[must_use]
pub fn run_as_test(harness: impl Harness) -> ExitCode {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if let Some(code) = worker_entry(&*harness) {
        return code;
    }
    let tier = match (Torture::from_env(), workload::seed(), tier()) {
        (Err(wrong), ..) | (_, Err(wrong), _) | (.., Err(wrong)) => {
            say(&wrong);
            return ExitCode::FAILURE;
        }
        (Ok(Some(torture)), ..) => return torture::run_as_program(harness, &torture),
        (Ok(None), Ok(_), Ok(tier)) => tier,
    };
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(harness.side_by_side());
    let suite = Arc::new(Suite::new(harness));
    let mut entries: Vec<_> = ENTRIES.iter().collect();
    // Those that must be alone come first: each waits for all that run, and keeps all others waiting.
    entries.sort_by_key(|entry| !entry.case.alone);
    let cases = entries.into_iter().map(|entry| {
        let (suite, case) = (Arc::clone(&suite), &entry.case);
        let run = move || completion(suite.keep(suite.run(entry)));
        Trial::ignorable_test(case.title(), run).with_ignored_flag(!tier.includes(case.tier))
    });
    let of_no_case = suite.deviations_of_no_case().map(|result| {
        let suite = Arc::clone(&suite);
        let title = format!("{}::{}", result.id, result.name);
        Trial::ignorable_test(title, move || completion(suite.keep(result)))
    });
    let trials = cases.chain(of_no_case).collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if args.list {
        return ExitCode::SUCCESS;
    }
    let elsewhere = panics::elsewhere();
    if elsewhere > 0 {
        let case = Case::base("R0.01", "no_thread_of_a_client_panics");
        let what = format!(
            "{elsewhere} panics on threads of no case, such as those of clients; they are shown above"
        );
        say(&what);
        let ending = Ending::Failed(what);
        suite.keep(CaseResult::new(&case, ending, Duration::ZERO));
    }
    let report = suite.report(tier);
    say(report.summary().trim_end());
    if let Some(dir) = std::env::var_os("LOCK_TEST_REPORT")
        && let Err(error) = report.write(Path::new(&dir))
    {
        say(&format!("the report cannot be written to {dir:?}: {error}"));
        return ExitCode::FAILURE;
    }
    if elsewhere > 0 {
        return ExitCode::FAILURE;
    }
    let selected = args.filter.is_some() || !args.skip.is_empty();
    if conclusion.num_passed + conclusion.num_failed == 0 && !selected {
        if report.totals().missing > 0 {
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
    run_each(
        harness,
        Tier::Fast,
        |case| case.title().contains(filter),
        |_| {},
    )
}

/// Runs the cases that are `wanted`, one after the other, and shows each result as soon as there is
/// one. The report calls itself complete when it has every case of the tier.
#[must_use]
pub fn run_each(
    harness: impl Harness,
    tier: Tier,
    wanted: impl Fn(&Case) -> bool,
    mut seen: impl FnMut(&CaseResult),
) -> Report {
    let suite = Suite::new(Arc::new(harness));
    for result in suite.deviations_of_no_case() {
        seen(&suite.keep(result));
    }
    for entry in ENTRIES.iter().filter(|entry| wanted(&entry.case)) {
        let elsewhere = panics::elsewhere();
        let mut result = suite.run(entry);
        if panics::elsewhere() > elsewhere && result.ending == Ending::Passed {
            let what = "a thread of a client panicked; what it said is shown above";
            result.ending = Ending::Failed(what.to_owned());
        }
        seen(&suite.keep(result));
    }
    suite.report(tier)
}

/// The tier that `LOCK_TEST_TIER` asks for.
fn tier() -> Result<Tier, String> {
    let tier = environment::option("LOCK_TEST_TIER", "fast or full", |text| match text {
        "fast" => Some(Tier::Fast),
        "full" => Some(Tier::Full),
        _ => None,
    });
    Ok(tier?.unwrap_or(Tier::Fast))
}

fn completion(result: CaseResult) -> Result<Completion, Failed> {
    match result.ending {
        Ending::Passed => Ok(Completion::Completed),
        Ending::Skipped(why) | Ending::Missing(why) => Ok(Completion::ignored_with(why)),
        Ending::Deviates(why) => Ok(Completion::ignored_with(format!(
            "declared deviation: {why}"
        ))),
        Ending::Failed(why) => Err(Failed::from(why)),
    }
}

/// What became of trying a case that did not fail.
enum Attempt {
    /// It was tried.
    Made(Outcome),
    /// A server is missing that is allowed to be.
    Missing(String),
}

struct Suite {
    harness: Arc<dyn Harness>,
    capabilities: OnceLock<Capabilities>,
    /// Written by a case that must be alone, read by all others.
    machine: RwLock<()>,
    results: Mutex<Vec<CaseResult>>,
}

impl Suite {
    fn new(harness: Arc<dyn Harness>) -> Self {
        panics::remember();
        Self {
            harness,
            capabilities: OnceLock::new(),
            machine: RwLock::new(()),
            results: Mutex::default(),
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
            Some(why) => Ok(Attempt::Made(Outcome::Skipped(why))),
            None => self.execute(*entry, recorder.clone()),
        };
        let deviation = self
            .harness
            .deviations()
            .iter()
            .find(|deviation| deviation.case == case.id);
        let ending = match (verdict, deviation) {
            (Ok(Attempt::Made(Outcome::Passed)), _) => Ending::Passed,
            (Ok(Attempt::Made(Outcome::Skipped(why))), _) => Ending::Skipped(why),
            (Ok(Attempt::Missing(what)), _) => Ending::Missing(what),
            (Err(failure), Some(deviation)) if failure.is_verdict() => {
                Ending::Deviates(deviation.reason.to_owned())
            }
            (Err(failure), _) => {
                let again = self.harness.again(case).unwrap_or_else(|| command(case));
                Ending::Failed(explain(case, &failure, &recorder, &again))
            }
        };
        let took = clock.now().saturating_since(began);
        CaseResult::new(case, ending, took)
    }

    /// Puts the result into the report.
    fn keep(&self, result: CaseResult) -> CaseResult {
        self.results().push(result.clone());
        result
    }

    /// A failure for every declared deviation that is of no case: what it is to excuse, nobody knows.
    fn deviations_of_no_case(&self) -> impl Iterator<Item = CaseResult> {
        let declared = self.harness.deviations().iter();
        let of_no_case =
            declared.filter(|deviation| CASES.iter().all(|case| case.id != deviation.case));
        of_no_case.map(|deviation| {
            let case = Case::base(deviation.case, "declared_deviation_is_of_a_case");
            let ending = Ending::Failed("the suite has no such case".to_owned());
            CaseResult::new(&case, ending, Duration::ZERO)
        })
    }

    fn results(&self) -> MutexGuard<'_, Vec<CaseResult>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been found out so far.
    fn report(&self, tier: Tier) -> Report {
        let mut results = self.results().clone();
        results.sort_by_key(|result| CASES.iter().position(|case| case.id == result.id));
        let mut of_tier = CASES.iter().filter(|case| tier.includes(case.tier));
        let complete = of_tier.all(|case| results.iter().any(|result| result.id == case.id));
        let declared = self.harness.deviations().iter();
        let deviations = declared.map(|deviation| DeclaredDeviation {
            case: deviation.case.to_owned(),
            reason: deviation.reason.to_owned(),
            seen: results.iter().any(|result| {
                result.id == deviation.case && matches!(result.ending, Ending::Deviates(_))
            }),
        });
        Report {
            suite: SUITE_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: self.harness.name().to_owned(),
            tier,
            complete,
            capabilities: self.capabilities.get().map(Declared::from),
            faults: self.faults(),
            processes: self.harness.crosses_processes(),
            deviations: deviations.collect(),
            results,
        }
    }

    /// The faults that cases ask for and the harness has.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for need in CASES.iter().flat_map(|case| case.needs) {
            if let Need::Fault(fault) = need
                && self.harness.supports(*fault)
            {
                faults.push(word(fault));
            }
        }
        faults.sort_unstable();
        faults.dedup();
        faults
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

    fn execute(&self, entry: Entry, recorder: Recorder) -> Result<Attempt, Failure> {
        let case = entry.case;
        let (done, outcome) = mpsc::channel();
        let harness = Arc::clone(&self.harness);
        let known = self.capabilities.get().cloned();
        let name = panics::thread_name(case.id);
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            // The suite may have stopped waiting: then this case has failed already.
            let _ = done.send(on_runtime(entry, &name, harness, known, recorder));
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
            Err(mpsc::RecvTimeoutError::Timeout) => Err(Failure::no_verdict(format!(
                "it hangs: still running after {:?}",
                case.deadline
            ))),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Failure::no_verdict("its thread ended without an answer"))
            }
        }
    }
}

fn undeclared(harness: &str, what: &str) -> String {
    format!("{harness} does not declare {what}")
}

/// Runs the case to its end, and answers the capabilities too if they had to be asked for.
fn on_runtime(
    Entry { case, run }: Entry,
    thread: &str,
    harness: Arc<dyn Harness>,
    known: Option<Capabilities>,
    recorder: Recorder,
) -> (Option<Capabilities>, Result<Attempt, Failure>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(thread)
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
        Err(_) => Err(panicked(thread)),
        Ok(Err(Missing {
            what,
            allowed: true,
        })) => Ok(Attempt::Missing(what)),
        Ok(Err(absent)) => Err(Failure::no_verdict(absent.to_string())),
        Ok(Ok(arena)) => {
            let work = AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let capabilities = match known {
                        Some(capabilities) => capabilities,
                        None => asked.insert(arena.capabilities(&case).await?).clone(),
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
            let verdict: Verdict =
                panic::catch_unwind(work).unwrap_or_else(|_| Err(panicked(thread)));
            verdict.map(Attempt::Made)
        }
    };
    runtime.shutdown_timeout(WIND_DOWN);
    let verdict = match (verdict, panics::take(thread)) {
        // Nobody waited for that task: what it should have done did not show.
        (Ok(_), Some(said)) => Err(Failure::no_verdict(format!("in the background, {said}"))),
        (verdict, _) => verdict,
    };
    (asked, verdict)
}

fn panicked(thread: &str) -> Failure {
    Failure::no_verdict(panics::take(thread).unwrap_or_else(|| "it panicked".to_owned()))
}

/// A failure as it is reported: what was seen, the end of the history, and how to see it again.
fn explain(case: &Case, failure: &Failure, recorder: &Recorder, again: &str) -> String {
    let mut text = format!("{}\n{failure}\n", case.title());
    let history = recorder.excerpt(EXCERPT);
    if !history.is_empty() {
        text.push_str("history, on the machine's clock:\n");
        text.push_str(&history);
    }
    text.push_str("again: ");
    if let Some(seed) = recorder.seed() {
        text.push_str(&format!("{}={seed} ", crate::workload::SEED));
    }
    text.push_str(again);
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

#[expect(clippy::print_stderr, reason = "the end of a test program's report")]
fn say(text: &str) {
    eprintln!("{text}");
}
