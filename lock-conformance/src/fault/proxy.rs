//! A TCP proxy that a test scripts.
//!
//! It runs on a thread and a runtime of its own, since it has to work while the tester's runtime is blocked. All state
//! is behind one lock, and a byte is written only under it: once a switch returns, nothing more flows that it forbids.

mod codec;
mod connections;
mod link;
mod message;
mod rules;
mod scope;
mod stats;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use self::codec::Protocol;
pub use self::connections::Connections;
use self::link::Links;
pub use self::message::Call;
use self::rules::Replies;
pub use self::scope::Peer;
use self::scope::{Book, Scope};
pub use self::stats::Stats;
use crate::servers::free_port;
use crate::wait::poll;

/// How long the proxy's own thread may take to carry out a switch. It only matters when something is broken.
const SWITCH_DEADLINE: Duration = Duration::from_secs(10);

/// A TCP proxy on 127.0.0.1 in front of one server; stops, and closes every connection, when dropped.
///
/// It derefs to [`Connections`], the switches: for all of its connections, or, of
/// [`connection`](Self::connection), for one. What one of several switches forbids is forbidden. The methods block for
/// about a millisecond at most, and may be called from anywhere.
///
/// Closing and killing are passed on as they come: a client that closes lets the server see an end of file, and the
/// other way round, behind everything sent before it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    upstream: SocketAddr,
    shared: Arc<Shared>,
    all: Connections,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy that passes everything on to `upstream`, a Redis or anything else.
    ///
    /// # Panics
    /// If the machine refuses a port or a thread.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Proxy {
        Proxy::start_with(upstream, Protocol::Resp)
    }

    /// Starts a proxy that passes everything on to `upstream`, and whose rules understand `protocol`.
    ///
    /// # Panics
    /// If the machine refuses a port or a thread.
    #[must_use]
    pub fn start_with(upstream: SocketAddr, protocol: Protocol) -> Proxy {
        let (addr, listener) = listen().expect("a port of 127.0.0.1 can be listened on");
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .expect("a runtime can be built");
        let shared = Arc::new(Shared::new(upstream, protocol));
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new()
            .name("fault-proxy".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || run(&runtime, shared, addr, listener, stopped)
            })
            .expect("a thread can be started");
        Proxy {
            addr,
            upstream,
            all: Connections::new(Arc::clone(&shared), Scope::All),
            shared,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connection with this number: the first that is accepted has 1, [`Stats::accepted`] is the latest one's.
    ///
    /// It need not be there yet. What is switched for it holds in addition to what is switched for all.
    #[must_use]
    pub fn connection(&self, number: u64) -> Connections {
        self.of(Scope::Number(number))
    }

    /// The connections, current and future, that `selects` says yes to. It must not call the proxy.
    ///
    /// What is switched for them holds in addition to what is switched for all.
    #[must_use]
    pub fn connections(
        &self,
        selects: impl Fn(&Peer) -> bool + Send + Sync + 'static,
    ) -> Connections {
        self.of(Scope::Selected(Arc::new(selects)))
    }

    fn of(&self, scope: Scope) -> Connections {
        Connections::new(Arc::clone(&self.shared), scope)
    }

    /// Everything flows again, to the server that the proxy was started for: takes back every other switch, also those
    /// for some connections, and lets held replies go.
    ///
    /// Requests already held stay so until [`deliver_held`](Connections::deliver_held), and a connection that lost a
    /// message stays silent behind it.
    pub fn pass(&self) {
        let mut state = self.shared.lock();
        state.rules = Book::default();
        state.upstream = self.upstream;
        state.refuse = false;
        drop(state);
        self.shared.announce();
        self.await_listening(true);
    }

    /// Refuses new connections, as a server that does not run does. Current ones go on.
    pub fn refuse(&self) {
        self.shared.lock().refuse = true;
        self.shared.announce();
        self.await_listening(false);
    }

    /// Accepts new connections again.
    pub fn accept(&self) {
        self.shared.lock().refuse = false;
        self.shared.announce();
        self.await_listening(true);
    }

    /// From now on, new connections are passed on to `upstream`, as after a failover behind one address. Current ones
    /// stay where they are.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// What has passed so far, and what is held now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut state = self.shared.lock();
        read_stats(&mut state)
    }

    /// What clients have asked for since the last [`clear_calls`](Self::clear_calls), in the order in which it was
    /// passed on, all connections together. ZooKeeper's pings are left out; of RESP nothing is kept.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Forgets the calls so far, so that a count can begin after a warm-up.
    pub fn clear_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Waits, blocking this thread, until `condition` holds; gives the numbers that fulfilled it.
    ///
    /// # Panics
    /// If it does not hold within `within`.
    #[track_caller]
    pub fn wait_until(&self, within: Duration, mut condition: impl FnMut(&Stats) -> bool) -> Stats {
        poll(within, || Some(self.stats()).filter(|s| condition(s)))
            .unwrap_or_else(|| panic!("not within {within:?}; the proxy saw {:?}", self.stats()))
    }

    /// Waits, without blocking the thread, until `condition` holds; gives the numbers that fulfilled it.
    ///
    /// The deadline runs on the proxy's own clock, so that this also works under paused time.
    ///
    /// # Panics
    /// If it does not hold within `within`.
    ///
    /// # Cancel safety
    /// Cancel safe; it only looks.
    pub async fn until(
        &self,
        within: Duration,
        mut condition: impl FnMut(&Stats) -> bool,
    ) -> Stats {
        let mut news = self.shared.news.subscribe();
        let mut deadline = self
            .runtime
            .spawn(async move { tokio::time::sleep(within).await });
        loop {
            news.borrow_and_update();
            let stats = self.stats();
            if condition(&stats) {
                deadline.abort();
                return stats;
            }
            tokio::select! {
                _ = news.changed() => {}
                _ = &mut deadline => panic!("not within {within:?}; the proxy saw {stats:?}"),
            }
        }
    }

    fn await_listening(&self, wanted: bool) {
        let reached = || (self.shared.lock().listening == wanted).then_some(());
        poll(SWITCH_DEADLINE, reached).expect("the proxy's thread follows");
    }
}

impl Deref for Proxy {
    type Target = Connections;

    fn deref(&self) -> &Connections {
        &self.all
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Dropping the sender stops the thread's one future; its runtime then drops every connection.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the tester's threads and the proxy's thread have in common.
#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    state: Mutex<State>,
    /// Rules have changed: whoever waits must look again.
    changes: watch::Sender<()>,
    /// Numbers have changed.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// Where new connections are passed on to.
    upstream: SocketAddr,
    refuse: bool,
    rules: Book,
    links: Links,
    totals: Stats,
    calls: Vec<Call>,
    listening: bool,
}

impl Shared {
    fn new(upstream: SocketAddr, protocol: Protocol) -> Shared {
        Shared {
            protocol,
            state: Mutex::new(State {
                upstream,
                refuse: false,
                rules: Book::default(),
                links: BTreeMap::new(),
                totals: Stats::default(),
                calls: Vec::new(),
                listening: true,
            }),
            changes: watch::Sender::new(()),
            news: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A tester's predicate may panic under the lock; the proxy must still stop in an orderly way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody to look again.
    fn announce(&self) {
        self.changes.send_replace(());
        self.news.send_replace(());
    }

    /// Waits until the switches allow it.
    async fn allowed(&self, allowed: impl Fn(&mut State) -> bool) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if allowed(&mut self.lock()) {
                return;
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }
}

/// Listens on a free port below the ephemeral range: `accept` has to get it back after a `refuse`.
fn listen() -> io::Result<(SocketAddr, std::net::TcpListener)> {
    let mut attempts_left = 10;
    loop {
        attempts_left -= 1;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        match std::net::TcpListener::bind(addr) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok((addr, listener));
            }
            Err(error) if attempts_left == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// The proxy's thread.
fn run(
    runtime: &Runtime,
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: std::net::TcpListener,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
        tokio::select! {
            _ = stopped => {}
            () = serve(shared, addr, listener) => {}
        }
    });
}

/// Accepts connections, and does not listen at all while they are refused.
async fn serve(shared: Arc<Shared>, addr: SocketAddr, mut listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shared.allowed(|state| state.refuse) => {}
            () = accept_all(&shared, &listener, &mut connections) => {}
        }
        drop(listener);
        shared.lock().listening = false;
        shared.allowed(|state| !state.refuse).await;
        listener = listen_again(addr).await;
        shared.lock().listening = true;
    }
}

/// Accepts for ever. Connections are tasks of a set, so that they end with the proxy.
async fn accept_all(shared: &Arc<Shared>, listener: &TcpListener, connections: &mut JoinSet<()>) {
    loop {
        while connections.try_join_next().is_some() {}
        // An error concerns a connection that was gone before it was accepted, or a lack of file descriptors: neither
        // is a reason to stop, and the latter must not spin.
        match listener.accept().await {
            Ok((client, addr)) => {
                connections.spawn(link::run(Arc::clone(shared), client, addr));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn listen_again(addr: SocketAddr) -> TcpListener {
    loop {
        if let Ok(listener) = TcpListener::bind(addr).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Adds to the running totals what only the connections know.
fn read_stats(state: &mut State) -> Stats {
    let mut stats = state.totals;
    for link in state.links.values() {
        stats.open += u64::from(link.client_is_there());
        stats.open_upstream += u64::from(link.server_is_there());
        stats.held_requests += link.up.held();
        if state.rules.ruling(&link.peer).replies() == Replies::Hold {
            stats.held_replies += link.down.waiting();
        }
    }
    stats
}
