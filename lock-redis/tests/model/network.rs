//! What is under way between a client and the server.

use crate::state::{Nonce, Time, Token};

/// A client's connection: requests go one way in order, answers and pushes come back in order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Wire {
    pub(crate) up: bool,
    /// Sent, and not run by the server yet.
    pub(crate) requests: Vec<Request>,
    /// On its way to the client. Pushes are taken in at once, in their order; an answer wakes a task,
    /// which may be slower than pushes that come behind it, and than other tasks.
    pub(crate) back: Vec<Message>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Request {
    pub(crate) script: Script,
    /// On the client's clock, before it was sent.
    pub(crate) sent: Time,
    /// The largest token that the client had seen.
    pub(crate) floor: Token,
    /// Whether a task still waits for the answer.
    pub(crate) awaited: bool,
}

/// A script, and what it is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Script {
    Acquire {
        nonce: Nonce,
        why: Why,
    },
    Place {
        nonce: Nonce,
    },
    Renew {
        nonce: Nonce,
    },
    Release {
        nonce: Nonce,
        bury: bool,
    },
    Pass {
        held: Nonce,
        bury: bool,
        next: Nonce,
    },
    Replace {
        old: Nonce,
        next: Nonce,
    },
}

/// What an acquire is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Why {
    Try,
    Wait,
    /// The server has forgotten a claim that waits (`place::join`).
    JoinAgain,
}

impl Script {
    /// Whether this is a request of the task that renews places, which has one under way at a time.
    pub(crate) fn renews_place(self) -> bool {
        let joins = matches!(
            self,
            Self::Acquire {
                why: Why::JoinAgain,
                ..
            }
        );
        joins || matches!(self, Self::Place { .. })
    }

    /// The nonce that this request can make hold or wait.
    pub(crate) fn claims(self) -> Option<Nonce> {
        match self {
            Self::Acquire { nonce, .. } => Some(nonce),
            Self::Pass { next, .. } | Self::Replace { next, .. } => Some(next),
            Self::Place { .. } | Self::Renew { .. } | Self::Release { .. } => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Message {
    Answer {
        request: Request,
        reply: Reply,
        /// The server's clock was stepped forward, or its data lost, after it was given.
        tainted: bool,
    },
    Push {
        nonce: Nonce,
        token: Token,
        lease: Time,
        /// The server's clock at the grant.
        server: Time,
        tainted: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Reply {
    /// To a claim.
    Claim(Standing),
    /// To a release: whether the nonce held until now.
    Released(bool),
    /// To a renewal: what is left; 0 when the nonce does not hold.
    Renewed(Time),
    /// To a pass: as a release, and what became of the next.
    Passed(bool, Standing),
}

/// What the server says about a claim.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Standing {
    Granted { token: Token, left: Time },
    Queued { server: Time, again: Time },
    Busy,
    Gone,
    Dead,
}

impl Wire {
    pub(crate) fn connected() -> Self {
        Self {
            up: true,
            requests: Vec::new(),
            back: Vec::new(),
        }
    }

    /// Whether a task waits for the answer to such a request.
    pub(crate) fn awaits(&self, such: impl Fn(Script) -> bool) -> bool {
        let answered = self.back.iter().filter_map(|message| match message {
            Message::Answer { request, .. } => Some(request),
            Message::Push { .. } => None,
        });
        self.requests
            .iter()
            .chain(answered)
            .any(|request| request.awaited && such(request.script))
    }

    /// Which of the messages on their way back can be taken in next: see [`back`](Self::back).
    pub(crate) fn deliverable(&self) -> impl Iterator<Item = usize> + use<'_> {
        let first_push = self
            .back
            .iter()
            .position(|message| matches!(message, Message::Push { .. }));
        (0..self.back.len()).filter(move |at| first_push.is_none_or(|push| *at <= push))
    }
}
