//! A TCP proxy that a test scripts.
//!
//! It runs on a thread and a runtime of its own, since it has to work while the tester's runtime is blocked. All state
//! is behind one lock, and a byte is written only under it: once a switch returns, nothing more flows that it forbids.

mod codec;
mod link;
mod message;
mod rules;
mod stats;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use self::codec::Protocol;
use self::link::{How, Link, Links};
pub use self::message::Call;
use self::message::Message;
use self::rules::{Replies, Rules};
pub use self::stats::Stats;
use crate::servers::free_port;
use crate::wait::poll;

/// How long the proxy's own thread may take to carry out a switch. It only matters when something is broken.
const SWITCH_DEADLINE: Duration = Duration::from_secs(10);

/// A TCP proxy on 127.0.0.1 in front of one server; stops, and closes every connection, when dropped.
///
/// Switches hold for current and future connections, combine, and last until they are switched back. A switch has
/// taken effect when its method returns. The methods block for about a millisecond at most, and may be called from
/// anywhere.
///
/// Closing and killing are passed on as they come: a client that closes lets the server see an end of file, and the
/// other way round, behind everything sent before it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
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

    /// Everything flows again: takes back every other switch, and lets held replies go.
    ///
    /// Requests already held stay so until [`deliver_held`](Self::deliver_held), and a connection that lost a reply
    /// stays silent.
    pub fn pass(&self) {
        self.switch(|rules| *rules = Rules::default());
        self.await_listening(true);
    }

    /// Closes all connections in an orderly way: both sides see an end of file. New ones are accepted.
    ///
    /// A connection with a held request is closed towards the client only.
    pub fn cut(&self) {
        self.close_all(How::Fin);
    }

    /// Like [`cut`](Self::cut), with a reset instead of an end of file.
    pub fn reset(&self) {
        self.close_all(How::Rst);
    }

    /// Refuses new connections, as a server that does not run does. Current ones go on.
    pub fn refuse(&self) {
        self.switch(|rules| rules.refuse = true);
        self.await_listening(false);
    }

    /// Accepts new connections again.
    pub fn accept(&self) {
        self.switch(|rules| rules.refuse = false);
        self.await_listening(true);
    }

    /// Nothing flows either way, not even a close; connections stay open.
    ///
    /// New ones are accepted (the kernel does that), and the server does not hear of them. What is sent meanwhile
    /// flows after [`heal`](Self::heal), as after a partition that TCP has survived.
    pub fn black_hole(&self) {
        self.switch(|rules| rules.black_hole = true);
    }

    /// Ends [`black_hole`](Self::black_hole).
    pub fn heal(&self) {
        self.switch(|rules| rules.black_hole = false);
    }

    /// Lets everything arrive `each_way` later than it was sent. Zero ends it.
    pub fn delay(&self, each_way: Duration) {
        self.switch(|rules| rules.delay = each_way);
    }

    /// Requests are forwarded, replies are kept: executed, not answered.
    pub fn hold_replies(&self) {
        self.switch(|rules| rules.replies = Replies::Hold);
    }

    /// Lets held replies go, and later ones pass.
    pub fn release_replies(&self) {
        self.switch(|rules| rules.replies = Replies::Pass);
    }

    /// Requests are forwarded, replies are thrown away: executed, never answered. Held replies are thrown away too.
    ///
    /// A connection that lost a reply stays silent towards the client for good, also after [`pass`](Self::pass): with
    /// one reply missing, the next one would be taken for the answer to the wrong request, which no network does.
    pub fn drop_replies(&self) {
        self.switch(|rules| rules.replies = Replies::Drop);
    }

    /// Throws away what the server sends unasked: every RESP3 push except the confirmations of subscribing and
    /// unsubscribing, every watch that fires in ZooKeeper, every answer of an etcd watch that has events in it.
    ///
    /// [`pass`](Self::pass) and [`pass_pushes`](Self::pass_pushes) end it.
    pub fn drop_pushes(&self) {
        self.switch(|rules| rules.drop_pushes = true);
    }

    /// Ends [`drop_pushes`](Self::drop_pushes).
    pub fn pass_pushes(&self) {
        self.switch(|rules| rules.drop_pushes = false);
    }

    /// Holds the first client command that matches, and everything behind it on its connection, or, in HTTP/2, on its
    /// stream, its cancellation too.
    ///
    /// `matches` sees one whole RESP command or ZooKeeper request as it was written ([`resp::is_command`],
    /// [`jute::is_request`]), a gRPC message (as far as its first data frame goes), or a chunk of bytes where the
    /// protocol is not spoken. It is forgotten after its first match, so that the retry on the next connection passes.
    /// It must not call the proxy.
    ///
    /// The connection to the server stays open whatever the client does: a request under way in the network.
    ///
    /// [`resp::is_command`]: super::resp::is_command
    /// [`jute::is_request`]: super::jute::is_request
    pub fn hold_requests_matching(&self, matches: impl Fn(&[u8]) -> bool + Send + 'static) {
        self.hold(move |message| matches(&message.bytes[message.body..]));
    }

    /// Like [`hold_requests_matching`](Self::hold_requests_matching), and only for a [`Call`] with this name.
    ///
    /// Holds nothing where RESP or nothing known is spoken.
    pub fn hold_calls(&self, name: &str, matches: impl Fn(&[u8]) -> bool + Send + 'static) {
        let name = name.to_owned();
        self.hold(move |message| {
            let call = message.call.as_ref();
            call.is_some_and(|call| call.name == name) && matches(&message.bytes[message.body..])
        });
    }

    /// Sends held requests on, over their old connections, and says how many there were: the late copy.
    ///
    /// The server's answers to a client that is gone, or that has given the request up, are counted as
    /// [`Stats::late_replies`]: wait for those to know that the late copy was executed. A cancellation that was held
    /// with a request follows behind its answer.
    pub fn deliver_held(&self) -> u64 {
        let delivered = self.stats().held_requests;
        let mut state = self.shared.lock();
        state.rules.hold = None;
        for link in state.links.values_mut() {
            link.up.let_go();
        }
        drop(state);
        self.shared.announce();
        delivered
    }

    /// Throws held requests away, and closes the connections they were held on: lost in the network.
    pub fn discard_held(&self) {
        let mut state = self.shared.lock();
        state.rules.hold = None;
        let mut closing = Vec::new();
        for (id, link) in &mut state.links {
            if link.up.is_held() {
                link.up.clear();
                link.close_client(How::Rst);
                link.close_server(How::Rst);
                closing.push(*id);
            }
        }
        drop(state);
        self.await_closed(&closing);
    }

    /// What has passed so far, and what is held now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        read_stats(&state.totals, &state.rules, state.links.values())
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

    fn hold(&self, matches: impl Fn(&Message) -> bool + Send + 'static) {
        self.switch(|rules| rules.hold = Some(Box::new(matches)));
    }

    fn switch(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.lock().rules);
        self.shared.announce();
    }

    fn close_all(&self, how: How) {
        let mut closing = Vec::new();
        for (id, link) in &mut self.shared.lock().links {
            link.close_client(how);
            if !link.up.is_held() {
                link.close_server(how);
            }
            closing.push(*id);
        }
        self.await_closed(&closing);
    }

    /// Waits until the connections named are closed as far as they were told to.
    fn await_closed(&self, ids: &[u64]) {
        let closed = || {
            let state = self.shared.lock();
            let mut links = ids.iter().filter_map(|id| state.links.get(id));
            links.all(Link::is_closed_as_told).then_some(())
        };
        poll(SWITCH_DEADLINE, closed).expect("the proxy's thread closes connections");
    }

    fn await_listening(&self, wanted: bool) {
        let reached = || (self.shared.lock().listening == wanted).then_some(());
        poll(SWITCH_DEADLINE, reached).expect("the proxy's thread follows");
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
    upstream: SocketAddr,
    protocol: Protocol,
    state: Mutex<State>,
    /// Rules have changed: whoever waits must look again.
    changes: watch::Sender<()>,
    /// Numbers have changed.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    links: Links,
    totals: Stats,
    calls: Vec<Call>,
    listening: bool,
}

impl Shared {
    fn new(upstream: SocketAddr, protocol: Protocol) -> Shared {
        Shared {
            upstream,
            protocol,
            state: Mutex::new(State {
                rules: Rules::default(),
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

    /// Waits until the rules allow it.
    async fn allowed(&self, allowed: impl Fn(&Rules) -> bool) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if allowed(&self.lock().rules) {
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
            () = shared.allowed(|rules| rules.refuse) => {}
            () = accept_all(&shared, &listener, &mut connections) => {}
        }
        drop(listener);
        shared.lock().listening = false;
        shared.allowed(|rules| !rules.refuse).await;
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
            Ok((client, _)) => {
                connections.spawn(link::run(Arc::clone(shared), client));
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
fn read_stats<'a>(totals: &Stats, rules: &Rules, links: impl Iterator<Item = &'a Link>) -> Stats {
    let mut stats = *totals;
    for link in links {
        stats.open += u64::from(link.client_is_there());
        stats.open_upstream += u64::from(link.server_is_there());
        stats.held_requests += link.up.held();
        if rules.replies == Replies::Hold {
            stats.held_replies += link.down.waiting();
        }
    }
    stats
}
