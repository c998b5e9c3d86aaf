//! What may flow: decided here, from rules and queues alone, without I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::codec::Way;
use super::message::{Kind, Message};

/// Says whether a command is to be held.
pub(super) type Predicate = Box<dyn Fn(&Message) -> bool + Send>;

/// The switches a tester sets, for all connections or for some. The default lets everything pass.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) black_hole: bool,
    pub(super) half_open: bool,
    pub(super) delay: Duration,
    pub(super) replies: Replies,
    pub(super) drop_pushes: bool,
    pub(super) hold: Option<Predicate>,
    pub(super) drop_next: DropNext,
}

#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Replies {
    #[default]
    Pass,
    Hold,
    Drop,
}

/// How many messages there are up to the one that is to be lost, that one included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DropNext {
    pub(super) request: Option<u64>,
    pub(super) reply: Option<u64>,
    pub(super) push: Option<u64>,
}

impl DropNext {
    /// Counts a message; says whether it is the one. Bytes that nobody reads are a request one way, and a reply the
    /// other way.
    fn is(&mut self, way: Way, kind: Kind) -> bool {
        let left = match (way, kind) {
            (Way::Up, Kind::Command | Kind::Raw) => &mut self.request,
            (Way::Down, Kind::Reply | Kind::Raw) => &mut self.reply,
            (Way::Down, Kind::Push) => &mut self.push,
            _ => return false,
        };
        match left {
            Some(1) => left.take().is_some(),
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

/// All the rules that one connection is under. What one of them forbids is forbidden.
pub(super) struct Ruling<'a>(Vec<&'a mut Rules>);

/// A message under way.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) message: Message,
    pub(super) arrived: Instant,
    /// How much of it is written already; what has begun is not taken back.
    pub(super) sent: usize,
    /// It has been held and let go: it must not be held again.
    pub(super) let_go: bool,
    /// It has been counted, and was not the one to be lost.
    counted: bool,
}

impl Packet {
    pub(super) fn new(message: Message, arrived: Instant) -> Packet {
        Packet {
            message,
            arrived,
            sent: 0,
            let_go: false,
            counted: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.message.kind
    }
}

/// What is under way in one direction of one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    queue: VecDeque<Packet>,
    /// The first packet has matched and waits, and all others behind it.
    held: bool,
    /// Something was held, and let go.
    delivered: bool,
    /// Commands that the server has been sent and has not answered.
    unanswered: u64,
    streams: Streams,
    /// A request or a reply was lost: nothing may follow it.
    silenced: bool,
    /// Streams on which a push is being lost, or a request was, of which more may come.
    losing: BTreeSet<u32>,
}

/// What is held of single streams. Other streams, and the connection, go on.
#[derive(Debug, Default)]
struct Streams {
    held: BTreeMap<u32, Vec<Packet>>,
    /// Let go, and not answered yet; with it the client's cancellation, which waits for the answer. Behind the request
    /// at once, it would leave it to the server whether the request is executed.
    owed: BTreeMap<u32, Option<Packet>>,
}

/// What to do next in one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Write the first packet.
    Send,
    /// Put the first packet to what is held of its stream.
    Set,
    /// Throw the first packet away.
    Discard,
    /// Close the direction.
    End,
    /// Nothing, until something changes or the time has come.
    Wait(Option<Instant>),
}

impl<'a> Ruling<'a> {
    pub(super) fn of(rules: impl IntoIterator<Item = &'a mut Rules>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// The next step from the client to the server.
    pub(super) fn step_up(&mut self, pipe: &mut Pipe, now: Instant) -> Step {
        let Some(first) = pipe.queue.front() else {
            return Step::Wait(None);
        };
        if self.black_hole() || pipe.held {
            return Step::Wait(None);
        }
        if let Some(due) = self.not_yet_due(first, now) {
            return Step::Wait(Some(due));
        }
        if first.kind() == Kind::End {
            return match self.half_open() || !pipe.may_end() {
                true => Step::Wait(None),
                false => Step::End,
            };
        }
        let stream = first.message.stream;
        if pipe.streams.hold(stream) {
            return Step::Set;
        }
        if first.sent == 0 && !first.let_go && self.takes_hold_of(&first.message) {
            if stream == 0 {
                pipe.held = true;
                return Step::Wait(None);
            }
            pipe.streams.held.insert(stream, Vec::new());
            return Step::Set;
        }
        if self.is_dropped(Way::Up, pipe) {
            if stream == 0 {
                pipe.silenced = true;
            } else {
                pipe.losing.insert(stream);
            }
        }
        match pipe.silenced || pipe.goes_on_with_lost_request() {
            true => Step::Discard,
            false => Step::Send,
        }
    }

    /// The next step from the server to the client.
    pub(super) fn step_down(&mut self, pipe: &mut Pipe, now: Instant) -> Step {
        let Some(first) = pipe.queue.front() else {
            return Step::Wait(None);
        };
        let replies = self.replies();
        if self.black_hole() || replies == Replies::Hold {
            return Step::Wait(None);
        }
        if let Some(due) = self.not_yet_due(first, now) {
            return Step::Wait(Some(due));
        }
        if first.kind() == Kind::End {
            return match self.half_open() {
                true => Step::Wait(None),
                false => Step::End,
            };
        }
        let is_push = first.kind() == Kind::Push;
        let is_new = first.sent == 0;
        let dropped = self.is_dropped(Way::Down, pipe);
        if replies == Replies::Drop || (dropped && !is_push) {
            pipe.silenced = true;
        }
        let drop_pushes = dropped || self.0.iter().any(|rules| rules.drop_pushes);
        if pipe.silenced || (is_new && pipe.loses_first(drop_pushes)) {
            return Step::Discard;
        }
        Step::Send
    }

    pub(super) fn black_hole(&self) -> bool {
        self.0.iter().any(|rules| rules.black_hole)
    }

    pub(super) fn replies(&self) -> Replies {
        let replies = self.0.iter().map(|rules| rules.replies);
        replies.max().unwrap_or_default()
    }

    fn half_open(&self) -> bool {
        self.0.iter().any(|rules| rules.half_open)
    }

    fn not_yet_due(&self, packet: &Packet, now: Instant) -> Option<Instant> {
        let delay = self.0.iter().map(|rules| rules.delay).max();
        Some(packet.arrived + delay.unwrap_or_default()).filter(|&due| due > now)
    }

    fn takes_hold_of(&mut self, message: &Message) -> bool {
        // Only what a client asks is asked for, where the protocol tells what that is.
        matches!(message.kind, Kind::Command | Kind::Raw)
            && self
                .0
                .iter_mut()
                .any(|rules| rules.hold.take_if(|matches| matches(message)).is_some())
    }

    /// Counts the first packet, once; says whether it is one to be lost.
    fn is_dropped(&mut self, way: Way, pipe: &mut Pipe) -> bool {
        let Some(first) = pipe.queue.front_mut() else {
            return false;
        };
        if pipe.silenced || first.sent > 0 || std::mem::replace(&mut first.counted, true) {
            return false;
        }
        let kind = first.kind();
        let mut dropped = false;
        // Every rule counts, also behind one that has decided.
        for rules in &mut self.0 {
            dropped |= rules.drop_next.is(way, kind);
        }
        dropped
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("black_hole", &self.black_hole)
            .field("half_open", &self.half_open)
            .field("delay", &self.delay)
            .field("replies", &self.replies)
            .field("drop_pushes", &self.drop_pushes)
            .field("hold", &self.hold.is_some())
            .field("drop_next", &self.drop_next)
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
        self.queue.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.held = false;
        self.delivered = false;
        self.streams = Streams::default();
    }

    /// Takes the first packet out of the way of those behind it.
    pub(super) fn set_first(&mut self) {
        let Some(packet) = self.queue.pop_front() else {
            return;
        };
        let held = self.streams.held.get_mut(&packet.message.stream);
        held.expect("its stream is held").push(packet);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held || !self.streams.held.is_empty()
    }

    /// Lets everything go that is held.
    pub(super) fn let_go(&mut self) {
        if std::mem::take(&mut self.held)
            && let Some(first) = self.queue.front_mut()
        {
            first.let_go = true;
            self.delivered = true;
        }
        for (stream, packets) in std::mem::take(&mut self.streams.held) {
            let mut cancel = None;
            for mut packet in packets {
                packet.let_go = true;
                match packet.kind() {
                    Kind::Cancel => cancel = Some(packet),
                    _ => self.push_before_end(packet),
                }
            }
            self.streams.owed.insert(stream, cancel);
        }
    }

    /// A command has been sent.
    pub(super) fn asked(&mut self) {
        self.unanswered += 1;
    }

    /// The server has answered, on a stream if there are some.
    pub(super) fn answered(&mut self, stream: u32) {
        // A command may have several answers; of those that were not asked for none counts.
        self.unanswered = self.unanswered.saturating_sub(1);
        if let Some(Some(cancel)) = self.streams.owed.remove(&stream) {
            self.push_before_end(cancel);
        }
    }

    pub(super) fn count(&self, kind: Kind) -> u64 {
        let packets = self.queue.iter();
        packets.map(|packet| u64::from(packet.kind() == kind)).sum()
    }

    /// How many messages stand in it; pushes, the end and what keeps the connection going aside.
    pub(super) fn waiting(&self) -> u64 {
        [Kind::Command, Kind::Reply, Kind::Raw]
            .map(|kind| self.count(kind))
            .iter()
            .sum()
    }

    /// How many of its messages are held.
    pub(super) fn held(&self) -> u64 {
        let behind = if self.held { self.waiting() } else { 0 };
        let packets = self.streams.held.values().flatten();
        behind
            + packets
                .map(|packet| u64::from(packet.kind() == Kind::Command))
                .sum::<u64>()
    }

    /// Whether the server may hear that the client is gone: it might drop a late copy that it has not answered yet
    /// together with the connection.
    fn may_end(&self) -> bool {
        let is_late_answered = !self.delivered || self.unanswered == 0;
        is_late_answered && self.streams.is_empty()
    }

    fn push_before_end(&mut self, packet: Packet) {
        let ended = self
            .queue
            .back()
            .is_some_and(|last| last.kind() == Kind::End);
        let at = self.queue.len() - usize::from(ended);
        self.queue.insert(at, packet);
    }

    /// Whether the first packet belongs to a stream that has lost a request. That its client gives the stream up is
    /// told all the same.
    fn goes_on_with_lost_request(&mut self) -> bool {
        let Some(first) = self.queue.front() else {
            return false;
        };
        match first.kind() {
            Kind::Command | Kind::Rest => self.losing.contains(&first.message.stream),
            Kind::Cancel => {
                self.losing.remove(&first.message.stream);
                false
            }
            _ => false,
        }
    }

    /// Whether the first packet is to be lost with the pushes: one itself, or the rest of one that was.
    fn loses_first(&mut self, drop_pushes: bool) -> bool {
        let Some(first) = self.queue.front() else {
            return false;
        };
        let stream = first.message.stream;
        match first.kind() {
            Kind::Push if drop_pushes => {
                self.losing.insert(stream);
                true
            }
            Kind::Push | Kind::Reply => {
                self.losing.remove(&stream);
                false
            }
            Kind::Rest => self.losing.contains(&stream),
            _ => false,
        }
    }
}

impl Streams {
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.owed.is_empty()
    }

    fn hold(&self, stream: u32) -> bool {
        self.held.contains_key(&stream)
    }
}

#[cfg(test)]
mod tests;
