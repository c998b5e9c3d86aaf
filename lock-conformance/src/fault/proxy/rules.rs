//! What may flow: decided here, from rules and queues alone, without I/O.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Says whether a command is to be held.
pub(super) type Predicate = Box<dyn Fn(&[u8]) -> bool + Send>;

/// The switches a tester sets. The default lets everything pass.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) refuse: bool,
    pub(super) black_hole: bool,
    pub(super) delay: Duration,
    pub(super) replies: Replies,
    pub(super) drop_pushes: bool,
    pub(super) hold: Option<Predicate>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Replies {
    #[default]
    Pass,
    Hold,
    Drop,
}

/// Something under way in one direction.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) arrived: Instant,
    /// How much of it is written already; what has begun is not taken back.
    pub(super) sent: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A whole RESP command.
    Command,
    /// A whole RESP reply, or the confirmation of a subscription.
    Reply,
    /// A whole out-of-band RESP push.
    Push,
    /// Bytes of a protocol the proxy does not read.
    Raw,
    /// The sender has closed.
    End,
}

/// What is under way in one direction of one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    queue: VecDeque<Packet>,
    held: Held,
    /// A reply was lost: nothing may follow it.
    silenced: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Held {
    #[default]
    No,
    /// The first packet has matched and waits.
    Yes,
    /// The first packet has matched and was let go: it must not match again.
    LetGo,
}

/// What to do next in one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Write the first packet.
    Send,
    /// Throw the first packet away.
    Discard,
    /// Close the direction.
    End,
    /// Nothing, until something changes or the time has come.
    Wait(Option<Instant>),
}

impl Rules {
    /// The next step from the client to the server.
    pub(super) fn step_up(&mut self, pipe: &mut Pipe, now: Instant) -> Step {
        let Some(first) = pipe.queue.front() else {
            return Step::Wait(None);
        };
        if self.black_hole || pipe.held == Held::Yes {
            return Step::Wait(None);
        }
        if let Some(due) = self.not_yet_due(first, now) {
            return Step::Wait(Some(due));
        }
        if first.kind == Kind::End {
            return Step::End;
        }
        if first.sent == 0 && pipe.held == Held::No && self.takes_hold_of(&first.bytes) {
            pipe.held = Held::Yes;
            return Step::Wait(None);
        }
        Step::Send
    }

    /// The next step from the server to the client.
    pub(super) fn step_down(&self, pipe: &mut Pipe, now: Instant) -> Step {
        let Some(first) = pipe.queue.front() else {
            return Step::Wait(None);
        };
        if self.black_hole || self.replies == Replies::Hold {
            return Step::Wait(None);
        }
        if let Some(due) = self.not_yet_due(first, now) {
            return Step::Wait(Some(due));
        }
        if first.kind == Kind::End {
            return Step::End;
        }
        if self.replies == Replies::Drop {
            pipe.silenced = true;
        }
        if pipe.silenced || (self.drop_pushes && first.kind == Kind::Push && first.sent == 0) {
            return Step::Discard;
        }
        Step::Send
    }

    fn not_yet_due(&self, packet: &Packet, now: Instant) -> Option<Instant> {
        Some(packet.arrived + self.delay).filter(|&due| due > now)
    }

    fn takes_hold_of(&mut self, message: &[u8]) -> bool {
        self.hold.take_if(|matches| matches(message)).is_some()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("refuse", &self.refuse)
            .field("black_hole", &self.black_hole)
            .field("delay", &self.delay)
            .field("replies", &self.replies)
            .field("drop_pushes", &self.drop_pushes)
            .field("hold", &self.hold.is_some())
            .finish()
    }
}

impl Pipe {
    pub(super) fn push(&mut self, packet: Packet) {
        self.queue.push_back(packet);
    }

    pub(super) fn first(&mut self) -> Option<&mut Packet> {
        self.queue.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Packet> {
        self.held = Held::No;
        self.queue.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.held = Held::No;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held == Held::Yes
    }

    pub(super) fn let_go(&mut self) {
        if self.held == Held::Yes {
            self.held = Held::LetGo;
        }
    }

    pub(super) fn count(&self, kind: Kind) -> u64 {
        self.queue
            .iter()
            .map(|packet| u64::from(packet.kind == kind))
            .sum()
    }

    /// How many messages stand in it, pushes and the end aside.
    pub(super) fn waiting(&self) -> u64 {
        [Kind::Command, Kind::Reply, Kind::Raw]
            .map(|kind| self.count(kind))
            .iter()
            .sum()
    }
}

#[cfg(test)]
mod tests;
