//! The suite has teeth: backends that are broken in one way each, and the case that finds it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use lock_conformance::{Arena, Case, Harness, Missing, Pace, async_trait, run};
use lock_core::{
    Backend, Capabilities, Claim, Clock, Connect, Context, Cursor, Error, ErrorKind, Event,
    FencingToken, Grant, LockName, LockState, MemoryStore, Mode, Page, Passed, Renewal, Replaced,
    Result, Standing, Validity,
};

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Defect {
    Nothing,
    GrantsWhatIsHeld,
    OvertakesTheQueue,
    ReusesTokens,
    IgnoresTheFenceBase,
    CountsValidityFromTheReply,
    ExpiresEarly,
    NeverExpires,
    TellsNobodyOfABreak,
    BreaksWhateverTheToken,
    ReleasesWhateverTheNonce,
    RenewsWhatIsGone,
    JudgesABatchAsOne,
    LeavesDroppedWaiters,
    SaysBusyByAnError,
    FoldsNames,
    CutsNames,
    ServesUndeclaredModes,
    ListsByPattern,
    ShowsTheQueueBackwards,
}

/// The memory backend with a defect in front of it.
#[derive(Debug)]
struct Mutant {
    inner: Arc<dyn Backend>,
    defect: Defect,
    clock: Clock,
}

impl Mutant {
    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// What the inner backend is asked for instead.
    fn bent(&self, claim: &Claim) -> Claim {
        let mut claim = claim.clone();
        claim.name = self.bent_name(&claim.name);
        if self.has(Defect::ServesUndeclaredModes) {
            claim.mode = Mode::Exclusive;
        }
        if self.has(Defect::ExpiresEarly) {
            claim.ttl = claim.ttl * 3 / 4;
        }
        if self.has(Defect::NeverExpires) {
            claim.ttl = Duration::from_secs(3600);
        }
        claim
    }

    fn bent_name(&self, name: &LockName) -> LockName {
        let text = match self.defect {
            Defect::FoldsNames => name.as_str().to_lowercase(),
            Defect::CutsNames => name.as_str().chars().take(255).collect(),
            _ => return name.clone(),
        };
        LockName::new(&text).expect("a shorter or lower name is a name")
    }

    /// What the client is told of a grant.
    async fn told(&self, claim: &Claim, grant: Grant) -> Grant {
        let token = match self.defect {
            Defect::ReusesTokens => FencingToken::new(7).expect("a token"),
            Defect::IgnoresTheFenceBase => {
                let low = grant.token().get() % (1 << 32) + 1;
                FencingToken::new(low).expect("a token")
            }
            _ => grant.token(),
        };
        let validity = match self.defect {
            Defect::CountsValidityFromTheReply => {
                // A slow network between the server's decision and the reply's arrival.
                self.clock.sleep(Duration::from_millis(100)).await;
                let now = self.clock.now();
                Validity::new(now, now, claim.ttl)
            }
            Defect::ExpiresEarly | Defect::NeverExpires => {
                let now = self.clock.now();
                Validity::new(now, now, claim.ttl)
            }
            _ => grant.validity(),
        };
        Grant::new(claim, token, validity)
    }

    async fn told_standing(&self, claim: &Claim, standing: Standing) -> Standing {
        match standing {
            Standing::Granted(grant) => Standing::Granted(self.told(claim, grant).await),
            queued => queued,
        }
    }
}

#[async_trait]
impl Backend for Mutant {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        if self.has(Defect::GrantsWhatIsHeld) {
            let state = self.inner.inspect(&claim.name).await?;
            if let Some(last) = state.last_token {
                let token = FencingToken::new(last.get() + 1).expect("a token");
                let now = self.clock.now();
                let validity = Validity::new(now, now, claim.ttl);
                return Ok(Some(Grant::new(claim, token, validity)));
            }
        }
        if self.has(Defect::OvertakesTheQueue) {
            let state = self.inner.inspect(&claim.name).await?;
            if let [holder] = &state.holders[..]
                && holder.age < Duration::from_millis(20)
            {
                // Somebody who has just been served is thrown out.
                self.inner.break_hold(&claim.name, holder.token).await?;
            }
        }
        let grant = self.inner.try_acquire(&self.bent(claim)).await?;
        match grant {
            Some(grant) => Ok(Some(self.told(claim, grant).await)),
            None if self.has(Defect::SaysBusyByAnError) => {
                Err(Error::new(ErrorKind::Unavailable, "acquire"))
            }
            None => Ok(None),
        }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        let grant = self.inner.acquire(&self.bent(claim)).await?;
        Ok(self.told(claim, grant).await)
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let bent: Vec<Grant> = grants
            .iter()
            .map(|grant| Grant::new(&self.bent(grant.claim()), grant.token(), grant.validity()))
            .collect();
        let refs: Vec<&Grant> = bent.iter().collect();
        let mut answers = self.inner.renew(&refs).await;
        let gone = |answer: &Result<Renewal>| matches!(answer, Ok(Renewal::Gone));
        if self.has(Defect::RenewsWhatIsGone) {
            for (grant, answer) in grants.iter().zip(&mut answers) {
                if gone(answer) {
                    let again = Claim::new(
                        grant.claim().name.clone(),
                        grant.claim().identity.clone(),
                        grant.claim().ttl,
                    );
                    if let Ok(Some(new)) = self.inner.try_acquire(&again).await {
                        *answer = Ok(Renewal::Extended(new.validity()));
                    }
                }
            }
        }
        if self.has(Defect::JudgesABatchAsOne) && answers.iter().any(gone) {
            answers = grants.iter().map(|_| Ok(Renewal::Gone)).collect();
        }
        answers
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        if self.has(Defect::ReleasesWhateverTheNonce) {
            let state = self.inner.inspect(&claim.name).await?;
            for holder in state.holders {
                self.inner.break_hold(&claim.name, holder.token).await?;
            }
        }
        if self.has(Defect::LeavesDroppedWaiters) {
            let state = self.inner.inspect(&claim.name).await?;
            if state
                .waiters
                .iter()
                .any(|waiter| waiter.nonce == claim.nonce)
            {
                return Ok(false);
            }
        }
        self.inner.release(&self.bent(claim)).await
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        let Passed {
            released,
            next: standing,
        } = self.inner.pass(&self.bent(held), &self.bent(next)).await?;
        Ok(Passed {
            released,
            next: self.told_standing(next, standing).await,
        })
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let (waiting, bent) = (self.bent(waiting), self.bent(next));
        Ok(match self.inner.replace(&waiting, &bent).await? {
            Replaced::Now(standing) => Replaced::Now(self.told_standing(next, standing).await),
            Replaced::Gone => Replaced::Gone,
        })
    }

    fn events(&self) -> BoxStream<'static, Event> {
        match self.defect {
            // Told of the end by the backend, a holder does not need its own clock.
            Defect::TellsNobodyOfABreak | Defect::ExpiresEarly => {
                futures_util::stream::pending().boxed()
            }
            _ => self.inner.events(),
        }
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        let mut state = self.inner.inspect(&self.bent_name(name)).await?;
        state.name = name.clone();
        if self.has(Defect::ShowsTheQueueBackwards) {
            state.waiters.reverse();
        }
        Ok(state)
    }

    async fn list(&self, prefix: &str, cursor: Cursor) -> Result<Page> {
        let prefix = match self.defect {
            Defect::ListsByPattern => prefix.trim_end_matches('*'),
            _ => prefix,
        };
        self.inner.list(prefix, cursor).await
    }

    async fn break_hold(&self, name: &LockName, token: FencingToken) -> Result<bool> {
        if self.has(Defect::BreaksWhateverTheToken) {
            let state = self.inner.inspect(name).await?;
            let Some(holder) = state.holders.first() else {
                return Ok(false);
            };
            return self.inner.break_hold(name, holder.token).await;
        }
        self.inner.break_hold(name, token).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[derive(Clone, Debug)]
struct MutantHarness(Defect);

#[derive(Debug)]
struct ConnectMutant(MemoryStore, Defect);

#[async_trait]
impl Connect for ConnectMutant {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        let clock = context.clock.clone();
        Ok(Arc::new(Mutant {
            inner: self.0.connect(context).await?,
            defect: self.1,
            clock,
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
        Ok(Arena::new(move || {
            Box::new(ConnectMutant(store.clone(), defect))
        }))
    }
}

/// The case must fail on the mutant, and pass without the defect.
#[track_caller]
fn finds(defect: Defect, case: &str) {
    let healthy = run(MutantHarness(Defect::Nothing), &format!("{case}::"));
    assert!(healthy.is_success(), "without the defect:\n{healthy}");
    let broken = run(MutantHarness(defect), &format!("{case}::"));
    assert_eq!(
        broken.failures().count(),
        1,
        "{case} does not find {defect:?}:\n{broken}"
    );
}

macro_rules! found {
    ($($test:ident: $defect:ident by $case:literal;)*) => {
        $(
            #[test]
            fn $test() {
                finds(Defect::$defect, $case);
            }
        )*
    };
}

found! {
    backend_that_grants_what_is_held_is_found: GrantsWhatIsHeld by "R1.01";
    backend_that_reuses_tokens_is_found: ReusesTokens by "R2.01";
    backend_that_reuses_tokens_is_found_in_the_history: ReusesTokens by "R2.08";
    backend_that_ignores_the_fence_base_is_found: IgnoresTheFenceBase by "R2.07";
    backend_that_counts_validity_from_the_reply_is_found: CountsValidityFromTheReply by "R3.01";
    backend_whose_leases_end_early_is_found_by_its_holder: ExpiresEarly by "R4.01";
    backend_whose_leases_end_early_is_found_by_its_ttl: ExpiresEarly by "R6.03";
    backend_whose_leases_never_end_is_found: NeverExpires by "R6.01";
    backend_that_tells_nobody_of_a_break_is_found: TellsNobodyOfABreak by "R4.04";
    backend_that_breaks_whatever_the_token_is_found: BreaksWhateverTheToken by "R4.05";
    backend_that_releases_whatever_the_nonce_is_found: ReleasesWhateverTheNonce by "R5.03";
    backend_that_renews_what_is_gone_is_found: RenewsWhatIsGone by "R5.05";
    backend_that_judges_a_batch_as_one_is_found: JudgesABatchAsOne by "R5.07";
    backend_that_overtakes_the_queue_is_found: OvertakesTheQueue by "R7.04";
    backend_that_shows_the_queue_backwards_is_found: ShowsTheQueueBackwards by "R7.11";
    backend_that_leaves_dropped_waiters_is_found: LeavesDroppedWaiters by "R8.04";
    backend_that_says_busy_by_an_error_is_found: SaysBusyByAnError by "R9.01";
    backend_that_folds_names_is_found: FoldsNames by "R10.01";
    backend_that_cuts_names_is_found: CutsNames by "R10.04";
    backend_that_lists_by_pattern_is_found: ListsByPattern by "R10.11";
    backend_that_serves_undeclared_modes_is_found: ServesUndeclaredModes by "R11.04";
}

#[test]
fn run_without_a_case_is_no_success() {
    let report = run(MutantHarness(Defect::Nothing), "no case is called this");
    assert!(report.results.is_empty());
    assert!(!report.is_success());
}

#[test]
fn run_of_nothing_but_skipped_cases_is_no_success() {
    let report = run(MutantHarness(Defect::Nothing), "R1.05::");
    assert_eq!(report.results.len(), 1);
    assert!(!report.is_success(), "{report}");
    assert!(report.to_string().contains("another process"), "{report}");
}

#[test]
fn failure_shows_what_was_seen_and_how_to_see_it_again() {
    let report = run(MutantHarness(Defect::ReusesTokens), "R2.01::");
    let text = report.to_string();
    for part in [
        "tokens grow: seen",
        "granted 7",
        "--exact R2.01::tokens_grow",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
