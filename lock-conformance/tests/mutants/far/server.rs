//! A lock server that can be stopped, killed and made to forget.

use std::collections::BTreeSet;

use lock_core::Connect;
use tokio::sync::watch;

use super::carried::Carried;
use super::store::{Ledger, Store};
use crate::bend::{ConnectBent, Upheaval};
use crate::prelude::*;

#[derive(Debug)]
pub(super) struct Server {
    bend: Arc<dyn Bend>,
    state: watch::Sender<State>,
    store: Shared<ConnectBent>,
    pub(super) ledger: Arc<Ledger>,
    /// Whether it hands locks off for a claim window.
    pub(super) has_window: bool,
    /// What a store that replaces a lost one has to count on from.
    last_token: AtomicU64,
    log: Shared<Vec<String>>,
    pub(super) connections: AtomicUsize,
    pub(super) carried: Carried,
    obstacles: Shared<BTreeSet<String>>,
    /// Whether it knows the scripts that clients have sent.
    has_scripts: AtomicBool,
    /// Whether whoever takes its place will have what is written now.
    replicates: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct State {
    up: bool,
    paused: bool,
    kills: u64,
    /// How often it has lost its data.
    losses: u64,
}

impl Server {
    pub(super) fn new(bend: Arc<dyn Bend>, has_window: bool) -> Self {
        let ledger = Arc::new(Ledger::new(has_window.then(|| bend.claim_window())));
        Self {
            store: Shared::new(empty(&ledger, &bend)),
            ledger,
            has_window,
            bend,
            state: watch::Sender::new(State {
                up: true,
                paused: false,
                kills: 0,
                losses: 0,
            }),
            last_token: AtomicU64::new(0),
            log: Shared::default(),
            connections: AtomicUsize::new(0),
            carried: Carried::default(),
            obstacles: Shared::default(),
            has_scripts: AtomicBool::new(true),
            replicates: AtomicBool::new(true),
        }
    }

    pub(super) fn kill(&self) {
        self.state.send_modify(|state| {
            state.up = false;
            state.kills += 1;
        });
    }

    pub(super) fn restart(&self) {
        self.come_back_from(Upheaval::Restart);
    }

    /// Closes every connection, and is there again.
    pub(super) fn go_through(&self, upheaval: Upheaval) {
        self.kill();
        self.come_back_from(upheaval);
    }

    /// Another takes its place, with what was replicated. What is lost is everything: there is one store.
    pub(super) fn fail_over(&self) {
        self.kill();
        if !self.replicates.swap(true, Ordering::Relaxed) {
            self.lose_everything();
        }
        self.restart();
    }

    pub(super) fn stop_replication(&self) {
        self.replicates.store(false, Ordering::Relaxed);
    }

    fn come_back_from(&self, upheaval: Upheaval) {
        if !self.bend.survives(upheaval) {
            self.lose_everything();
        }
        self.state.send_modify(|state| state.up = true);
    }

    /// Ends the session of whoever stands in this place for the lock; whether somebody does.
    pub(super) async fn end_session(&self, name: &LockName, place: usize) -> Result<bool> {
        let store = self.open(operator()).await?;
        let state = store.inspect(name).await?;
        let holders: Vec<_> = state.holders.iter().map(|holder| holder.nonce).collect();
        let waiters = state.waiters.iter().map(|waiter| waiter.nonce);
        let standing = holders.into_iter().chain(waiters).nth(place);
        let ended = standing.and_then(|nonce| self.carried.end_session_of(nonce));
        let Some((claims, session)) = ended else {
            return Ok(false);
        };
        let mut held = Vec::new();
        for claim in claims {
            if store.release(&claim).await? {
                held.push(claim.nonce);
            }
        }
        // A client that has gone does not hear of it.
        let _ = session.send(held);
        Ok(true)
    }

    /// Its leases go by another clock, and that is all there is to it.
    pub(super) fn set_wall_clock(&self, seconds: i64) {
        self.bend.wall_clock_set(seconds);
    }

    /// It keeps no history that it could forget.
    pub(super) fn compact(&self) {
        self.bend.compacted();
    }

    pub(super) fn forget_scripts(&self) {
        self.has_scripts.store(false, Ordering::Relaxed);
    }

    /// Whether it knows what to do; asked `with_text` it does from then on.
    pub(super) fn knows_scripts(&self, with_text: bool) -> bool {
        self.has_scripts.fetch_or(with_text, Ordering::Relaxed) || with_text
    }

    /// Every holder and waiter, as text.
    pub(super) async fn locks(&self) -> Result<Vec<String>> {
        let store = self.open(operator()).await?;
        let mut records = Vec::new();
        for name in store.list("", Cursor::default()).await?.names {
            let state = store.inspect(&name).await?;
            let holders = state.holders.iter().map(|holder| holder.nonce);
            let nonces = holders.chain(state.waiters.iter().map(|waiter| waiter.nonce));
            records.extend(nonces.map(|nonce| format!("{name} {nonce}")));
        }
        Ok(records)
    }

    /// What it stores that has no end: a hold has its lease, and a place lasts as long as its client.
    pub(super) fn endless(&self) -> Vec<String> {
        self.bend.keeps()
    }

    pub(super) fn pause(&self, paused: bool) {
        self.state.send_modify(|state| state.paused = paused);
    }

    pub(super) fn lose_everything(&self) {
        *self.store.lock() = empty(&self.ledger, &self.bend);
        self.state.send_modify(|state| state.losses += 1);
    }

    pub(super) fn obstruct(&self, name: &str) {
        self.obstacles.lock().insert(name.to_owned());
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().up
    }

    pub(super) fn kills(&self) -> u64 {
        self.state.borrow().kills
    }

    pub(super) fn losses(&self) -> u64 {
        self.state.borrow().losses
    }

    pub(super) async fn killed_since(&self, kills: u64) {
        self.until(|state| state.kills > kills).await;
    }

    pub(super) async fn lost_since(&self, losses: u64) {
        self.until(|state| state.losses > losses).await;
    }

    pub(super) async fn is_back(&self) {
        self.until(|state| state.up).await;
    }

    /// Waits until it is not stopped.
    pub(super) async fn attends(&self) -> Result<()> {
        let state = self.until(|state| !state.paused || !state.up).await;
        if state.up {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Unavailable, "ask"))
        }
    }

    /// Connects to what is stored now.
    pub(super) async fn open(&self, mut context: Context) -> Result<Arc<dyn Backend>> {
        let store = self.store.lock().clone();
        let last = self.last_token.load(Ordering::Relaxed);
        context.fence_base = context.fence_base.max(last);
        store.connect(context).await
    }

    /// Takes note of a token that has been granted.
    pub(super) fn granted(&self, grant: &Grant) {
        let token = grant.token().get();
        self.last_token.fetch_max(token, Ordering::Relaxed);
    }

    /// Takes note of a request; an error when something else is in its way.
    pub(super) fn received(&self, request: &str) -> Result<()> {
        self.log.lock().push(request.to_owned());
        let obstacles = self.obstacles.lock();
        match obstacles.iter().any(|name| request.ends_with(name)) {
            true => Err(Error::new(ErrorKind::WrongType, "ask")),
            false => Ok(()),
        }
    }

    /// What has been received since so many requests.
    pub(super) fn received_since(&self, count: usize) -> Vec<String> {
        self.log.lock()[count..].to_vec()
    }

    pub(super) fn received_count(&self) -> usize {
        self.log.lock().len()
    }

    async fn until(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.subscribe();
        let now = state.wait_for(wanted).await;
        *now.expect("the sender is borrowed here")
    }
}

/// What the server declares: what memory does, and a claim window where it has one.
pub(super) fn capabilities(has_window: bool) -> Capabilities {
    let mut capabilities = capabilities_of_memory();
    capabilities.claim_window = has_window.then_some(CLAIM_WINDOW);
    capabilities
}

/// A store without locks.
fn empty(ledger: &Arc<Ledger>, bend: &Arc<dyn Bend>) -> ConnectBent {
    let store = Store::new(Arc::clone(ledger));
    ConnectBent::new(Arc::new(store), Arc::clone(bend))
}

/// Who looks at the server from its own machine.
fn operator() -> Context {
    Context::new(Identity::of_this_process("operator"))
}
