//! A server, clients of it, and waiting for conditions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{
    Backend, BootInstant, Claim, Clock, Connect, Context, ErrorKind, Event, Grant, Identity,
    LockName, LockState, Reach, Renewal, Result,
};
use lock_zk::zookeeper_client as zk;
use lock_zk::{ZkBackend, ZkConfig};
use tokio::task::JoinHandle;

/// How long anything may take that is going to happen; the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// A session that a machine that is busy does not lose.
pub(crate) const SESSION: Duration = Duration::from_secs(10);
pub(crate) const TTL: Duration = Duration::from_secs(60);
pub(crate) const ROOT: &str = "/it";

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn name(text: &str) -> LockName {
    LockName::new(text).expect("a good name")
}

pub(crate) fn claim(text: &str) -> Claim {
    claim_for(text, TTL)
}

pub(crate) fn claim_for(text: &str, ttl: Duration) -> Claim {
    Claim::new(name(text), Identity::of_this_process("it"), ttl)
}

/// A context with the patience that a machine needs which is busy.
pub(crate) fn context() -> Context {
    let mut context = Context::new(Identity::of_this_process("it"));
    context.op_timeout = SESSION;
    context
}

/// A server that leaves empty containers alone, so that only clients write.
pub(crate) fn quiet_server() -> ZooKeeperServer {
    ZooKeeperServer::builder()
        .java("-Dznode.container.checkIntervalMs=3600000")
        .start()
}

/// A configuration for every member.
pub(crate) fn config(server: &ZooKeeperServer) -> ZkConfig {
    let ports: Vec<_> = server
        .members()
        .iter()
        .map(|member| member.port())
        .collect();
    config_of(&ports)
}

pub(crate) fn config_of(ports: &[u16]) -> ZkConfig {
    let config = ZkConfig::new("127.0.0.1", ports[0]);
    ports[1..]
        .iter()
        .fold(config, |config, port| {
            config.with_server("127.0.0.1", *port)
        })
        .with_chroot(ROOT)
        .with_session_timeout(SESSION)
}

/// A client; a server that has just started may be busy with itself.
pub(crate) async fn connect(config: ZkConfig) -> Arc<ZkBackend> {
    let connect = || Box::pin(ZkBackend::connect(config.clone(), context()));
    Arc::new(eventually(|| async { connect().await.ok() }).await)
}

pub(crate) async fn client(server: &ZooKeeperServer) -> Arc<ZkBackend> {
    connect(config(server)).await
}

/// A plain client of the same ensemble, at its root.
pub(crate) async fn raw(server: &ZooKeeperServer) -> zk::Client {
    let servers = server.connect_string();
    let connector = zk::Client::connector().with_session_timeout(SESSION);
    soon(connector.connect(&servers)).await.expect("connects")
}

/// `work`, which has to be done soon.
pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    Clock::system()
        .timeout(SOON, work)
        .await
        .expect("done in time")
}

/// Looks until `look` finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(look: impl Fn() -> F) -> T {
    soon(async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(ms(5)).await;
        }
    })
    .await
}

pub(crate) fn now() -> BootInstant {
    Clock::system().now()
}

/// Acquires in a task of its own.
pub(crate) fn acquire(backend: &Arc<ZkBackend>, claim: &Claim) -> JoinHandle<Result<Grant>> {
    let (backend, claim) = (Arc::clone(backend), claim.clone());
    tokio::spawn(async move { backend.acquire(&claim).await })
}

/// Acquires in a task of its own, and waits until the claim stands in the queue.
pub(crate) async fn queue(backend: &Arc<ZkBackend>, claim: &Claim) -> JoinHandle<Result<Grant>> {
    let waiting = acquire(backend, claim);
    eventually(|| async { (claim.progress.reach() == Reach::Queued).then_some(()) }).await;
    waiting
}

/// The lock, which is free.
pub(crate) async fn hold(backend: &Arc<ZkBackend>, claim: &Claim) -> Grant {
    soon(backend.try_acquire(claim))
        .await
        .expect("answered")
        .expect("free")
}

/// What a task that acquires was granted.
pub(crate) async fn granted(waiting: JoinHandle<Result<Grant>>) -> Grant {
    soon(waiting).await.expect("no panic").expect("granted")
}

pub(crate) async fn renew(backend: &Arc<ZkBackend>, grant: &Grant) -> Renewal {
    let mut renewed = soon(backend.renew(&[grant])).await;
    assert_eq!(renewed.len(), 1);
    renewed.remove(0).expect("answered")
}

pub(crate) async fn look(backend: &Arc<ZkBackend>, text: &str) -> LockState {
    soon(backend.inspect(&name(text))).await.expect("answered")
}

/// The next event that `wanted` accepts.
pub(crate) async fn event(
    events: &mut futures_core::stream::BoxStream<'static, Event>,
    wanted: impl Fn(&Event) -> bool,
) -> Event {
    use futures_util::StreamExt;
    soon(async {
        loop {
            let event = events.next().await.expect("the backend is there");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

/// Connecting, which is refused.
pub(crate) async fn refused(config: ZkConfig) -> ErrorKind {
    soon(config.connect(context()))
        .await
        .expect_err("refused")
        .kind()
}

/// Ends a session as an operator would.
pub(crate) async fn kill(server: &ZooKeeperServer, session: i64) {
    eventually(|| async {
        // The server may close the connection before it has answered.
        let _ = server.kill_session(session);
        let sessions = server.sessions().expect("listed");
        (!sessions.contains(&session)).then_some(())
    })
    .await;
}

/// Nodes of locks below the root.
pub(crate) fn lock_nodes(server: &ZooKeeperServer) -> Vec<String> {
    let nodes = server.nodes(&format!("{ROOT}/l")).expect("listed");
    nodes
        .into_iter()
        .filter(|node| node.matches('/').count() == 4)
        .collect()
}
