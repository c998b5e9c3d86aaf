//! What happens to messages between the processes and the server, and who waits for which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{Notify, mpsc, oneshot};

use super::plan::{LATEST, Weather};
use super::protocol::Reply;
use super::world::Push;
use crate::backend::Event;
use crate::owner::Nonce;

/// The connection broke, and that was noticed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

/// What becomes of one message.
pub(super) enum Fate {
    Arrives(Duration),
    /// So late that whoever waits for it may have given up.
    Late(Duration),
    Lost,
}

pub(super) struct Network {
    rng: Rng,
    weather: Weather,
    links: Vec<Link>,
    stalled_until: Duration,
    down_until: Duration,
}

impl Network {
    pub(super) fn new(rng: Rng, weather: Weather, processes: usize) -> Self {
        Self {
            rng,
            weather,
            links: (0..processes).map(|_| Link::default()).collect(),
            stalled_until: Duration::ZERO,
            down_until: Duration::ZERO,
        }
    }

    pub(super) fn processes(&self) -> usize {
        self.links.len()
    }

    pub(super) fn link(&mut self, process: usize) -> &mut Link {
        &mut self.links[process]
    }

    /// Decides about a message that is sent now.
    pub(super) fn fate(&mut self, process: usize, now: Duration) -> Fate {
        let delay = self.delay();
        let Partition { until, held } = self.links[process].partition;
        if until > now {
            return if held {
                Fate::Late(until + delay)
            } else {
                Fate::Lost
            };
        }
        if self.happens(self.weather.lost) {
            return Fate::Lost;
        }
        if self.happens(self.weather.late) {
            return Fate::Late(now + self.lateness());
        }
        Fate::Arrives(now + delay)
    }

    /// How much later a message arrives once more, if it does.
    pub(super) fn copy(&mut self) -> Option<Duration> {
        self.happens(self.weather.copied).then(|| self.lateness())
    }

    pub(super) fn partition(&mut self, process: usize, until: Duration, held: bool) {
        self.links[process].partition = Partition { until, held };
    }

    pub(super) fn stall_server(&mut self, until: Duration) {
        self.stalled_until = self.stalled_until.max(until);
    }

    pub(super) fn restart_server(&mut self, until: Duration) {
        self.down_until = self.down_until.max(until);
    }

    pub(super) fn server_is_down(&self, now: Duration) -> bool {
        self.down_until > now
    }

    /// From when on the server does anything.
    pub(super) fn server_runs_from(&self) -> Duration {
        self.down_until.max(self.stalled_until)
    }

    /// No message that is sent from now on is lost, late or copied.
    pub(super) fn heal(&mut self) {
        self.weather = Weather::default();
    }

    /// Mostly about a millisecond, sometimes much more.
    fn delay(&mut self) -> Duration {
        let most = if self.rng.u8(..10) == 0 {
            40_000
        } else {
            2_000
        };
        Duration::from_micros(self.rng.u64(100..=most))
    }

    fn lateness(&mut self) -> Duration {
        let most = if self.rng.bool() { 300 } else { 5_900 };
        Duration::from_millis(self.rng.u64(50..=most)).min(LATEST)
    }

    fn happens(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.u32(..100) < percent
    }
}

#[derive(Clone, Copy, Default)]
struct Partition {
    until: Duration,
    /// Whether messages are held until its end, or lost.
    held: bool,
}

/// The connection of one process.
#[derive(Default)]
pub(super) struct Link {
    partition: Partition,
    down_until: Duration,
    dead: bool,
    next_request: u64,
    asked: BTreeMap<u64, oneshot::Sender<Result<Reply, Broken>>>,
    watched: BTreeMap<Nonce, Arc<Notify>>,
    events: Option<mpsc::UnboundedSender<Event>>,
    /// The tokens it has heard of.
    granted: BTreeMap<Nonce, u64>,
    /// Which nonces it has asked to be released, without an answer, and since when.
    releasing: BTreeMap<Nonce, Duration>,
}

impl Link {
    /// Where pushes go.
    pub(super) fn listen(&mut self) -> mpsc::UnboundedReceiver<Event> {
        let (events, receiver) = mpsc::unbounded_channel();
        self.events = Some(events);
        receiver
    }

    /// Prepares to be answered.
    pub(super) fn open(
        &mut self,
        now: Duration,
    ) -> Result<(u64, oneshot::Receiver<Result<Reply, Broken>>), Broken> {
        if self.dead || self.down_until > now {
            return Err(Broken);
        }
        let (answer, receiver) = oneshot::channel();
        self.next_request += 1;
        self.asked.insert(self.next_request, answer);
        Ok((self.next_request, receiver))
    }

    /// Takes note of a grant that was answered.
    pub(super) fn heard_of(&mut self, nonce: Nonce, token: u64) {
        self.granted.insert(nonce, token);
    }

    /// Takes note of a release that is asked for now.
    pub(super) fn release_asked(&mut self, nonce: Nonce, now: Duration) {
        self.releasing.entry(nonce).or_insert(now);
    }

    pub(super) fn release_answered(&mut self, nonce: &Nonce) {
        self.releasing.remove(nonce);
    }

    /// Since when it has tried in vain to have this nonce released.
    pub(super) fn releasing_since(&self, nonce: &Nonce) -> Option<Duration> {
        self.releasing.get(nonce).copied()
    }

    /// Rings when the server says that `nonce` stands differently.
    pub(super) fn watch(&mut self, nonce: Nonce) -> Arc<Notify> {
        Arc::clone(self.watched.entry(nonce).or_default())
    }

    pub(super) fn unwatch(&mut self, nonce: &Nonce) {
        self.watched.remove(nonce);
    }

    pub(super) fn answered(&mut self, id: u64, reply: Reply) {
        if let Some(answer) = self.asked.remove(&id) {
            // Who asked may have given up.
            drop(answer.send(Ok(reply)));
        }
    }

    pub(super) fn pushed(&mut self, push: Push) {
        if let Push::Look(nonce) = push {
            if let Some(watched) = self.watched.get(&nonce) {
                watched.notify_one();
            }
            return;
        }
        if let Push::Gone(nonce, token) | Push::Broken(nonce, token) = &push {
            // About a grant before the one that is known, which nobody had heard of.
            if self.granted.get(nonce).is_some_and(|known| known != token) {
                return;
            }
        }
        if let Some(event) = push.into() {
            self.tell(event);
        }
    }

    /// Fails whatever is under way, and everything else until `until`.
    pub(super) fn reset(&mut self, until: Duration) {
        self.down_until = self.down_until.max(until);
        for (_, answer) in std::mem::take(&mut self.asked) {
            // Who asked may have given up.
            drop(answer.send(Err(Broken)));
        }
    }

    pub(super) fn reconnected(&mut self) {
        self.tell(Event::Reconnected);
        for watched in self.watched.values() {
            watched.notify_one();
        }
    }

    pub(super) fn die(&mut self) {
        self.dead = true;
        self.asked.clear();
        self.events = None;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    fn tell(&mut self, event: Event) {
        if let Some(events) = &self.events {
            // A client that has ended does not listen.
            drop(events.send(event));
        }
    }
}
