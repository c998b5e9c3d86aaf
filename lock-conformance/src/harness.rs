//! What the author of a backend hands to the suite.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lock_core::{Capabilities, ClientOptions, Connect, Context, Identity};

use crate::case::{Case, Fault};
use crate::witness::Witness;

/// A backend under test: how to reach it, how fast it is, what it does not promise.
///
/// One harness serves the whole run; each case gets an [`Arena`] of its own. A harness should be
/// cheap to make: the same program is also every worker process, and starts no server there.
pub trait Harness: Send + Sync + 'static {
    /// The backend, as the report calls it.
    fn name(&self) -> &str;

    /// How short leases may be here.
    fn pace(&self) -> Pace;

    /// A place for one case, where no other case of this run is met: a fresh store, a server of its
    /// own, or a shared server under a prefix of its own.
    ///
    /// # Errors
    /// [`Missing`] when a server is not installed or does not answer.
    fn arena(&self, case: &Case) -> Result<Arena, Missing>;

    /// The cases this backend is known not to pass, each with its reason. They are reported, never
    /// silently skipped. Defaults to none.
    fn deviations(&self) -> &[Deviation] {
        &[]
    }

    /// Whether arenas of this harness can break things in this way. Defaults to no.
    fn supports(&self, fault: Fault) -> bool {
        let _ = fault;
        false
    }

    /// Whether worker processes can reach the backend: then [`Arena::with_spec`] has been called, and
    /// [`connector`](Self::connector) reads it. Defaults to no.
    fn crosses_processes(&self) -> bool {
        false
    }

    /// In a worker process: the connector of the arena with this spec. Defaults to none.
    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        let _ = spec;
        None
    }

    /// How many cases a test program runs side by side unless its command line says otherwise. Most of them wait most
    /// of the time, so this is not bound to the number of cores. Defaults to 4.
    fn side_by_side(&self) -> usize {
        4
    }

    /// The command that runs this case alone, for a failure to print; `None` for the usual one of a program
    /// made by [`main!`](crate::main).
    fn again(&self, case: &Case) -> Option<String> {
        let _ = case;
        None
    }
}

/// How fast a backend can be driven.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The shortest TTL that a healthy client on a busy machine keeps up with.
    pub ttl: Duration,
    /// What the suite adds to every upper bound for scheduling and the network.
    pub slack: Duration,
    /// The operation timeout that clients of the suite use.
    pub op_timeout: Duration,
    /// How many requests, as [`Faults::scripts`] counts them, a hand-off from one task of a client to
    /// the next costs: 1 where releasing and queueing are one step at the backend.
    pub local_hand_off: u64,
}

impl Pace {
    /// A pace with TTLs of `ttl`, half a second of slack, an operation timeout of 2 s, and
    /// hand-offs within a client in one step.
    #[must_use]
    pub const fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            slack: Duration::from_millis(500),
            op_timeout: Duration::from_secs(2),
            local_hand_off: 1,
        }
    }
}

/// A case that a backend is known not to pass.
#[derive(Clone, Copy, Debug)]
pub struct Deviation {
    /// The case, such as `"R7.02"`.
    pub case: &'static str,
    /// What is not promised, and where that is documented.
    pub reason: &'static str,
}

/// Why a case has no arena.
#[derive(Clone, Debug)]
pub struct Missing {
    /// What is not there and how to get it.
    pub what: String,
    /// Whether whoever runs the suite has allowed it to be missing.
    pub allowed: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Missing {}

impl From<io::Error> for Missing {
    fn from(error: io::Error) -> Self {
        Self {
            what: error.to_string(),
            allowed: false,
        }
    }
}

/// Makes connectors. Every connector connects anew each time it is asked to.
pub type Connector = Arc<dyn Fn() -> Box<dyn Connect> + Send + Sync>;

/// Where one case runs.
#[derive(Clone)]
pub struct Arena {
    pub(crate) connector: Connector,
    pub(crate) proxied: Option<Connector>,
    pub(crate) options: ClientOptions,
    pub(crate) spec: Option<String>,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    _keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl Arena {
    /// An arena whose clients connect with what `connector` makes.
    #[must_use]
    pub fn new(connector: impl Fn() -> Box<dyn Connect> + Send + Sync + 'static) -> Self {
        Self {
            connector: Arc::new(connector),
            proxied: None,
            options: ClientOptions::default(),
            spec: None,
            faults: None,
            _keep: None,
        }
    }

    /// Also reaches the backend through a proxy that the arena's faults act on.
    #[must_use]
    pub fn with_proxied(
        mut self,
        connector: impl Fn() -> Box<dyn Connect> + Send + Sync + 'static,
    ) -> Self {
        self.proxied = Some(Arc::new(connector));
        self
    }

    /// What clients are opened with; the suite sets the operation timeout by itself. Defaults to the
    /// defaults.
    #[must_use]
    pub fn with_options(mut self, options: ClientOptions) -> Self {
        self.options = options;
        self
    }

    /// How a worker process finds this arena, for [`Harness::connector`].
    #[must_use]
    pub fn with_spec(mut self, spec: impl Into<String>) -> Self {
        self.spec = Some(spec.into());
        self
    }

    /// What can be broken here.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Keeps `value`, such as a server, until the case is over.
    #[must_use]
    pub fn keeping(mut self, value: impl Any + Send + Sync) -> Self {
        self._keep = Some(Arc::new(value));
        self
    }

    /// What the backend declares here.
    pub(crate) async fn capabilities(&self, case: &Case) -> lock_core::Result<Capabilities> {
        let context = Context::new(Identity::of_this_process(case.id));
        let backend = (self.connector)().connect(context).await?;
        let capabilities = backend.capabilities();
        backend.close().await?;
        Ok(capabilities)
    }
}

/// The faults of one arena. Every method is optional: [`Harness::supports`] says which there are, and
/// the suite calls no other.
///
/// Faults of the connection act on connections made through [`Arena::with_proxied`] and on no other; an
/// arena that has a [`wire`](Self::wire) has them without another line.
#[async_trait]
#[expect(
    clippy::missing_errors_doc,
    reason = "each of them fails when the fault cannot be put in place, and the case with it"
)]
pub trait Faults: Send + Sync + 'static {
    /// Kills the server at once, as a power cut would.
    async fn kill_server(&self) -> io::Result<()> {
        absent(Fault::Kill)
    }

    /// Starts a killed server again, on the same address, with what it had stored.
    async fn restart_server(&self) -> io::Result<()> {
        absent(Fault::Kill)
    }

    /// Makes the server forget every lock, as a failover to an empty replica would. Where that can be done
    /// only at certain moments and none comes, fails with [`io::ErrorKind::TimedOut`].
    async fn wipe(&self) -> io::Result<()> {
        absent(Fault::Wipe)
    }

    /// Stops the server in its tracks: connections stay open, nothing is answered.
    async fn pause_server(&self) -> io::Result<()> {
        absent(Fault::Pause)
    }

    /// Continues a paused server.
    async fn resume_server(&self) -> io::Result<()> {
        absent(Fault::Pause)
    }

    /// Makes the server forget what clients have uploaded for speed, such as scripts.
    async fn flush_scripts(&self) -> io::Result<()> {
        absent(Fault::FlushScripts)
    }

    /// Sets the server's wall clock to the true time plus so many seconds.
    async fn step_clock(&self, seconds: i64) -> io::Result<()> {
        let _ = seconds;
        absent(Fault::StepClock)
    }

    /// What stands in the middle of the proxied connections. Defaults to nothing.
    fn wire(&self) -> Option<&dyn Wire> {
        None
    }

    /// Cuts every connection there is; new ones work.
    async fn cut(&self) -> io::Result<()> {
        on_wire(self.wire(), Fault::Cut).map(Wire::cut)
    }

    /// Cuts every connection there is with a reset, as a router that has forgotten them does; new ones work.
    async fn reset(&self) -> io::Result<()> {
        on_wire(self.wire(), Fault::Reset).map(Wire::reset)
    }

    /// From now on everything arrives so much later than it was sent, each way. Zero takes that back.
    async fn delay(&self, each_way: Duration) -> io::Result<()> {
        on_wire(self.wire(), Fault::Delay).map(|wire| wire.delay(each_way))
    }

    /// While on, nothing passes in either direction, and nothing is refused.
    async fn black_hole(&self, on: bool) -> io::Result<()> {
        on_wire(self.wire(), Fault::BlackHole).map(|wire| wire.black_hole(on))
    }

    /// While on, requests pass and everything that comes back is kept; turned off, it is delivered.
    async fn hold_replies(&self, on: bool) -> io::Result<()> {
        on_wire(self.wire(), Fault::HoldReplies).map(|wire| wire.hold_replies(on))
    }

    /// While on, requests pass and what comes back is thrown away.
    async fn drop_replies(&self, on: bool) -> io::Result<()> {
        on_wire(self.wire(), Fault::DropReplies).map(|wire| wire.drop_replies(on))
    }

    /// While on, answers pass and unasked-for notifications are thrown away.
    async fn drop_pushes(&self, on: bool) -> io::Result<()> {
        on_wire(self.wire(), Fault::DropPushes).map(|wire| wire.drop_pushes(on))
    }

    /// While on, that the server has closed a connection is not told to its client; switched on, the
    /// server closes every one there is. Switched off, clients are told.
    async fn half_open(&self, on: bool) -> io::Result<()> {
        on_wire(self.wire(), Fault::HalfOpen).map(|wire| wire.half_open(on))
    }

    /// Loses the `nth` request from now on, 1 being the next, and what follows behind it, on its
    /// connection only; zero takes that back.
    async fn drop_nth_request(&self, nth: u64) -> io::Result<()> {
        on_wire(self.wire(), Fault::DropRequest).map(|wire| wire.drop_nth_request(nth))
    }

    /// Takes the next request that contains `text` out of its connection, to be delivered later,
    /// also after the client has closed that connection. Later requests pass.
    async fn hold_next_request(&self, text: &str) -> io::Result<Box<dyn HeldRequest + '_>> {
        let _ = text;
        Err(absent_error(Fault::HoldRequest))
    }

    /// Everything the backend has stored in this arena, as it calls it.
    async fn records(&self) -> io::Result<Vec<String>> {
        Err(absent_error(Fault::Records))
    }

    /// Of these, what no time limit will ever remove.
    async fn unbounded_records(&self) -> io::Result<Vec<String>> {
        Err(absent_error(Fault::Records))
    }

    /// What clients ask of the server while `work` runs, in order: each command that changes
    /// something or waits for its own round trip. What is sent together with another and shares its
    /// round trip, and the heartbeats of a session, may be left out.
    async fn commands_during(&self, work: BoxFuture<'_, ()>) -> io::Result<Vec<String>> {
        drop(work);
        Err(absent_error(Fault::Count))
    }

    /// How many requests that change something clients have had executed since the server started:
    /// scripts, transactions, writes, and the renewals of leases.
    async fn scripts(&self) -> io::Result<u64> {
        Err(absent_error(Fault::Count))
    }

    /// How many connections of clients the server has.
    async fn connections(&self) -> io::Result<usize> {
        Err(absent_error(Fault::Count))
    }

    /// How many subscriptions these connections have in all.
    async fn subscriptions(&self) -> io::Result<usize> {
        Err(absent_error(Fault::Count))
    }

    /// A connector that the server refuses for its credentials.
    fn wrong_credentials(&self) -> io::Result<Box<dyn Connect>> {
        Err(absent_error(Fault::WrongCredentials))
    }

    /// Ends the session or lease that carries one of the claims on the lock `name`, as an operator or
    /// the server would: the holder's with `place` 0, the first waiter's with 1. Where nobody stands, fails
    /// with [`io::ErrorKind::NotFound`].
    async fn kill_session(&self, name: &str, place: usize) -> io::Result<()> {
        let _ = (name, place);
        absent(Fault::KillSession)
    }

    /// Makes the server forget everything but the present: whoever asks for changes since some moment
    /// is refused.
    async fn compact(&self) -> io::Result<()> {
        absent(Fault::Compact)
    }

    /// Makes another member lead; nothing is lost, and nobody dies.
    async fn move_leader(&self) -> io::Result<()> {
        absent(Fault::MoveLeader)
    }

    /// Kills the server that leads, and has another take its place. Clients of the arena reach that one
    /// without being told, if need be on a new connection. Where nobody is left who could lead, fails with
    /// [`io::ErrorKind::NotFound`].
    async fn fail_over(&self) -> io::Result<()> {
        absent(Fault::Failover)
    }

    /// What is written from now on is lost by a [`fail_over`](Self::fail_over). Where nobody is left who could
    /// lead, fails with [`io::ErrorKind::NotFound`].
    async fn stop_replication(&self) -> io::Result<()> {
        absent(Fault::StopReplication)
    }

    /// Changes what can be changed while the server runs, as an operator may: clients that are idle for
    /// a second are disconnected, buffers shrink, notifications are switched on.
    async fn reconfigure(&self) -> io::Result<()> {
        absent(Fault::Reconfigure)
    }

    /// Calls a witness, who sees everything from now on.
    async fn witness(&self) -> io::Result<Box<dyn Witness + '_>> {
        Err(absent_error(Fault::Witness))
    }

    /// Whether what a [`witness`](Self::witness) says is whole also when this was done to the server meanwhile.
    fn witness_outlives(&self, fault: Fault) -> bool {
        let _ = fault;
        false
    }

    /// Stores something that is no lock where the records of the lock `name` would be.
    async fn obstruct(&self, name: &str) -> io::Result<()> {
        let _ = name;
        absent(Fault::Obstruct)
    }
}

/// What can be done to the connections of an arena by what stands in the middle of them, such as the
/// suite's own proxy (feature `servers`). Each takes effect before it returns.
pub trait Wire: Send + Sync {
    /// As [`Faults::cut`].
    fn cut(&self);
    /// As [`Faults::reset`].
    fn reset(&self);
    /// As [`Faults::delay`].
    fn delay(&self, each_way: Duration);
    /// As [`Faults::black_hole`].
    fn black_hole(&self, on: bool);
    /// As [`Faults::hold_replies`].
    fn hold_replies(&self, on: bool);
    /// As [`Faults::drop_replies`].
    fn drop_replies(&self, on: bool);
    /// As [`Faults::drop_pushes`].
    fn drop_pushes(&self, on: bool);
    /// As [`Faults::half_open`].
    fn half_open(&self, on: bool);
    /// As [`Faults::drop_nth_request`].
    fn drop_nth_request(&self, nth: u64);
}

fn on_wire(wire: Option<&dyn Wire>, fault: Fault) -> io::Result<&dyn Wire> {
    wire.ok_or_else(|| absent_error(fault))
}

/// A request on its way that a proxy keeps back.
#[async_trait]
pub trait HeldRequest: Send + Sync {
    /// Waits until there is one.
    ///
    /// # Errors
    /// When none has come within ten seconds.
    async fn caught(&self) -> io::Result<()>;

    /// Sends it on, and waits until the server has had it.
    ///
    /// # Errors
    /// When it cannot be delivered any more.
    async fn deliver(&self) -> io::Result<()>;
}

fn absent(fault: Fault) -> io::Result<()> {
    Err(absent_error(fault))
}

fn absent_error(fault: Fault) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "this harness declares {}, but does not have it",
            fault.describe()
        ),
    )
}
