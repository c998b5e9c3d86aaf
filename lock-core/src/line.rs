//! Everything one client does about one name, in order: the local queue.
//!
//! A line is a task that exists while its client wants or holds the name. At most one of the
//! client's acquisitions stands in the backend at a time, as holder or as waiter; the others stand
//! in line here, in the order in which they came, and cost the backend nothing. A release with
//! others in line becomes one [`pass`](crate::Backend::pass), a cancelled waiter with others behind
//! it one [`replace`](crate::Backend::replace).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::claim::{Claim, Lease, Reach};
use crate::clock::BootInstant;
use crate::error::{Error, ErrorKind, Result};
use crate::grant::{Grant, Renewal, Replaced, Standing};
use crate::hold::Hold;
use crate::lease::LossReason;
use crate::message::{Level, Message, Released, Waiter};
use crate::name::LockName;
use crate::queue::{Entry, LocalQueue};
use crate::reaper;
use crate::shared::{NewLine, Shared};
#[cfg(test)]
use crate::simulation::{Sabotage, broken};

/// Between two attempts of one request whose connection broke.
const PAUSE: Duration = Duration::from_millis(20);
/// An acquire that fails again and again does not ask more often than this in the end.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The waiter whose turn it is while the line is busy with its claim, and what it is told if its
/// time is up before that.
struct Late<'a> {
    waiter: Option<&'a mut Waiter>,
    limit: Option<BootInstant>,
    /// `None` for "busy".
    error: Option<Error>,
}

impl Late<'_> {
    fn nobody() -> Self {
        Self {
            waiter: None,
            limit: None,
            error: None,
        }
    }

    fn answer(&mut self, error: Option<Error>) {
        self.limit = None;
        if let Some(waiter) = self.waiter.take() {
            waiter.answer_early(error.map_or(Ok(None), Err));
        }
    }
}

pub(crate) struct Line {
    shared: Arc<Shared>,
    name: LockName,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// For the levels of holds, to be given back by.
    outbox: mpsc::UnboundedSender<Message>,
    parked: LocalQueue<Box<Waiter>>,
    closing: bool,
    /// Since when the backend's silence counts: when it was last known to work for this line, or
    /// this line last began to ask after a time in which it had nothing to ask for.
    contact: Option<BootInstant>,
    /// What is held, so that a panic in here ends it instead of leaving it to the keeper for ever.
    current: Option<Arc<Hold>>,
    /// What the backend has been asked for, and what it has been asked to take back, so that a panic
    /// in here leaves no ghost.
    asked: Option<Claim>,
    given_up: Option<Claim>,
}

/// A waiter whose turn it is, and how it stands in the backend.
struct Turn {
    waiter: Box<Waiter>,
    claim: Claim,
    standing: Option<Standing>,
}

impl Turn {
    /// The turn of a waiter whose claim the backend has already put somewhere.
    fn placed(waiter: Box<Waiter>, claim: Claim, standing: Standing) -> Self {
        if matches!(standing, Standing::Queued) {
            claim.progress.report(Reach::Queued);
        }
        Self {
            waiter,
            claim,
            standing: Some(standing),
        }
    }
}

/// How standing in the backend's queue ended.
enum Stood {
    Granted(Grant),
    Failed(Error),
    /// Its caller has gone.
    Withdrawn,
    /// Its caller's time is up.
    DeadlinePassed,
    /// The backend did not answer for too long.
    Unanswered,
    Closed,
}

impl Line {
    pub(crate) fn new(
        shared: Arc<Shared>,
        name: LockName,
        NewLine { outbox, inbox }: NewLine,
    ) -> Self {
        Self {
            shared,
            name,
            inbox,
            outbox,
            parked: LocalQueue::new(),
            closing: false,
            contact: None,
            current: None,
            asked: None,
            given_up: None,
        }
    }

    /// Serves one waiter after another until nobody is left.
    pub(crate) async fn run(mut self) {
        let mut next = None;
        loop {
            let turn = match next.take() {
                Some(turn) => turn,
                None => match self.next_waiter() {
                    Some(waiter) => self.turn(waiter),
                    None if self.shared.retire(&self.name, &self.inbox) => return,
                    None => continue,
                },
            };
            next = match self.obtain(turn).await {
                Ok(hold) => self.serve(hold).await,
                Err(successor) => successor,
            };
        }
    }

    /// The next in line, after everything that has been said so far is heard.
    fn next_waiter(&mut self) -> Option<Box<Waiter>> {
        while let Ok(message) = self.inbox.try_recv() {
            self.hear(message);
        }
        self.parked.pop()
    }

    fn turn(&mut self, waiter: Box<Waiter>) -> Turn {
        let claim = self.claim(&waiter);
        Turn {
            waiter,
            claim,
            standing: None,
        }
    }

    fn claim(&mut self, waiter: &Waiter) -> Claim {
        let claim = Claim::new(self.name.clone(), self.shared.identity.clone(), waiter.ttl)
            .with_lease(waiter.lease)
            .with_deadline(waiter.deadline);
        self.asked = Some(claim.clone());
        claim
    }

    /// Gets the lock for the waiter whose turn it is. Answers the waiter in every case; `Err` is
    /// who has taken its place in the backend, if somebody has.
    async fn obtain(&mut self, mut turn: Turn) -> Result<Arc<Hold>, Option<Turn>> {
        if !turn.waiter.waits {
            return self.attempt(turn).await.map_err(|()| None);
        }
        let mut pause = Duration::ZERO;
        loop {
            let mut may_stand = true;
            let stood = match turn.standing.take() {
                Some(Standing::Granted(grant)) => Stood::Granted(grant),
                Some(Standing::Queued) | None => {
                    let limit = self.limit(&turn.waiter);
                    self.stand(&turn, limit, pause).await
                }
            };
            let error = match stood {
                Stood::Granted(grant) => match self.confirm(grant, &mut turn.waiter).await {
                    Ok(grant) => return Ok(self.hold(*turn.waiter, grant)),
                    Err(error) => error,
                },
                Stood::Failed(error) => {
                    let reach = turn.claim.progress.reach();
                    if reach == Reach::Queued || !error.is_retryable() {
                        self.contact = Some(self.shared.clock.now());
                    }
                    may_stand = may_stand_after(&error, reach);
                    never_was(error)
                }
                Stood::Withdrawn => return Err(self.vacate(turn.claim).await),
                Stood::DeadlinePassed => {
                    // Never answered is not busy (R9).
                    let answer = match turn.claim.progress.reach() {
                        Reach::Queued | Reach::Adrift => Ok(None),
                        Reach::Unsent | Reach::Sent => Err(self.silence()),
                    };
                    turn.waiter.answer(answer);
                    return Err(self.vacate(turn.claim).await);
                }
                Stood::Closed => {
                    turn.waiter.answer(Err(self.error(ErrorKind::Closed)));
                    return Err(self.vacate(turn.claim).await);
                }
                Stood::Unanswered => {
                    let error = self.silent(&turn.claim);
                    self.clean(turn.claim);
                    turn.waiter.answer(Err(error));
                    return Err(None);
                }
            };
            // The nonce is given up before another is tried: two requests of one caller must not
            // both win.
            let error = error.with_name(&self.name);
            let limit = self.limit(&turn.waiter);
            let mut late = self.late(&mut turn.waiter, Some(error.clone()));
            let settled = !may_stand || self.released(&turn.claim, limit, &mut late).await;
            pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
            let again =
                self.shared.clock.now() + pause < limit && !self.closing && !turn.waiter.has_gone();
            if !error.is_retryable() || !settled || !again {
                if !settled {
                    self.clean(turn.claim);
                }
                turn.waiter.answer(Err(error));
                return Err(None);
            }
            debug!(name = %self.name, %error, "acquire is tried again under a fresh nonce");
            turn.claim = self.claim(&turn.waiter);
        }
    }

    /// Until when a backend that does not answer is asked on behalf of `waiter`.
    ///
    /// An attempt that comes after a long wait has an operation's time of its own; one that finds
    /// the backend silent since its caller came has had it already.
    fn limit(&self, waiter: &Waiter) -> BootInstant {
        let anchor = self
            .contact
            .map_or(waiter.started, |contact| contact.max(waiter.started));
        anchor + self.shared.op_timeout
    }

    /// One attempt that does not queue.
    async fn attempt(&mut self, mut turn: Turn) -> Result<Arc<Hold>, ()> {
        let shared = Arc::clone(&self.shared);
        let claim = turn.claim;
        let limit = turn.waiter.started + shared.op_timeout;
        let trying = shared
            .clock
            .timeout_at(limit, shared.backend.try_acquire(&claim));
        let (error, may_stand) = match self.attend(trying).await {
            Some(Ok(Some(grant))) => {
                self.contact = Some(shared.clock.now());
                match self.confirm(grant, &mut turn.waiter).await {
                    Ok(grant) => return Ok(self.hold(*turn.waiter, grant)),
                    Err(error) => (error, true),
                }
            }
            Some(Ok(None)) => {
                self.contact = Some(shared.clock.now());
                turn.waiter.answer(Ok(None));
                return Err(());
            }
            Some(Err(error)) => {
                let may_stand = may_stand_after(&error, claim.progress.reach());
                (never_was(error), may_stand)
            }
            None => (self.silent(&claim), claim.progress.reach() != Reach::Unsent),
        };
        if may_stand {
            self.clean(claim);
        }
        turn.waiter.answer(Err(error.with_name(&self.name)));
        Err(())
    }

    /// Stands in the backend's queue until something ends it.
    async fn stand(&mut self, turn: &Turn, limit: BootInstant, pause: Duration) -> Stood {
        let shared = Arc::clone(&self.shared);
        let clock = &shared.clock;
        let mut acquiring = pin!(async {
            if !pause.is_zero() {
                clock.sleep(pause).await;
            }
            shared.backend.acquire(&turn.claim).await
        });
        let mut progress = turn.claim.progress.subscribe();
        let mut adrift_since = None;
        loop {
            // Heard while the line was busy with something else, or just now.
            if self.closing {
                return Stood::Closed;
            }
            if turn.waiter.has_gone() {
                return Stood::Withdrawn;
            }
            let reach = *progress.borrow_and_update();
            let patience = match reach {
                Reach::Unsent | Reach::Sent => Some(limit),
                Reach::Queued => {
                    adrift_since = None;
                    self.contact = Some(clock.now());
                    self.refuse_tries();
                    None
                }
                Reach::Adrift => {
                    let since = *adrift_since.get_or_insert_with(|| clock.now());
                    Some(since + shared.outage_limit)
                }
            };
            let parked_limit = self.parked.earliest_limit();
            tokio::select! {
                biased;
                // A grant at the same instant wins over every reason to give up.
                outcome = &mut acquiring => {
                    return match outcome {
                        Ok(grant) => {
                            self.contact = Some(clock.now());
                            Stood::Granted(grant)
                        }
                        Err(error) => Stood::Failed(error),
                    };
                }
                // This line keeps a sender of its own: the channel never ends.
                Some(message) = self.inbox.recv() => {
                    self.hear(message);
                    if reach == Reach::Queued {
                        self.refuse_tries();
                    }
                }
                changed = progress.changed() => {
                    // The sender lives in the claim that is borrowed here.
                    debug_assert!(changed.is_ok());
                }
                () = clock.sleep_until_some(turn.waiter.deadline) => return Stood::DeadlinePassed,
                () = clock.sleep_until_some(patience) => return Stood::Unanswered,
                () = clock.sleep_until_some(parked_limit) => self.expire_parked(),
            }
        }
    }

    /// Makes a grant fit to be handed out: a fixed lease is made whole first, and one whose validity
    /// is over, or that was said to have ended, is never used and never thrown away, but asked about:
    /// what was said may be about an earlier grant of the same nonce, which nobody had heard of.
    async fn confirm(&mut self, mut grant: Grant, waiter: &mut Waiter) -> Result<Grant> {
        loop {
            let stale = grant.validity().expires_at() <= self.shared.clock.now();
            let partial = grant.is_provisional() && waiter.lease == Lease::Fixed;
            let nonce = grant.claim().nonce;
            let doubts = || self.shared.book.take_early(&nonce).is_some();
            #[cfg(test)]
            let doubts = || !broken(Sabotage::EarlyEndBelieved) && doubts();
            if !doubts() && !stale && !partial {
                return Ok(grant);
            }
            grant = self.ask_about(grant, waiter).await?;
        }
    }

    /// The same grant as the backend has it now.
    async fn ask_about(&mut self, grant: Grant, waiter: &mut Waiter) -> Result<Grant> {
        let shared = Arc::clone(&self.shared);
        let unconfirmed = self
            .error(ErrorKind::Indeterminate)
            .with_detail("a grant could not be confirmed in time");
        let mut late = self.late(waiter, Some(unconfirmed.clone()));
        let grants = [&grant];
        let asking = shared
            .clock
            .timeout(shared.op_timeout, shared.backend.renew(&grants));
        let answer = self
            .attend_late(&mut late, asking)
            .await
            .and_then(|answers| answers.into_iter().next());
        match answer {
            Some(Ok(Renewal::Extended(validity))) if validity.expires_at() > shared.clock.now() => {
                Ok(grant.confirmed(validity))
            }
            Some(Ok(Renewal::Gone)) => Err(never_was(Error::new(ErrorKind::Lost, "acquire"))),
            // That the question was not heard does not say that the lock is not held.
            Some(Err(error)) if error.kind() == ErrorKind::Unavailable => {
                Err(unconfirmed.with_source(error))
            }
            Some(Err(error)) => Err(error),
            Some(Ok(Renewal::Extended(_))) | None => Err(unconfirmed),
        }
    }

    /// Puts `grant` into the keeper's care and its guard into the waiter's hands.
    fn hold(&mut self, waiter: Waiter, grant: Grant) -> Arc<Hold> {
        let shared = &self.shared;
        let hold = Arc::new(Hold::new(
            grant,
            waiter.owner,
            shared.max_hold,
            shared.clock.clone(),
        ));
        self.current = Some(Arc::clone(&hold));
        if let Err(reason) = shared.book.add(&hold) {
            shared.end(&hold, reason);
        }
        debug!(
            name = %self.name,
            token = %hold.token(),
            nonce = %hold.claim().nonce,
            waited = ?shared.clock.now().saturating_since(waiter.started),
            "lock granted"
        );
        waiter.answer(Ok(Some(Level::new(&hold, &self.outbox))));
        hold
    }

    /// Stays with a hold until its last guard is given back or it is lost; answers who is next if
    /// somebody already stands in its place.
    async fn serve(&mut self, hold: Arc<Hold>) -> Option<Turn> {
        let shared = Arc::clone(&self.shared);
        let mut levels: u32 = 1;
        self.admit(&hold, &mut levels);
        loop {
            let parked_limit = self.parked.earliest_limit();
            let message = tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => message,
                () = shared.clock.sleep_until_some(parked_limit) => {
                    self.expire_parked();
                    continue;
                }
            };
            match message {
                Message::Give { hold: given, reply } if Arc::ptr_eq(&given, &hold) => {
                    levels -= 1;
                    if levels == 0 {
                        return self.give_back(&hold, reply).await;
                    }
                    if let Some(reply) = reply {
                        let state = match shared.ended(&hold) {
                            Some(reason) => Released::WasLost(reason),
                            None => Released::StillHeld(levels),
                        };
                        // The releasing caller may have gone.
                        let _ = reply.send(state);
                    }
                }
                Message::Ended { nonce } if nonce == hold.claim().nonce => {
                    self.after_loss(&hold);
                    return None;
                }
                message => {
                    self.hear(message);
                    self.admit(&hold, &mut levels);
                }
            }
        }
    }

    /// Gives a further guard of `hold` to everybody in line who is its explicit owner, and sends
    /// away the others who only try.
    fn admit(&mut self, hold: &Arc<Hold>, levels: &mut u32) {
        // One that the clock has just ended is not handed out once more.
        let owner = hold.owner().filter(|_| self.shared.ended(hold).is_none());
        for waiter in owner
            .map(|owner| self.parked.take_owned_by(owner))
            .unwrap_or_default()
        {
            *levels += 1;
            waiter.answer(Ok(Some(Level::new(hold, &self.outbox))));
        }
        self.refuse_tries();
    }

    /// Releases `hold`, or passes it on to the next in line.
    async fn give_back(
        &mut self,
        hold: &Arc<Hold>,
        reply: Option<oneshot::Sender<Released>>,
    ) -> Option<Turn> {
        let shared = Arc::clone(&self.shared);
        // From here on the guard must not be believed valid, whatever becomes of the request.
        shared.end(hold, LossReason::Released);
        let answer = |state: Released| {
            if let Some(reply) = reply {
                // The releasing caller may have gone.
                let _ = reply.send(state);
            }
        };
        if let Some(reason) = shared
            .ended(hold)
            .filter(|reason| *reason != LossReason::Released)
        {
            answer(Released::WasLost(reason));
            self.after_loss(hold);
            return None;
        }
        self.current = None;
        self.given_up = Some(hold.claim().clone());
        self.contact = Some(shared.clock.now());
        let limit = shared.clock.now() + shared.op_timeout;
        let Some(mut waiter) = self.next_waiting() else {
            answer(self.release(hold, limit, false, &mut Late::nobody()).await);
            return None;
        };
        let next = self.claim(&waiter);
        debug!(name = %self.name, token = %hold.token(), "passing on within this client");
        next.progress.report(Reach::Sent);
        let passing = shared
            .clock
            .timeout_at(limit, shared.backend.pass(hold.claim(), &next));
        // It has stood in line until now.
        let mut late = self.late(&mut waiter, None);
        match self.attend_late(&mut late, passing).await {
            Some(Ok(passed)) => {
                self.contact = Some(shared.clock.now());
                answer(if passed.released {
                    Released::Clean
                } else {
                    Released::WasLost(LossReason::NotHeld)
                });
                Some(Turn::placed(waiter, next, passed.next))
            }
            Some(Err(_)) | None => {
                // Either half may have happened. Only the release is repeated; the next in line
                // asks afresh.
                self.clean(next);
                answer(self.release(hold, limit, true, &mut late).await);
                Some(self.turn(waiter))
            }
        }
    }

    /// Releases the nonce of `hold`, again until `limit`; in the background after that. `repeated`
    /// when an earlier request of ours may have done it already.
    async fn release(
        &mut self,
        hold: &Arc<Hold>,
        limit: BootInstant,
        mut repeated: bool,
        late: &mut Late<'_>,
    ) -> Released {
        let shared = Arc::clone(&self.shared);
        let claim = hold.claim();
        let validity = hold.validity();
        loop {
            let releasing = shared
                .clock
                .timeout_at(limit, shared.backend.release(claim));
            match self.attend_late(late, releasing).await {
                Some(Ok(true)) => {
                    debug!(name = %self.name, token = %hold.token(), "released");
                    return Released::Clean;
                }
                // An earlier, unanswered attempt of ours may have done it: as long as the lease
                // runs on this clock, nothing else can have.
                Some(Ok(false)) if repeated && shared.clock.now() < validity.expires_at() => {
                    return Released::Clean;
                }
                Some(Ok(false)) => return Released::WasLost(LossReason::NotHeld),
                Some(Err(error)) if error.is_retryable() && shared.clock.now() + PAUSE < limit => {
                    self.attend_late(late, shared.clock.sleep(PAUSE)).await;
                }
                Some(Err(_)) | None => {
                    self.clean(claim.clone());
                    return Released::Unknown {
                        free_by: hold.free_by(),
                    };
                }
            }
            repeated = true;
        }
    }

    /// Sees to it that a hold that was lost leaves nothing behind.
    fn after_loss(&mut self, hold: &Arc<Hold>) {
        self.current = None;
        self.contact = Some(self.shared.clock.now());
        // What the backend took away has ended there; the release only sees to it that no late copy
        // of its request wins again. What only ended here may have been extended there by a renewal
        // whose answer was lost; but it is not ended *before* its time there, since a live holder is
        // not replaced before its TTL (R6).
        let ended_here = matches!(
            self.shared.ended(hold),
            Some(LossReason::Expired | LossReason::MaxHold | LossReason::Closed)
        );
        let not_before = ended_here.then(|| hold.validity().free_by());
        reaper::clean(&self.shared, hold.claim().clone(), not_before);
    }

    /// Gives up a claim that stands in the backend, to the next in line if there is one.
    async fn vacate(&mut self, claim: Claim) -> Option<Turn> {
        let shared = Arc::clone(&self.shared);
        // A place is handed on where there may be one; one that is adrift cannot be asked about.
        self.given_up = Some(claim.clone());
        let reach = claim.progress.reach();
        let may_have_place = matches!(reach, Reach::Sent | Reach::Queued);
        if reach == Reach::Queued {
            self.contact = Some(shared.clock.now());
        }
        match if may_have_place {
            self.next_waiting()
        } else {
            None
        } {
            Some(mut waiter) => {
                let next = self.claim(&waiter);
                next.progress.report(Reach::Sent);
                let replacing = shared
                    .clock
                    .timeout(shared.op_timeout, shared.backend.replace(&claim, &next));
                let error = (!self.reached(&waiter)).then(|| self.silence());
                let mut late = self.late(&mut waiter, error);
                let replaced = self.attend_late(&mut late, replacing).await;
                if let Some(Ok(_)) = replaced {
                    self.contact = Some(shared.clock.now());
                }
                match replaced {
                    Some(Ok(Replaced::Now(standing))) => Some(Turn::placed(waiter, next, standing)),
                    Some(Ok(Replaced::Gone)) => Some(self.turn(waiter)),
                    Some(Err(_)) | None => {
                        self.clean(claim);
                        self.clean(next);
                        Some(self.turn(waiter))
                    }
                }
            }
            None => {
                let limit = shared.clock.now() + shared.op_timeout;
                let sent = claim.progress.reach() != Reach::Unsent;
                #[cfg(test)]
                let sent = sent && !broken(Sabotage::CancelForgets);
                if sent && !self.released(&claim, limit, &mut Late::nobody()).await {
                    self.clean(claim);
                }
                None
            }
        }
    }

    /// Releases `claim` once; whether the backend confirmed it by `limit`.
    async fn released(&mut self, claim: &Claim, limit: BootInstant, late: &mut Late<'_>) -> bool {
        let shared = Arc::clone(&self.shared);
        let releasing = shared
            .clock
            .timeout_at(limit, shared.backend.release(claim));
        matches!(self.attend_late(late, releasing).await, Some(Ok(_)))
    }

    fn clean(&self, claim: Claim) {
        reaper::clean(&self.shared, claim, None);
    }

    /// Awaits `work` without letting those in line wait past their time.
    async fn attend<F: Future>(&mut self, work: F) -> F::Output {
        self.attend_late(&mut Late::nobody(), work).await
    }

    /// Awaits `work` that is done for one waiter, without letting that one or those in line wait
    /// past their time.
    async fn attend_late<F: Future>(&mut self, late: &mut Late<'_>, work: F) -> F::Output {
        let shared = Arc::clone(&self.shared);
        let mut work = pin!(work);
        loop {
            let parked_limit = self.parked.earliest_limit();
            tokio::select! {
                biased;
                output = &mut work => return output,
                Some(message) = self.inbox.recv() => {
                    self.hear(message);
                    if self.closing {
                        late.answer(Some(self.error(ErrorKind::Closed)));
                    }
                }
                () = shared.clock.sleep_until_some(late.limit) => {
                    let error = late.error.take();
                    late.answer(error);
                }
                () = shared.clock.sleep_until_some(parked_limit) => self.expire_parked(),
            }
        }
    }

    /// Has `waiter` told `error`, or that the lock is busy, if its time is up too early.
    fn late<'a>(&self, waiter: &'a mut Waiter, error: Option<Error>) -> Late<'a> {
        Late {
            limit: waiter.limit(self.shared.op_timeout),
            waiter: Some(waiter),
            error,
        }
    }

    /// Hears a message that is not about what the line is doing right now.
    fn hear(&mut self, message: Message) {
        match message {
            Message::Ask(waiter) => {
                if self.closing || self.shared.is_closing() {
                    waiter.answer(Err(self.error(ErrorKind::Closed)));
                } else {
                    self.park(waiter);
                }
            }
            Message::Withdraw { ticket } => self.parked.withdraw(ticket),
            Message::Give { hold, reply } => {
                // Of a hold that this line has already seen the end of.
                if let (Some(reply), Some(reason)) = (reply, self.shared.ended(&hold)) {
                    // The releasing caller may have gone.
                    let _ = reply.send(Released::WasLost(reason));
                }
            }
            Message::Ended { .. } => {}
            Message::Close => {
                self.closing = true;
                for waiter in self.parked.take_all() {
                    waiter.answer(Err(self.error(ErrorKind::Closed)));
                }
            }
        }
    }

    /// Takes the next in line who waits; those who only try are told that it is busy.
    fn next_waiting(&mut self) -> Option<Box<Waiter>> {
        while let Ok(message) = self.inbox.try_recv() {
            self.hear(message);
        }
        self.refuse_tries();
        self.parked.pop()
    }

    /// The lock is taken as far as this client can tell: nobody who only tries needs to ask.
    fn refuse_tries(&mut self) {
        for waiter in self.parked.take_tries() {
            waiter.answer(Ok(None));
        }
    }

    fn park(&mut self, waiter: Box<Waiter>) {
        self.parked.push(Entry {
            ticket: waiter.ticket,
            owner: waiter.owner,
            waits: waiter.waits,
            limit: waiter.limit(self.shared.op_timeout),
            caller: waiter,
        });
    }

    fn expire_parked(&mut self) {
        for waiter in self.parked.take_expired(self.shared.clock.now()) {
            let answer = if waiter.waits && self.reached(&waiter) {
                Ok(None)
            } else {
                Err(self.silence())
            };
            waiter.answer(answer);
        }
    }

    /// Whoever saw the backend work while standing in line was in a queue; one that never did
    /// cannot say that the lock is busy.
    fn reached(&self, waiter: &Waiter) -> bool {
        self.current.is_some()
            || self
                .contact
                .is_some_and(|contact| contact >= waiter.started)
    }

    /// What an unanswered claim ends with: certainly not there, or unknown.
    fn silent(&self, claim: &Claim) -> Error {
        self.unanswered(match claim.progress.reach() {
            Reach::Sent => ErrorKind::Indeterminate,
            Reach::Unsent | Reach::Queued | Reach::Adrift => ErrorKind::Unavailable,
        })
    }

    fn silence(&self) -> Error {
        self.unanswered(ErrorKind::Unavailable)
    }

    fn unanswered(&self, kind: ErrorKind) -> Error {
        self.error(kind).with_detail("no answer in time")
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "acquire").with_name(&self.name)
    }
}

/// What is lost before its caller knew of it, such as a grant that an operator broke at once: as far
/// as the caller is concerned it never was.
fn never_was(error: Error) -> Error {
    if error.kind() == ErrorKind::Lost {
        Error::new(ErrorKind::Unavailable, "acquire")
            .with_detail("the grant ended before it could be used")
    } else {
        error
    }
}

/// Whether the backend may know a claim that failed with `error`. A refusal that is an answer says
/// that nothing was written, unless the claim stood in the queue by then.
fn may_stand_after(error: &Error, reach: Reach) -> bool {
    let refused = matches!(
        error.kind(),
        ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::WrongType
    );
    match reach {
        Reach::Unsent => false,
        Reach::Sent => !refused,
        Reach::Queued | Reach::Adrift => true,
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Only a panic or the end of the runtime gets here with a hold.
        if let Some(hold) = self.current.take() {
            self.shared.end(&hold, LossReason::Closed);
        }
        if std::thread::panicking() {
            self.inbox.close();
            self.shared.forget(&self.name);
            for claim in [self.asked.take(), self.given_up.take()]
                .into_iter()
                .flatten()
            {
                self.clean(claim);
            }
        }
    }
}
