//! Torture bites: it finds a defect that shows only under load, and what it prints plays it again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::BoxStream;
use lock_conformance::torture::{Bad, Torture, Verdict, torture};
use lock_conformance::{Arena, Case, Harness, Missing, Pace, async_trait};
use lock_core::{
    Backend, Capabilities, Claim, Connect, Context, Cursor, Event, FencingToken, Grant, LockName,
    LockState, MemoryStore, Page, Passed, Renewal, Replaced, Result,
};

/// What is wrong with the backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Defect {
    Nothing,
    /// Every thirtieth release frees whoever holds the lock.
    ReleasesOthers,
    /// Every thirtieth wait that is given up stays in the queue.
    LeavesWaiters,
}

#[derive(Debug)]
struct Mutant {
    inner: Arc<dyn Backend>,
    defect: Defect,
    calls: Arc<Mutex<u64>>,
}

impl Mutant {
    /// Whether the defect shows this time.
    fn shows(&self, defect: Defect) -> bool {
        let mut calls = self.calls.lock().expect("not poisoned");
        *calls += 1;
        self.defect == defect && calls.is_multiple_of(30)
    }
}

#[async_trait]
impl Backend for Mutant {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        self.inner.try_acquire(claim).await
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        self.inner.acquire(claim).await
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        self.inner.renew(grants).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let state = self.inner.inspect(&claim.name).await?;
        let waits = state
            .waiters
            .iter()
            .any(|waiter| waiter.nonce == claim.nonce);
        if waits && self.shows(Defect::LeavesWaiters) {
            return Ok(false);
        }
        let done = self.inner.release(claim).await?;
        if self.shows(Defect::ReleasesOthers) {
            for holder in self.inner.inspect(&claim.name).await?.holders {
                self.inner.break_hold(&claim.name, holder.token).await?;
            }
        }
        Ok(done)
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        self.inner.pass(held, next).await
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        self.inner.replace(waiting, next).await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        self.inner.events()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        self.inner.inspect(name).await
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        self.inner.list(prefix, cursor).await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        self.inner.break_hold(name, token).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[derive(Clone, Debug)]
struct MutantHarness(Defect);

#[derive(Debug)]
struct ConnectMutant {
    store: MemoryStore,
    defect: Defect,
    calls: Arc<Mutex<u64>>,
}

#[async_trait]
impl Connect for ConnectMutant {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Mutant {
            inner: self.store.connect(context).await?,
            defect: self.defect,
            calls: Arc::clone(&self.calls),
        }))
    }
}

impl Harness for MutantHarness {
    fn name(&self) -> &str {
        "mutant"
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(200))
    }

    fn arena(&self, _case: &Case) -> std::result::Result<Arena, Missing> {
        let (store, defect) = (MemoryStore::new(), self.0);
        let calls = Arc::default();
        Ok(Arena::new(move || {
            Box::new(ConnectMutant {
                store: store.clone(),
                defect,
                calls: Arc::clone(&calls),
            })
        }))
    }
}

fn run(defect: Defect, options: &Torture) -> (Verdict, String) {
    let mut said = String::new();
    let verdict = torture(Arc::new(MutantHarness(defect)), options, |line| {
        said.push_str(line);
        said.push('\n');
    });
    (verdict, said)
}

/// Tortures until the defect is found, at most for so many rounds.
#[track_caller]
fn found(defect: Defect, seed: u64, rounds: u64) -> Box<Bad> {
    let options = Torture {
        length: Duration::MAX,
        rounds: Some(rounds),
        seed,
    };
    match run(defect, &options) {
        (Verdict::Bad(bad), _) => bad,
        (other, said) => panic!("{other:?}\n{said}"),
    }
}

#[test]
fn torture_finds_a_foreign_release_and_its_seed_plays_the_round_again() {
    let bad = found(Defect::ReleasesOthers, 1, 5);
    let seed = bad.seed.to_string();
    for part in [
        "violated",
        "the least history that shows it:\n",
        &format!("seed {seed}: "),
        &format!("again: LOCK_TORTURE_ROUNDS=1 LOCK_TORTURE_SEED={seed} "),
    ] {
        assert!(bad.report.contains(part), "{part:?} in:\n{}", bad.report);
    }
    let (_, shrunken) = bad.report.split_once("the least history").expect("shown");
    let (shrunken, _) = shrunken.split_once("and what was around").expect("shown");
    let events = shrunken.lines().count() - 1;
    assert!((1..=12).contains(&events), "{}", bad.report);

    let again = found(Defect::ReleasesOthers, bad.seed, 1);
    assert_eq!(again.seed, bad.seed);
    assert_eq!(again.plan, bad.plan);
    assert!(again.plan.is_some());
}

#[test]
fn torture_finds_waiters_that_are_left_behind() {
    let bad = found(Defect::LeavesWaiters, 1, 12);
    let ghost = ["P6 violated", "P7 violated"];
    assert!(
        ghost.iter().any(|part| bad.report.contains(part)),
        "{}",
        bad.report
    );
}

#[test]
fn torture_finds_nothing_where_nothing_is_wrong_and_says_what_it_did() {
    let options = Torture {
        length: Duration::from_secs(3),
        rounds: None,
        seed: 7,
    };
    let (verdict, said) = run(Defect::Nothing, &options);
    let Verdict::Good { rounds } = verdict else {
        panic!("{said}");
    };
    assert!(rounds > 0);
    for part in ["round    1  seed 7 ", "longest wait", "workload", "all "] {
        assert!(said.contains(part), "{part:?} in:\n{said}");
    }
}
