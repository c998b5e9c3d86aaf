//! A server, clients of it, and waiting for conditions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lock_conformance::fault::Proxy;
use lock_conformance::servers::EtcdServer;
use lock_core::{
    Backend, BootInstant, Claim, Clock, Connect, Context, Grant, Identity, LockName, LockState,
    Reach, Renewal, Result,
};
use lock_etcd::EtcdConfig;
use tokio::task::JoinHandle;

/// How long anything may take that is going to happen; the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const TTL: Duration = Duration::from_secs(10);

pub(crate) fn name(text: &str) -> LockName {
    LockName::new(text).expect("a good name")
}

pub(crate) fn claim(text: &str) -> Claim {
    claim_for(text, TTL)
}

pub(crate) fn claim_for(text: &str, ttl: Duration) -> Claim {
    Claim::new(name(text), Identity::of_this_process("it"), ttl)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn context() -> Context {
    Context::new(Identity::of_this_process("it"))
}

pub(crate) fn config(server: &EtcdServer) -> EtcdConfig {
    let ports = server.members().iter().map(|member| member.addr().port());
    EtcdConfig::new(ports.map(|port| ("127.0.0.1", port)))
}

pub(crate) fn through(proxy: &Proxy) -> EtcdConfig {
    EtcdConfig::new([("127.0.0.1", proxy.addr().port())])
}

pub(crate) async fn connect(config: EtcdConfig) -> Arc<dyn Backend> {
    config.connect(context()).await.expect("connects")
}

/// A client that gives up on a command after `op_timeout`.
pub(crate) async fn hasty(config: EtcdConfig, op_timeout: Duration) -> Arc<dyn Backend> {
    let mut context = context();
    context.op_timeout = op_timeout;
    config.connect(context).await.expect("connects")
}

pub(crate) async fn client(server: &EtcdServer) -> Arc<dyn Backend> {
    connect(config(server)).await
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
            tokio::time::sleep(ms(2)).await;
        }
    })
    .await
}

pub(crate) fn now() -> BootInstant {
    Clock::system().now()
}

/// Acquires in a task of its own.
pub(crate) fn acquire(backend: &Arc<dyn Backend>, claim: &Claim) -> JoinHandle<Result<Grant>> {
    let (backend, claim) = (Arc::clone(backend), claim.clone());
    tokio::spawn(async move { backend.acquire(&claim).await })
}

/// Acquires in a task of its own, and waits until the claim stands in the queue.
pub(crate) async fn queue(backend: &Arc<dyn Backend>, claim: &Claim) -> JoinHandle<Result<Grant>> {
    let waiting = acquire(backend, claim);
    eventually(|| async { (claim.progress.reach() == Reach::Queued).then_some(()) }).await;
    waiting
}

/// The lock, which is free.
pub(crate) async fn hold(backend: &Arc<dyn Backend>, claim: &Claim) -> Grant {
    soon(backend.try_acquire(claim))
        .await
        .expect("answered")
        .expect("free")
}

/// What a task that acquires was granted.
pub(crate) async fn granted(waiting: JoinHandle<Result<Grant>>) -> Grant {
    soon(waiting).await.expect("no panic").expect("granted")
}

pub(crate) async fn renew(backend: &Arc<dyn Backend>, grant: &Grant) -> Renewal {
    let mut renewed = soon(backend.renew(&[grant])).await;
    assert_eq!(renewed.len(), 1);
    renewed.remove(0).expect("answered")
}

pub(crate) async fn look(backend: &Arc<dyn Backend>, text: &str) -> LockState {
    soon(backend.inspect(&name(text))).await.expect("inspected")
}

/// What the launcher counted.
pub(crate) fn counted<T>(count: std::io::Result<T>) -> T {
    count.expect("the server tells")
}

/// Whether nobody holds or waits.
pub(crate) async fn is_free(backend: &Arc<dyn Backend>, text: &str) -> bool {
    let state = look(backend, text).await;
    state.holders.is_empty() && state.waiters.is_empty()
}

/// What the keys of a lock begin with, as documented. Written down again on purpose.
pub(crate) fn keys_of(text: &str) -> String {
    let name = text.replace('%', "%25").replace('/', "%2F");
    format!("distlock/l/{name}/")
}

/// The keys of holders and waiters of a lock that are in the server.
pub(crate) fn stored(server: &EtcdServer, text: &str) -> Vec<String> {
    let start = keys_of(text);
    let keys = server.keys().expect("lists");
    keys.into_iter()
        .filter(|key| key.starts_with(&start))
        .collect()
}
