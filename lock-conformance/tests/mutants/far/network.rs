//! What is between clients and the server.

use std::future::pending;
use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lock_conformance::{HeldRequest, Wire, async_trait};
use tokio::sync::watch;

use crate::prelude::{Arc, Shared};

/// What a request does at the server, with its answer on the way back.
pub(super) type Request = BoxFuture<'static, ()>;

/// How long a request may take to come; it only matters when something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Network {
    state: watch::Sender<State>,
    trap: Shared<Option<Arc<Trap>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    cuts: u64,
    black_hole: bool,
    half_open: bool,
    hold_replies: bool,
    drop_replies: bool,
    drop_pushes: bool,
    /// By how much every answer is late, for the request and for itself.
    delay: Duration,
    /// The request that is lost, counted from the next one; zero when none is.
    doomed: u64,
}

impl State {
    /// Whether nothing passes in either direction, and nobody is told.
    fn is_dead(&self) -> bool {
        self.black_hole || self.half_open
    }
}

impl Network {
    /// How often the connections were cut.
    pub(super) fn cuts(&self) -> u64 {
        self.state.borrow().cuts
    }

    /// Waits until they have been cut more often.
    pub(super) async fn cut_since(&self, cuts: u64) {
        self.until(|state| state.cuts > cuts).await;
    }

    /// Waits until something would pass.
    pub(super) async fn passes(&self) {
        self.until(|state| !state.is_dead()).await;
    }

    /// Takes a request to the server, where it is executed whatever becomes of its sender.
    pub(super) fn carry(&self, text: &str, request: Request) {
        let trap = self.trap.lock().take_if(|trap| text.contains(&trap.text));
        match trap {
            Some(trap) => trap.hold(request),
            None if self.is_lost() => drop(request),
            None => drop(tokio::spawn(request)),
        }
    }

    /// Whether the request that comes now never arrives.
    fn is_lost(&self) -> bool {
        let mut lost = false;
        self.state.send_modify(|state| {
            lost = state.is_dead() || state.doomed == 1;
            state.doomed = state.doomed.saturating_sub(1);
        });
        lost
    }

    /// Waits until an answer has come through; one that is lost never does.
    pub(super) async fn reply(&self) {
        let state = self.until(|state| !state.hold_replies).await;
        if state.drop_replies || state.is_dead() {
            pending::<()>().await;
        }
        if !state.delay.is_zero() {
            tokio::time::sleep(state.delay * 2).await;
        }
    }

    /// Whether something that nobody asked for comes through.
    pub(super) async fn push(&self) -> bool {
        let state = self.until(|state| !state.hold_replies).await;
        !state.drop_pushes && !state.drop_replies && !state.is_dead()
    }

    /// Catches the next request that contains `text`.
    pub(super) fn set_trap(&self, text: &str) -> Box<dyn HeldRequest> {
        let trap = Arc::new(Trap {
            text: text.to_owned(),
            held: Shared::default(),
            caught: watch::Sender::new(false),
        });
        *self.trap.lock() = Some(Arc::clone(&trap));
        Box::new(Held(trap))
    }

    async fn until(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.subscribe();
        let now = state.wait_for(wanted).await;
        *now.expect("the sender is borrowed here")
    }
}

impl Wire for Network {
    fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Within one process there is no other way of cutting.
    fn reset(&self) {
        self.cut();
    }

    fn delay(&self, each_way: Duration) {
        self.state.send_modify(|state| state.delay = each_way);
    }

    fn black_hole(&self, on: bool) {
        self.state.send_modify(|state| state.black_hole = on);
    }

    fn hold_replies(&self, on: bool) {
        self.state.send_modify(|state| state.hold_replies = on);
    }

    fn drop_replies(&self, on: bool) {
        self.state.send_modify(|state| state.drop_replies = on);
    }

    fn drop_pushes(&self, on: bool) {
        self.state.send_modify(|state| state.drop_pushes = on);
    }

    fn half_open(&self, on: bool) {
        self.state.send_modify(|state| {
            // A client that hears of the close at last is one whose connection is cut.
            state.cuts += u64::from(state.half_open && !on);
            state.half_open = on;
        });
    }

    fn drop_nth_request(&self, nth: u64) {
        self.state.send_modify(|state| state.doomed = nth);
    }
}

/// Keeps one request.
struct Trap {
    text: String,
    held: Shared<Option<Request>>,
    caught: watch::Sender<bool>,
}

impl Trap {
    fn hold(&self, request: Request) {
        *self.held.lock() = Some(request);
        self.caught.send_replace(true);
    }
}

impl std::fmt::Debug for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trap")
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

struct Held(Arc<Trap>);

#[async_trait]
impl HeldRequest for Held {
    async fn caught(&self) -> io::Result<()> {
        let mut caught = self.0.caught.subscribe();
        let waiting = tokio::time::timeout(PATIENCE, caught.wait_for(|caught| *caught)).await;
        match waiting {
            Ok(_) => Ok(()),
            Err(late) => Err(late.into()),
        }
    }

    async fn deliver(&self) -> io::Result<()> {
        let request = self.0.held.lock().take();
        request
            .ok_or_else(|| io::Error::other("no request was caught"))?
            .await;
        Ok(())
    }
}
