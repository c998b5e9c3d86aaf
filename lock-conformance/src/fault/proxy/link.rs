//! One client connection and its connection to the server.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::codec::{Codec, Protocol, Way};
use super::message::{Call, Kind, Message};
use super::rules::{Packet, Pipe, Step};
use super::scope::Peer;
use super::stats::Stats;
use super::{Shared, State};

/// The connections that are not closed on both sides, by number.
pub(super) type Links = BTreeMap<u64, Link>;

/// How a connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum How {
    /// With an end of file.
    Fin,
    /// With a reset.
    Rst,
}

/// The state of one connection, under the proxy's lock.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    client: Side,
    server: Side,
    codec: Codec,
    up_arrival: Arc<Notify>,
    down_arrival: Arc<Notify>,
}

/// One of the two sockets of a link.
#[derive(Debug)]
struct Side {
    phase: Phase,
    /// How the tester wants it closed.
    close: watch::Sender<Option<How>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Not connected yet.
    Coming,
    Open,
    /// Its peer has closed; the other direction may still be used.
    Ended,
    Closed,
}

impl Side {
    fn new(phase: Phase) -> Side {
        Side {
            phase,
            close: watch::Sender::new(None),
        }
    }

    fn told_to_close(&self) -> bool {
        self.close.borrow().is_some()
    }
}

impl Link {
    fn new(protocol: Protocol, peer: Peer) -> Link {
        Link {
            peer,
            up: Pipe::default(),
            down: Pipe::default(),
            client: Side::new(Phase::Open),
            server: Side::new(Phase::Coming),
            codec: Codec::new(protocol),
            up_arrival: Arc::default(),
            down_arrival: Arc::default(),
        }
    }

    pub(super) fn client_is_there(&self) -> bool {
        self.client.phase == Phase::Open
    }

    pub(super) fn server_is_there(&self) -> bool {
        matches!(self.server.phase, Phase::Open | Phase::Ended)
    }

    pub(super) fn close_client(&self, how: How) {
        self.client.close.send_replace(Some(how));
    }

    pub(super) fn close_server(&self, how: How) {
        self.server.close.send_replace(Some(how));
    }

    pub(super) fn is_closed_as_told(&self) -> bool {
        [&self.client, &self.server]
            .iter()
            .all(|side| !side.told_to_close() || side.phase == Phase::Closed)
    }

    fn is_closed(&self) -> bool {
        self.client.phase == Phase::Closed && self.server.phase == Phase::Closed
    }

    fn sender(&mut self, way: Way) -> &mut Side {
        self.receiver(way.back())
    }

    fn receiver(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Up => &mut self.server,
            Way::Down => &mut self.client,
        }
    }

    fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// Puts a message on its way, unless there is nobody any more whom it could reach.
    fn enqueue(&mut self, totals: &mut Stats, way: Way, message: Message) {
        let kind = message.kind;
        match kind {
            Kind::Reply => {
                totals.replies += 1;
                totals.late_replies += u64::from(message.late || !self.client_is_there());
            }
            Kind::Push => totals.pushes += 1,
            _ => {}
        }
        // Watch events answer the call whose stream they come on; other pushes answer nothing.
        if kind == Kind::Reply || (kind == Kind::Push && message.stream > 0) {
            self.up.answered(message.stream);
            self.up_arrival.notify_one();
        }
        if self.receiver(way).phase == Phase::Closed {
            totals.replies_dropped += u64::from(kind == Kind::Reply);
            return;
        }
        self.pipe(way).push(Packet::new(message, now()));
        self.arrival(way).notify_one();
    }

    fn end(&mut self, totals: &mut Stats, way: Way) {
        self.enqueue(totals, way, Message::new(Vec::new(), Kind::End));
    }

    /// Throws the first packet of a direction away.
    fn discard_first(&mut self, totals: &mut Stats, way: Way) {
        let Some(Packet { message, .. }) = self.pipe(way).pop() else {
            return;
        };
        match (way, message.kind) {
            (Way::Up, Kind::Command | Kind::Raw) => totals.requests_dropped += 1,
            (Way::Down, Kind::Reply | Kind::Raw) => totals.replies_dropped += 1,
            (Way::Down, Kind::Push) => totals.pushes_dropped += 1,
            _ => {}
        }
        if let Some(compensation) = self.codec.compensation(&message) {
            self.enqueue(totals, way.back(), compensation);
        }
    }

    fn arrival(&self, way: Way) -> &Arc<Notify> {
        match way {
            Way::Up => &self.up_arrival,
            Way::Down => &self.down_arrival,
        }
    }
}

/// Serves one client connection until both its sides are closed.
pub(super) async fn run(shared: Arc<Shared>, client: TcpStream, addr: SocketAddr) {
    let id = shared.register(addr);
    // A refused connection to the server, or one that breaks, is an end of file for the client: `close` passes it on.
    tokio::join!(
        async {
            let how = serve_client(&shared, id, &client).await;
            shared.closed(id, Way::Down, close(client, how));
        },
        async {
            let closed = serve_server(&shared, id).await;
            shared.closed(id, Way::Up, closed);
        }
    );
}

/// Proof that a socket is closed, before anybody is told so.
struct Closed;

/// Closes a socket.
fn close(stream: TcpStream, how: How) -> Closed {
    let socket = SockRef::from(&stream);
    // The peer may have closed already; then there is nothing to say to it.
    let _ = match how {
        // Said before the socket goes: one that goes with bytes unread sends a reset instead.
        How::Fin => socket.shutdown(std::net::Shutdown::Both),
        How::Rst => socket.set_linger(Some(Duration::ZERO)),
    };
    drop(stream);
    Closed
}

async fn serve_client(shared: &Shared, id: u64, client: &TcpStream) -> How {
    let Some(mut told) = shared.told_to_close(id, Way::Down) else {
        return How::Fin;
    };
    let _ = client.set_nodelay(true);
    let flow = async {
        tokio::try_join!(
            fill(shared, id, Way::Up, client),
            drain(shared, id, Way::Down, client)
        )
    };
    tokio::select! {
        how = wait_told(&mut told) => how,
        _ = flow => How::Fin,
    }
}

async fn serve_server(shared: &Shared, id: u64) -> Closed {
    let Some(mut told) = shared.told_to_close(id, Way::Up) else {
        return Closed;
    };
    let connected = tokio::select! {
        _ = wait_told(&mut told) => return Closed,
        connected = connect(shared, id) => connected,
    };
    let Ok(server) = connected else {
        return Closed;
    };
    shared.connected(id);
    let how = {
        let flow = async {
            tokio::try_join!(
                fill(shared, id, Way::Down, &server),
                drain(shared, id, Way::Up, &server)
            )
        };
        tokio::select! {
            how = wait_told(&mut told) => how,
            _ = flow => How::Fin,
        }
    };
    close(server, how)
}

/// Connects to the server once that is allowed.
async fn connect(shared: &Shared, id: u64) -> io::Result<TcpStream> {
    let allowed = |state: &mut State| {
        let State { rules, links, .. } = state;
        links
            .get(&id)
            .is_none_or(|link| !rules.ruling(&link.peer).black_hole())
    };
    shared.allowed(allowed).await;
    let upstream = shared.lock().upstream;
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

async fn wait_told(told: &mut watch::Receiver<Option<How>>) -> How {
    match told.wait_for(Option::is_some).await {
        Ok(how) => how.unwrap_or(How::Fin),
        // The link is gone, and with it whoever could tell.
        Err(_) => How::Fin,
    }
}

/// Reads from `source` into the pipe that leads away from it, until its end.
async fn fill(shared: &Shared, id: u64, way: Way, source: &TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        source.readable().await?;
        match source.try_read(&mut chunk) {
            Ok(0) => {
                shared.ended(id, way);
                return Ok(());
            }
            Ok(n) => shared.arrived(id, way, &chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes to `sink` what the rules let through, until the end has passed.
async fn drain(shared: &Shared, id: u64, way: Way, sink: &TcpStream) -> io::Result<()> {
    let mut changes = shared.changes.subscribe();
    let Some(arrival) = shared.arrival(id, way) else {
        return Ok(());
    };
    loop {
        changes.borrow_and_update();
        match shared.turn(id, way, sink)? {
            Turn::End => {
                return SockRef::from(sink).shutdown(std::net::Shutdown::Write);
            }
            Turn::Full => sink.writable().await?,
            Turn::Wait(until) => tokio::select! {
                _ = changes.changed() => {}
                () = arrival.notified() => {}
                () = sleep_until_some(until) => {}
            },
        }
    }
}

async fn sleep_until_some(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// How a turn of writing ended.
enum Turn {
    /// The direction is to be closed.
    End,
    /// The socket takes no more for now.
    Full,
    /// There is nothing to write before something changes, or before this instant.
    Wait(Option<Instant>),
}

/// What the tasks of a link do to the state.
impl Shared {
    fn register(&self, addr: SocketAddr) -> u64 {
        let mut state = self.lock();
        state.totals.accepted += 1;
        let number = state.totals.accepted;
        let peer = Peer { number, addr };
        state.links.insert(number, Link::new(self.protocol, peer));
        drop(state);
        self.news.send_replace(());
        number
    }

    fn told_to_close(&self, id: u64, towards: Way) -> Option<watch::Receiver<Option<How>>> {
        let mut state = self.lock();
        let side = state.links.get_mut(&id)?.receiver(towards);
        Some(side.close.subscribe())
    }

    fn arrival(&self, id: u64, way: Way) -> Option<Arc<Notify>> {
        Some(Arc::clone(self.lock().links.get(&id)?.arrival(way)))
    }

    fn connected(&self, id: u64) {
        self.update(id, |link, _| link.server.phase = Phase::Open);
    }

    fn arrived(&self, id: u64, way: Way, chunk: &[u8]) {
        self.update(id, |link, totals| {
            for message in link.codec.feed(way, chunk) {
                link.enqueue(totals, way, message);
            }
        });
    }

    /// The sender of `way` has closed.
    fn ended(&self, id: u64, way: Way) {
        self.update(id, |link, totals| {
            if let Some(rest) = link.codec.rest(way) {
                link.enqueue(totals, way, rest);
            }
            link.end(totals, way);
            link.sender(way).phase = Phase::Ended;
        });
    }

    /// The socket that `way` led to is closed: what was under way to it is lost, and the other side is to hear of it.
    fn closed(&self, id: u64, way: Way, _proof: Closed) {
        self.update(id, |link, totals| {
            totals.replies_dropped += link.pipe(way).count(Kind::Reply);
            link.pipe(way).clear();
            let before = std::mem::replace(&mut link.receiver(way).phase, Phase::Closed);
            if before != Phase::Ended {
                link.end(totals, way.back());
            }
        });
        let mut state = self.lock();
        if state.links.get(&id).is_some_and(Link::is_closed) {
            state.links.remove(&id);
        }
    }

    /// Writes until the rules or the socket say stop. Under the lock, so that a switch that has returned has no write
    /// behind it.
    fn turn(&self, id: u64, way: Way, sink: &TcpStream) -> io::Result<Turn> {
        let mut state = self.lock();
        let State {
            rules,
            links,
            totals,
            calls,
            ..
        } = &mut *state;
        let Some(link) = links.get_mut(&id) else {
            return Ok(Turn::End);
        };
        if link.receiver(way).told_to_close() {
            return Ok(Turn::Wait(None));
        }
        let mut ruling = rules.ruling(&link.peer);
        let now = now();
        let turn = loop {
            let step = match way {
                Way::Up => ruling.step_up(&mut link.up, now),
                Way::Down => ruling.step_down(&mut link.down, now),
            };
            match step {
                Step::Wait(until) => break Turn::Wait(until),
                Step::End => break Turn::End,
                Step::Set => link.pipe(way).set_first(),
                Step::Discard => link.discard_first(totals, way),
                Step::Send => match send_first(totals, way, link.pipe(way), sink) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Turn::Full,
                    sent => calls.extend(sent?),
                },
            }
        };
        self.news.send_replace(());
        Ok(turn)
    }

    fn update(&self, id: u64, change: impl FnOnce(&mut Link, &mut Stats)) {
        let mut state = self.lock();
        let State { links, totals, .. } = &mut *state;
        if let Some(link) = links.get_mut(&id) {
            change(link, totals);
        }
        drop(state);
        self.news.send_replace(());
    }
}

/// Writes as much as the socket takes; gives the call that is under way to the server with that.
fn send_first(
    totals: &mut Stats,
    way: Way,
    pipe: &mut Pipe,
    sink: &TcpStream,
) -> io::Result<Option<Call>> {
    let Some(first) = pipe.first() else {
        return Ok(None);
    };
    let bytes = &first.message.bytes;
    let written = sink.try_write(&bytes[first.sent..])?;
    first.sent += written;
    let is_whole = first.sent == bytes.len();
    let count = match way {
        Way::Up => &mut totals.bytes_up,
        Way::Down => &mut totals.bytes_down,
    };
    *count += u64::try_from(written).unwrap_or(u64::MAX);
    if !is_whole {
        return Ok(None);
    }
    if first.kind() == Kind::Command {
        totals.commands += 1;
        pipe.asked();
    }
    Ok(pipe.pop().and_then(|packet| packet.message.call))
}

#[expect(
    clippy::disallowed_methods,
    reason = "delays real bytes; nothing here is simulated"
)]
fn now() -> Instant {
    Instant::now()
}
