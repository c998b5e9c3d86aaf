//! What a line is told, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::claim::Lease;
use crate::clock::BootInstant;
use crate::error::Result;
use crate::gauge::Counted;
use crate::hold::Hold;
use crate::lease::LossReason;
use crate::owner::{Nonce, OwnerId};
#[cfg(test)]
use crate::simulation::{Sabotage, broken};

/// What a line is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Somebody asks for the lock.
    Ask(Box<Waiter>),
    /// The asker with this ticket has gone.
    Withdraw { ticket: u64 },
    /// A level of a hold is given back, by a release that wants to know or by a drop that does not.
    Give {
        hold: Arc<Hold>,
        reply: Option<oneshot::Sender<Released>>,
    },
    /// The hold of this nonce has ended.
    Ended { nonce: Nonce },
    /// The client is closing: everybody who waits is sent away.
    Close,
}

/// What became of a release.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Released {
    /// The lock was held until now and is free, or somebody else's.
    Clean,
    /// The lock had been lost before.
    WasLost(LossReason),
    /// The backend did not answer. It is tried again in the background; by then at the latest, on
    /// the client's clock, the lock is free.
    Unknown {
        /// When the lease has ended on the backend in any case.
        free_by: BootInstant,
    },
    /// This many guards of the same owner still hold it.
    StillHeld(u32),
}

/// One call that wants the lock.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) ticket: u64,
    pub(crate) owner: Option<OwnerId>,
    pub(crate) ttl: Duration,
    pub(crate) lease: Lease,
    /// Whether it queues, or only tries.
    pub(crate) waits: bool,
    pub(crate) started: BootInstant,
    pub(crate) deadline: Option<BootInstant>,
    /// Counts this waiter for as long as it exists.
    pub(crate) _counted: Counted,
    /// `None` once it was answered before its turn had ended.
    pub(crate) reply: Option<oneshot::Sender<Result<Option<Level>>>>,
}

impl Waiter {
    pub(crate) fn answer(mut self, answer: Result<Option<Level>>) {
        self.answer_early(answer);
    }

    /// Answers while the backend is still busy with this waiter's claim.
    pub(crate) fn answer_early(&mut self, answer: Result<Option<Level>>) {
        if let Some(reply) = self.reply.take() {
            // Nobody may be listening any more. A level that comes back unheard is dropped here,
            // and its drop gives it back like every other.
            drop(reply.send(answer));
        }
    }

    /// Whether nobody waits for the answer: it was given, or its caller was dropped.
    pub(crate) fn has_gone(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Until when it is answered at the latest. One that only tries waits for those before it at
    /// most as long as for an answer of its own.
    pub(crate) fn limit(&self, op_timeout: Duration) -> Option<BootInstant> {
        if self.waits {
            self.deadline
        } else {
            Some(self.started + op_timeout)
        }
    }
}

/// One guard's part in a hold: more than one only for an explicit owner.
///
/// Whoever drops it gives it back, also when that is a channel whose receiver has gone.
#[derive(Debug)]
pub(crate) struct Level {
    hold: Arc<Hold>,
    line: mpsc::UnboundedSender<Message>,
    given: bool,
}

impl Level {
    pub(crate) fn new(hold: &Arc<Hold>, line: &mpsc::UnboundedSender<Message>) -> Self {
        Self {
            hold: Arc::clone(hold),
            line: line.clone(),
            given: false,
        }
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    /// Gives it back and wants to know. `None` when nobody is there who knows: then the hold has
    /// ended already, and whoever ended it cleans up.
    pub(crate) fn give(&mut self) -> Option<oneshot::Receiver<Released>> {
        let (reply, answer) = oneshot::channel();
        self.send(Some(reply)).then_some(answer)
    }

    /// Makes the drop of this level do nothing.
    pub(crate) fn forget(&mut self) {
        self.given = true;
    }

    fn send(&mut self, reply: Option<oneshot::Sender<Released>>) -> bool {
        self.given = true;
        let hold = Arc::clone(&self.hold);
        self.line.send(Message::Give { hold, reply }).is_ok()
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        #[cfg(test)]
        if broken(Sabotage::DropForgets) {
            return;
        }
        if !self.given {
            self.send(None);
        }
    }
}
