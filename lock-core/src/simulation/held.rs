//! What a user believes: that it has asked, and that it holds.

use futures_util::FutureExt;

use super::plan::{Ask, Visit};
use super::user::User;
use crate::error::{ErrorKind, Result};
use crate::guard::Guard;
use crate::lease::LossReason;

/// A question under way. It is not one any more when it is dropped.
pub(super) struct Asking<'a> {
    user: &'a User,
    question: u64,
}

impl<'a> Asking<'a> {
    pub(super) fn new(user: &'a User, visit: &Visit, ask: Ask) -> Self {
        let in_line = !visit.owned && !matches!(ask, Ask::Try);
        let mut state = user.world.state();
        Self {
            user,
            question: state.witness.asked(user.process, visit.name, in_line),
        }
    }

    pub(super) fn answered(
        self,
        outcome: Result<Option<Guard>>,
        visit: &Visit,
    ) -> Option<Held<'a>> {
        let user = self.user;
        match outcome {
            Ok(Some(guard)) => {
                let token = guard.token().get();
                user.note(format_args!("holds {} with {token}", visit.name));
                let mut state = user.world.state();
                let belief = state.witness.obtained(self.question, token);
                drop(state);
                Some(Held {
                    user,
                    belief,
                    guard: Some(guard),
                })
            }
            Ok(None) => {
                user.note(format_args!("finds {} busy", visit.name));
                None
            }
            Err(error) => {
                user.note(format_args!("does not get {}: {error}", visit.name));
                let mut state = user.world.state();
                let expected = match error.kind() {
                    ErrorKind::Closed => state.witness.is_closing(user.process),
                    kind => matches!(kind, ErrorKind::Unavailable | ErrorKind::Indeterminate),
                };
                if !expected {
                    state
                        .witness
                        .accuse("R9", || format!("an acquire failed: {error}"));
                }
                None
            }
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.user.world.state();
        state.witness.went_without(self.question);
    }
}

/// A guard, and the belief in it: for as long as it is not lost, or given up.
pub(super) struct Held<'a> {
    user: &'a User,
    belief: u64,
    guard: Option<Guard>,
}

impl Held<'_> {
    pub(super) fn guard(&self) -> &Guard {
        self.guard.as_ref().expect("only taken by value")
    }

    /// Does `work` unless the lock is lost before.
    pub(super) async fn watch<F: Future>(&self, work: F) -> Result<F::Output, LossReason> {
        tokio::select! {
            biased;
            reason = self.guard().lost() => Err(self.lost(reason)),
            output = work => Ok(output),
        }
    }

    /// Looks, without asking anybody.
    pub(super) fn check(&self) -> Result<(), LossReason> {
        if self.guard().check().is_err() {
            let lost = self.guard().lost().now_or_never();
            return Err(self.lost(lost.unwrap_or(LossReason::Released)));
        }
        let mut state = self.user.world.state();
        let now = state.now();
        state.witness.checked(now, self.belief);
        Ok(())
    }

    pub(super) fn lost(&self, reason: LossReason) -> LossReason {
        self.user
            .note(format_args!("lost {}: {reason}", self.guard().token()));
        let mut state = self.user.world.state();
        let now = state.now();
        state.witness.lost(now, self.belief, reason);
        reason
    }

    pub(super) fn read(&self, name: &'static str) -> Option<u64> {
        let token = self.guard().token();
        self.user.world.state().witness.read(name, token)
    }

    pub(super) fn write(&self, name: &'static str, read: u64) {
        let token = self.guard().token();
        self.user.world.state().witness.write(name, token, read);
    }

    pub(super) fn into_guard(mut self) -> Guard {
        self.user.world.state().witness.gives_up(self.belief);
        self.guard.take().expect("only taken by value")
    }

    /// Keeps the guard where nobody looks at it.
    pub(super) fn forget(mut self) {
        self.user
            .note(format_args!("forgets {}", self.guard().token()));
        let guard = self.guard.take();
        let mut state = self.user.world.state();
        state.witness.forgets(self.belief);
        state.attic.extend(guard);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.user.note(format_args!("drops {}", guard.token()));
            self.user.world.state().witness.gives_up(self.belief);
        }
    }
}
