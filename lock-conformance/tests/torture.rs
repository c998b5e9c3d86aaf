//! Torture bites: it finds a defect that shows only under load, and what it prints plays it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::BoxStream;
use lock_conformance::torture::{Bad, Torture, Verdict, torture};
use lock_conformance::{Arena, Case, Fault, Faults, Harness, Missing, Pace, async_trait};
use lock_core::{
    Backend, Capabilities, Claim, Clock, Connect, Context, Cursor, Error, ErrorKind, Event,
    FencingToken, Grant, LockName, LockState, MemoryStore, Page, Passed, Renewal, Replaced, Result,
    Validity,
};

/// What is wrong with the backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Defect {
    Nothing,
    /// Every thirtieth release frees whoever holds the lock.
    ReleasesOthers,
    /// Holders are told a validity that is longer than their lease.
    PromisesTooMuch,
    /// Clients that there are when something is broken find nobody ever after.
    StaysAway,
}

/// The one thing that can be broken: for those who stay away from then on.
#[derive(Debug, Default)]
struct Outage(AtomicU64);

#[async_trait]
impl Faults for Outage {
    async fn flush_scripts(&self) -> std::io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug)]
struct Mutant {
    inner: Arc<dyn Backend>,
    clock: Clock,
    defect: Defect,
    releases: Arc<Mutex<u64>>,
    outage: Arc<Outage>,
    /// How many outages there had been when it was connected.
    born: u64,
}

impl Mutant {
    fn is_there(&self) -> Result<()> {
        let stays = self.outage.0.load(Ordering::SeqCst) > self.born;
        match stays && self.defect == Defect::StaysAway {
            true => Err(Error::new(ErrorKind::Unavailable, "acquire")),
            false => Ok(()),
        }
    }

    /// Whether this release frees others as well.
    fn releases_others(&self) -> bool {
        let mut releases = self.releases.lock().expect("not poisoned");
        *releases += 1;
        self.defect == Defect::ReleasesOthers && releases.is_multiple_of(30)
    }

    /// What the client is told of a grant.
    fn told(&self, grant: Grant) -> Grant {
        if self.defect != Defect::PromisesTooMuch {
            return grant;
        }
        let (now, claim) = (self.clock.now(), grant.claim().clone());
        let validity = Validity::new(now, now, claim.ttl * 3 / 2);
        Grant::new(&claim, grant.token(), validity)
    }
}

#[async_trait]
impl Backend for Mutant {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        self.is_there()?;
        let grant = self.inner.try_acquire(claim).await?;
        Ok(grant.map(|grant| self.told(grant)))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        self.is_there()?;
        Ok(self.told(self.inner.acquire(claim).await?))
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        self.inner.renew(grants).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let done = self.inner.release(claim).await?;
        if self.releases_others() {
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
    releases: Arc<Mutex<u64>>,
    outage: Arc<Outage>,
}

#[async_trait]
impl Connect for ConnectMutant {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        let clock = context.clock.clone();
        Ok(Arc::new(Mutant {
            clock,
            inner: self.store.connect(context).await?,
            defect: self.defect,
            releases: Arc::clone(&self.releases),
            outage: Arc::clone(&self.outage),
            born: self.outage.0.load(Ordering::SeqCst),
        }))
    }
}

impl Harness for MutantHarness {
    fn name(&self) -> &str {
        "mutant"
    }

    fn pace(&self) -> Pace {
        Pace {
            op_timeout: Duration::from_millis(500),
            ..Pace::new(Duration::from_millis(200))
        }
    }

    fn supports(&self, fault: Fault) -> bool {
        fault == Fault::FlushScripts
    }

    fn arena(&self, _case: &Case) -> std::result::Result<Arena, Missing> {
        let (store, defect) = (MemoryStore::new(), self.0);
        let releases = Arc::default();
        let outage = Arc::<Outage>::default();
        let faults = Arc::clone(&outage);
        let arena = Arena::new(move || {
            Box::new(ConnectMutant {
                store: store.clone(),
                defect,
                releases: Arc::clone(&releases),
                outage: Arc::clone(&outage),
            })
        });
        Ok(arena.with_faults(faults))
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
    // Two or three operations, with all that was seen of them; the round had thousands of events.
    assert!((1..=24).contains(&events), "{}", bad.report);

    let again = found(Defect::ReleasesOthers, bad.seed, 1);
    assert_eq!(again.seed, bad.seed);
    assert_eq!(again.plan, bad.plan);
    assert!(again.plan.is_some());
}

#[test]
fn torture_finds_a_validity_that_outlives_the_lease() {
    let bad = found(Defect::PromisesTooMuch, 1, 20);
    let told = ["P3 violated", "P5 violated", "P9 violated"];
    let told = told.iter().any(|part| bad.report.contains(part));
    assert!(told, "{}", bad.report);
}

#[test]
fn torture_finds_clients_that_do_not_come_back_after_an_outage() {
    let bad = found(Defect::StaysAway, 1, 20);
    let told = ["P7 violated", "R9 violated"];
    let told = told.iter().any(|part| bad.report.contains(part));
    assert!(told, "{}", bad.report);
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
