//! One client connection and its connection to the server.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::rules::{Kind, Packet, Pipe, Step};
use super::split::{Splitter, is_resp, kind_down, kind_up};
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

/// Which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    fn back(self) -> Way {
        match self {
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }
}

/// The state of one connection, under the proxy's lock.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    client: Side,
    server: Side,
    /// Whether RESP is spoken; unknown until the client's first bytes.
    resp: Option<bool>,
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
    fn new() -> Link {
        Link {
            up: Pipe::default(),
            down: Pipe::default(),
            client: Side::new(Phase::Open),
            server: Side::new(Phase::Coming),
            resp: None,
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

    /// Puts something on its way, unless there is nobody any more whom it could reach.
    fn enqueue(&mut self, totals: &mut Stats, way: Way, bytes: Vec<u8>, kind: Kind) {
        match kind {
            Kind::Reply => {
                totals.replies += 1;
                totals.late_replies += u64::from(self.client.phase != Phase::Open);
            }
            Kind::Push => totals.pushes += 1,
            Kind::Command | Kind::Raw | Kind::End => {}
        }
        if self.receiver(way).phase == Phase::Closed {
            totals.replies_dropped += u64::from(kind == Kind::Reply);
            return;
        }
        self.pipe(way).push(Packet {
            bytes,
            kind,
            arrived: now(),
            sent: 0,
        });
        self.arrival(way).notify_one();
    }

    fn arrival(&self, way: Way) -> &Arc<Notify> {
        match way {
            Way::Up => &self.up_arrival,
            Way::Down => &self.down_arrival,
        }
    }
}

/// Serves one client connection until both its sides are closed.
pub(super) async fn run(shared: Arc<Shared>, client: TcpStream) {
    let id = shared.register();
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
        connected = connect(shared) => connected,
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
async fn connect(shared: &Shared) -> io::Result<TcpStream> {
    shared.allowed(|rules| !rules.black_hole).await;
    let server = TcpStream::connect(shared.upstream).await?;
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
    let mut splitter = Splitter::default();
    loop {
        source.readable().await?;
        match source.try_read(&mut chunk) {
            Ok(0) => {
                shared.ended(id, way, splitter.rest());
                return Ok(());
            }
            Ok(n) => shared.arrived(id, way, &chunk[..n], &mut splitter),
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
    fn register(&self) -> u64 {
        let mut state = self.lock();
        state.totals.accepted += 1;
        let id = state.totals.accepted;
        state.links.insert(id, Link::new());
        drop(state);
        self.news.send_replace(());
        id
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

    fn arrived(&self, id: u64, way: Way, chunk: &[u8], splitter: &mut Splitter) {
        self.update(id, |link, totals| {
            let (resp, kind_of): (bool, fn(&[u8]) -> Kind) = match way {
                // The first bytes decide; later chunks may begin anywhere.
                Way::Up => (*link.resp.get_or_insert_with(|| is_resp(chunk)), kind_up),
                Way::Down => (link.resp == Some(true), kind_down),
            };
            for (bytes, kind) in splitter.feed(chunk, resp, kind_of) {
                link.enqueue(totals, way, bytes, kind);
            }
        });
    }

    /// The sender of `way` has closed.
    fn ended(&self, id: u64, way: Way, rest: Option<Vec<u8>>) {
        self.update(id, |link, totals| {
            if let Some(rest) = rest {
                link.enqueue(totals, way, rest, Kind::Raw);
            }
            link.enqueue(totals, way, Vec::new(), Kind::End);
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
                link.enqueue(totals, way.back(), Vec::new(), Kind::End);
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
            ..
        } = &mut *state;
        let Some(link) = links.get_mut(&id) else {
            return Ok(Turn::End);
        };
        if link.receiver(way).told_to_close() {
            return Ok(Turn::Wait(None));
        }
        let now = now();
        let turn = loop {
            let step = match way {
                Way::Up => rules.step_up(&mut link.up, now),
                Way::Down => rules.step_down(&mut link.down, now),
            };
            match step {
                Step::Wait(until) => break Turn::Wait(until),
                Step::End => break Turn::End,
                Step::Discard => count_discarded(totals, link.pipe(way).pop()),
                Step::Send => match send_first(totals, way, link.pipe(way), sink) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Turn::Full,
                    result => result?,
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

fn send_first(totals: &mut Stats, way: Way, pipe: &mut Pipe, sink: &TcpStream) -> io::Result<()> {
    let Some(first) = pipe.first() else {
        return Ok(());
    };
    let written = sink.try_write(&first.bytes[first.sent..])?;
    first.sent += written;
    let bytes = match way {
        Way::Up => &mut totals.bytes_up,
        Way::Down => &mut totals.bytes_down,
    };
    *bytes += u64::try_from(written).unwrap_or(u64::MAX);
    if first.sent == first.bytes.len() {
        totals.commands += u64::from(first.kind == Kind::Command);
        pipe.pop();
    }
    Ok(())
}

fn count_discarded(totals: &mut Stats, packet: Option<Packet>) {
    match packet.map(|packet| packet.kind) {
        Some(Kind::Reply) => totals.replies_dropped += 1,
        Some(Kind::Push) => totals.pushes_dropped += 1,
        _ => {}
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "delays real bytes; nothing here is simulated"
)]
fn now() -> Instant {
    Instant::now()
}
