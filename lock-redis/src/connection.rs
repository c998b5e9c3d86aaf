//! The connection, and the supervisor that replaces it.
//!
//! The crate's `ConnectionManager` does not reconnect after a response timeout, so a black hole is
//! for ever; and its `new` hangs on a stopped server. Here a command that is not answered in time
//! breaks the connection, hard: the driver is aborted, the socket is reset and what was buffered in
//! it is thrown away. Copies that have left the machine are what tombstones are for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use lock_core::{BootInstant, Clock, Error, ErrorKind, Event, Result};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, Value,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::config::RedisConfig;
use crate::error::{self, breaks_connection, is_no_script};
use crate::inbox::{Inbox, Push};
use crate::key::{Keys, LAYOUT};
use crate::scripts::{self, Call};
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// The pause before the first attempt to reconnect, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A connection that ended sooner than this counts as a failed attempt.
const STABLE: Duration = Duration::from_secs(1);
/// The pause after an answer that no retry changes: an operator may, though.
const DENIED_PAUSE: Duration = Duration::from_secs(5);
/// How long the namespace record stays, and how often it is written again.
const NAMESPACE_TTL: Duration = Duration::from_secs(48 * 3600);
const NAMESPACE_REFRESH: Duration = Duration::from_secs(6 * 3600);
/// A renewal that is given up after so long takes its connection along.
const IMPATIENT: Duration = Duration::from_millis(500);
/// The first probe of an idle connection, and the pause between further ones.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));

/// A connection that works, as far as is known.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// Counts the connections of this client.
    pub(crate) id: u64,
    connection: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that owns the socket. Aborting it closes the socket, and with `SO_LINGER` 0 resets it.
#[derive(Debug)]
struct Driver {
    task: AbortHandle,
    /// Set when the driver reports its end, which may be before anybody knows of the connection.
    ended: Arc<AtomicBool>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
enum State {
    Up(Live),
    /// With the reason why the last attempt failed.
    Away(Option<Error>),
    Closed,
}

/// How a command ended that was not answered with a value.
enum Failure {
    /// By an error that the server or the crate reported.
    Reported(RedisError),
    /// By silence.
    Silent,
}

/// One client's way to the server.
pub(crate) struct Connection {
    config: RedisConfig,
    pub(crate) keys: Keys,
    pub(crate) clock: Clock,
    /// One command, its wait for a connection included.
    pub(crate) command_timeout: Duration,
    /// The channel on which this client is told of grants.
    pub(crate) channel: String,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    state: watch::Sender<State>,
    last_id: AtomicU64,
    inbox: Arc<Inbox>,
    events: mpsc::UnboundedSender<Event>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("config", &self.config)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects for the first time. Nothing is retried: whoever starts a program wants to know.
    pub(crate) async fn open(
        config: RedisConfig,
        clock: Clock,
        command_timeout: Duration,
        channel: String,
        inbox: Arc<Inbox>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Arc<Self>> {
        #[cfg(feature = "tls")]
        let tls = match &config.tls {
            Some(tls) => Some(Tls::new(tls, &config.host)?),
            None => None,
        };
        let connection = Arc::new(Self {
            keys: Keys::new(&config.prefix),
            config,
            clock,
            command_timeout,
            channel,
            #[cfg(feature = "tls")]
            tls,
            state: watch::Sender::new(State::Away(None)),
            last_id: AtomicU64::new(0),
            inbox,
            events,
        });
        let by = connection.clock.now() + command_timeout;
        let live = connection.establish().await?;
        connection.warn_of_eviction(&live, by).await;
        connection.up(live);
        Ok(connection)
    }

    /// A connection, as soon as there is one; `by` is when the command has to be answered.
    pub(crate) async fn ready(&self, op: &'static str, by: BootInstant) -> Result<Live> {
        // What is left of the time is for the answer.
        let until = by.saturating_sub(self.command_timeout / 4);
        let mut state = self.state.subscribe();
        loop {
            let why = match &*state.borrow_and_update() {
                State::Up(live) => return Ok(live.clone()),
                State::Closed => return Err(closed(op)),
                State::Away(why) => why.clone(),
            };
            if let Some(why) = &why
                && is_permanent(why)
            {
                return Err(away(why.kind(), op, Some(why)));
            }
            if self
                .clock
                .timeout_at(until, state.changed())
                .await
                .is_none()
            {
                return Err(away(ErrorKind::Unavailable, op, why.as_ref()));
            }
        }
    }

    /// Runs a script and waits for its answer until `by`.
    ///
    /// An error is [`ErrorKind::Indeterminate`] exactly when the script may have run.
    pub(crate) async fn run(
        &self,
        op: &'static str,
        live: &Live,
        call: &Call,
        by: BootInstant,
    ) -> Result<Value> {
        match self.send(live, &call.by_hash(), by).await {
            // The server was restarted or flushed. It says so instead of running anything.
            Err(Failure::Reported(error)) if is_no_script(&error) => self
                .send(live, &call.by_text(), by)
                .await
                .map_err(|failure| failure.of(op)),
            other => other.map_err(|failure| failure.of(op)),
        }
    }

    /// Sends any command and waits for its answer until `by`.
    pub(crate) async fn command(
        &self,
        op: &'static str,
        live: &Live,
        command: &Cmd,
        by: BootInstant,
    ) -> Result<Value> {
        self.send(live, command, by)
            .await
            .map_err(|failure| failure.of(op))
    }

    async fn send(&self, live: &Live, command: &Cmd, by: BootInstant) -> Result<Value, Failure> {
        let mut connection = live.connection.clone();
        let answer = Box::pin(command.query_async::<Value>(&mut connection));
        match self.clock.timeout_at(by, answer).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                if breaks_connection(&error) {
                    self.lost(live.id, "broken");
                }
                Err(Failure::Reported(error))
            }
            None => {
                self.lost(live.id, "no answer in time");
                Err(Failure::Silent)
            }
        }
    }

    /// Watches over a renewal. Core gives one up while there is time for another, so long before the
    /// command timeout; another one on the same silent connection would end in the same way.
    pub(crate) fn watch_renewal(&self) -> Impatience<'_> {
        let id = match &*self.state.borrow() {
            State::Up(live) => Some(live.id),
            State::Away(_) | State::Closed => None,
        };
        Impatience {
            connection: self,
            id,
            since: self.clock.now(),
        }
    }

    /// Gives up the connection `id`, if it is still the one in use.
    fn lost(&self, id: u64, why: &'static str) {
        let mut before = None;
        self.state.send_if_modified(|state| match state {
            State::Up(live) if live.id == id => {
                before = Some(std::mem::replace(state, State::Away(None)));
                true
            }
            _ => false,
        });
        if let Some(State::Up(live)) = before {
            live.driver.task.abort();
            tracing::info!(server = %self.server(), why, "connection lost");
            self.inbox.adrift();
        }
    }

    fn up(&self, live: Live) {
        let (id, ended) = (live.id, Arc::clone(&live.driver.ended));
        self.state.send_if_modified(|state| {
            let open = !matches!(state, State::Closed);
            if open {
                *state = State::Up(live);
            }
            open
        });
        // It may have broken before anybody could give it up.
        if ended.load(Ordering::Acquire) {
            self.lost(id, "broken");
        }
    }

    /// Ends everything. What is waited for fails.
    pub(crate) fn close(&self) {
        if let State::Up(live) = self.state.send_replace(State::Closed) {
            live.driver.task.abort();
        }
        self.inbox.fail_all(&closed("acquire"));
    }

    /// Replaces the connection whenever it is lost, until [`close`](Self::close).
    pub(crate) async fn supervise(self: Arc<Self>) {
        let mut state = self.state.subscribe();
        let mut pause = BACKOFF.0;
        loop {
            let since = self.clock.now();
            if self.watch(&mut state).await.is_err() {
                return;
            }
            if self.clock.now().saturating_since(since) >= STABLE {
                pause = BACKOFF.0;
            }
            // Not all clients of a server that comes back at the same instant.
            self.clock.sleep(jittered(pause)).await;
            loop {
                pause = (pause * 2).min(BACKOFF.1);
                match self.establish().await {
                    Ok(live) => {
                        tracing::info!(server = %self.server(), "connected again");
                        self.up(live);
                        break;
                    }
                    Err(error) => {
                        let permanent = is_permanent(&error);
                        tracing::debug!(server = %self.server(), %error, "still away");
                        let open = self.state.send_if_modified(|state| {
                            let open = !matches!(state, State::Closed);
                            if open {
                                *state = State::Away(Some(error));
                            }
                            open
                        });
                        if !open {
                            return;
                        }
                        let pause = if permanent { DENIED_PAUSE } else { pause };
                        self.clock.sleep(jittered(pause)).await;
                    }
                }
            }
            self.inbox.verify_all(self.clock.now());
            // Nobody listens any more when the client is being closed.
            let _ = self.events.send(Event::Reconnected);
        }
    }

    /// Resolves when the connection is away; fails when it is closed.
    async fn watch(&self, state: &mut watch::Receiver<State>) -> Result<(), ()> {
        loop {
            let away = state.wait_for(|state| !matches!(state, State::Up(_)));
            match self.clock.timeout(NAMESPACE_REFRESH, away).await {
                Some(Ok(now)) if matches!(*now, State::Away(_)) => return Ok(()),
                Some(_) => return Err(()),
                None => {}
            }
            let by = self.clock.now() + self.command_timeout;
            let refreshed = async {
                let live = self.ready("refresh", by).await?;
                self.agree(&live, by).await
            };
            if let Err(error) = refreshed.await {
                tracing::warn!(%error, "the namespace record was not refreshed");
            }
        }
    }

    /// Connects, logs in, subscribes, and agrees on the layout; all within the command timeout.
    async fn establish(self: &Arc<Self>) -> Result<Live> {
        let by = self.clock.now() + self.command_timeout;
        let attempt = Box::pin(self.attempt(by));
        match self.clock.timeout_at(by, attempt).await {
            // Nothing of a lock was asked for yet, so nothing is indeterminate.
            Some(Err(error)) if error.kind() == ErrorKind::Indeterminate => {
                Err(away(ErrorKind::Unavailable, "connect", Some(&error)))
            }
            Some(result) => result,
            None => Err(
                Error::new(ErrorKind::Unavailable, "connect").with_detail(format!(
                    "{} did not answer within {:?}",
                    self.server(),
                    self.command_timeout
                )),
            ),
        }
    }

    async fn attempt(self: &Arc<Self>, by: BootInstant) -> Result<Live> {
        let stream = self.dial(by).await?;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let ended = Arc::new(AtomicBool::new(false));
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(self.push_sender(id, Arc::clone(&ended)));
        let live = |connection, task| Live {
            id,
            connection,
            driver: Arc::new(Driver { task, ended }),
        };
        let login = self.login();
        #[cfg(feature = "tls")]
        let live = if let Some(tls) = &self.tls {
            let stream = tls.connect(stream).await.map_err(|source| {
                crate::tls::denial(&source).unwrap_or_else(|| self.unreachable(source))
            })?;
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&login, stream, options)
                    .await
                    .map_err(error::of_connecting)?;
            live(connection, tokio::spawn(driver).abort_handle())
        } else {
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&login, stream, options)
                    .await
                    .map_err(error::of_connecting)?;
            live(connection, tokio::spawn(driver).abort_handle())
        };
        #[cfg(not(feature = "tls"))]
        let live = {
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&login, stream, options)
                    .await
                    .map_err(error::of_connecting)?;
            live(connection, tokio::spawn(driver).abort_handle())
        };

        // Before anything else: whoever is granted a lock from now on is told.
        let mut connection = live.connection.clone();
        Box::pin(connection.subscribe(&self.channel))
            .await
            .map_err(error::of_connecting)?;
        self.agree(&live, by).await?;
        self.teach(&live, by).await?;
        Ok(live)
    }

    /// Sees to it that the server knows every script, so that neither the first use of a lock nor the
    /// first renewal of many at once needs a request more than any other.
    async fn teach(&self, live: &Live, by: BootInstant) -> Result<()> {
        let teaching = scripts::ALL.iter().map(|script| async move {
            let call = Call::new(script);
            self.run("connect", live, &call, by).await
        });
        try_join_all(teaching).await.map(drop)
    }

    /// Connects to the first address of the server that answers. Each has its part of the time: one
    /// that swallows everything must not hide the others.
    async fn dial(&self, by: BootInstant) -> Result<TcpStream> {
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((self.config.host.as_str(), self.config.port))
                .await
                .map_err(|source| self.unreachable(source))?
                .collect();
        let mut last = None;
        for (tried, address) in addresses.iter().enumerate() {
            let parts = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let part = by.saturating_since(self.clock.now()) / parts;
            let connected = self.clock.timeout(part, TcpStream::connect(address)).await;
            let silent = || Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
            match connected.unwrap_or_else(silent) {
                Ok(stream) => {
                    self.set_up(&stream)
                        .map_err(|source| self.unreachable(source))?;
                    return Ok(stream);
                }
                Err(source) => last = Some(source),
            }
        }
        let none = || std::io::Error::other("the name has no address");
        Err(self.unreachable(last.unwrap_or_else(none)))
    }

    fn set_up(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        // What a broken connection has not sent yet is not to be sent after all.
        socket.set_linger(Some(Duration::ZERO))?;
        let (idle, interval) = KEEPALIVE;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_tcp_user_timeout(Some(self.command_timeout))?;
        Ok(())
    }

    fn login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.config.db.into())
            // One more right that a user would need, and one more command.
            .set_skip_set_lib_name();
        if let Some(username) = &self.config.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.config.password {
            login = login.set_password(password);
        }
        login
    }

    /// Runs in the driver: it must not block, and the arrival of a push is stamped nowhere else.
    fn push_sender(
        self: &Arc<Self>,
        id: u64,
        ended: Arc<AtomicBool>,
    ) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static {
        let connection: Weak<Self> = Arc::downgrade(self);
        move |push| {
            let connection = connection.upgrade().ok_or(())?;
            match push.kind {
                PushKind::Disconnection => {
                    ended.store(true, Ordering::Release);
                    connection.lost(id, "closed by the server");
                }
                PushKind::Message => connection.receive(id, &push.data),
                _ => {}
            }
            Ok(())
        }
    }

    fn receive(&self, id: u64, data: &[Value]) {
        let arrived = self.clock.now();
        let [_, Value::BulkString(payload)] = data else {
            return;
        };
        match std::str::from_utf8(payload).ok().and_then(Push::parse) {
            Some(Push::Granted(hand_off)) => self.inbox.pushed(id, arrived, hand_off),
            Some(Push::Broken(nonce)) => {
                // Nobody listens any more when the client is being closed.
                let _ = self.events.send(Event::Broken { nonce });
            }
            None => tracing::warn!(channel = %self.channel, "message that is not understood"),
        }
    }

    /// Verifies that this namespace has our layout, or gives it ours; keeps the record alive.
    async fn agree(&self, live: &Live, by: BootInstant) -> Result<()> {
        let record = self.keys.namespace();
        let call = Call::new(&scripts::NAMESPACE)
            .keys([record.clone()])
            .arg(0)
            .arg(0)
            .arg(0)
            .arg(LAYOUT)
            .arg(NAMESPACE_TTL.as_millis());
        match self.run("connect", live, &call, by).await? {
            Value::BulkString(layout) if layout == LAYOUT.as_bytes() => Ok(()),
            Value::BulkString(layout) => Err(error::invalid(
                "connect",
                format!(
                    "the key {record:?} says that this prefix has the layout {:?}; this client has {LAYOUT:?}",
                    String::from_utf8_lossy(&layout)
                ),
            )),
            other => Err(error::protocol("connect", format!("namespace: {other:?}"))),
        }
    }

    /// A server that evicts keys forgets holders. Says so where it may be asked.
    async fn warn_of_eviction(&self, live: &Live, by: BootInstant) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        let policy = match self.command("connect", live, &command, by).await {
            Ok(answer) => {
                redis::from_redis_value::<std::collections::HashMap<String, String>>(answer)
                    .ok()
                    .and_then(|mut answer| answer.remove("maxmemory-policy"))
            }
            Err(error) => {
                tracing::debug!(%error, "the memory policy is not known");
                return;
            }
        };
        match policy.as_deref() {
            Some("noeviction") | None => {}
            Some(policy) => tracing::warn!(
                server = %self.server(),
                policy,
                "this server evicts keys when its memory is full, and with them locks that are held: set maxmemory-policy noeviction"
            ),
        }
    }

    fn server(&self) -> String {
        format!("{}:{}", self.config.host, self.config.port)
    }

    fn unreachable(&self, source: std::io::Error) -> Error {
        Error::new(ErrorKind::Unavailable, "connect")
            .with_detail(format!("{}: {source}", self.server()))
            .with_source(source)
    }
}

/// Gives up the connection of a renewal when it is dropped before the answer, unless it is soon.
pub(crate) struct Impatience<'a> {
    connection: &'a Connection,
    id: Option<u64>,
    since: BootInstant,
}

impl Impatience<'_> {
    pub(crate) fn answered(mut self) {
        self.id = None;
    }
}

impl Drop for Impatience<'_> {
    fn drop(&mut self) {
        let waited = self.connection.clock.now().saturating_since(self.since);
        if let Some(id) = self.id
            && waited >= IMPATIENT
        {
            self.connection.lost(id, "a renewal was not answered");
        }
    }
}

impl Failure {
    fn of(self, op: &'static str) -> Error {
        match self {
            Self::Reported(source) => error::of_command(op, source),
            Self::Silent => Error::new(ErrorKind::Indeterminate, op),
        }
    }
}

/// Whether no retry changes this.
fn is_permanent(error: &Error) -> bool {
    !error.is_retryable()
}

fn away(kind: ErrorKind, op: &'static str, why: Option<&Error>) -> Error {
    let error = Error::new(kind, op);
    match why {
        Some(why) => error.with_detail(why.to_string()).with_source(why.clone()),
        None => error.with_detail("no connection"),
    }
}

fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op)
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
