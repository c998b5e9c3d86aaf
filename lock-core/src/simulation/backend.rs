//! The backend that the simulated clients use: requests over the simulated network.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc};

use super::plan::NAMES;
use super::protocol::{Entry, Reply, Request, Standing};
use super::sabotage::{Sabotage, broken};
use super::server::LOOK_EVERY;
use super::world::World;
use crate::backend::{Backend, Connect, Context, Event};
use crate::capability::{Capabilities, TtlRange, WaitOrder};
use crate::claim::{Claim, Lease, Reach};
use crate::clock::{BootInstant, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::grant::{self, Grant, Passed, Renewal, Replaced, Validity};
use crate::name::LockName;
use crate::owner::Nonce;
use crate::state::{Cursor, LockState, Page};
use crate::token::FencingToken;

/// The way of one process to the server.
#[derive(Clone)]
pub(super) struct SimConnect {
    pub(super) world: World,
    pub(super) process: usize,
}

impl fmt::Debug for SimConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimConnect({})", self.process)
    }
}

#[async_trait]
impl Connect for SimConnect {
    async fn connect(&self, context: Context) -> Result<Arc<dyn Backend>> {
        let events = self.world.state().link(self.process).listen();
        Ok(Arc::new(SimBackend {
            way: self.clone(),
            clock: context.clock,
            events: Mutex::new(Some(events)),
        }))
    }
}

#[derive(Debug)]
struct SimBackend {
    way: SimConnect,
    clock: Clock,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

impl SimBackend {
    /// Sends a request, and waits for its answer for ever.
    async fn ask(&self, op: &'static str, request: Request) -> Result<Answer> {
        self.ask_for(None, op, request).await
    }

    /// As [`ask`](Self::ask), reporting the progress of a claim that is asked for.
    async fn ask_for(
        &self,
        claim: Option<&Claim>,
        op: &'static str,
        request: Request,
    ) -> Result<Answer> {
        let sent = self.clock.now();
        let SimConnect { world, process } = &self.way;
        let answer = world
            .state()
            .send(*process, request)
            .map_err(|_| Error::new(ErrorKind::Unavailable, op))?;
        if let Some(claim) = claim.filter(|claim| claim.progress.reach() == Reach::Unsent) {
            claim.progress.report(Reach::Sent);
        }
        let reply = answer.await;
        let reply = reply.map_err(|_| Error::new(ErrorKind::Indeterminate, op))?;
        let reply = reply.map_err(|_| Error::new(ErrorKind::Indeterminate, op))?;
        Ok(Answer {
            reply,
            sent: if broken(Sabotage::ValidityFromReply) {
                self.clock.now()
            } else {
                sent
            },
            received: self.clock.now(),
        })
    }

    fn entry(&self, claim: &Claim) -> Entry {
        let name = claim.name.as_str();
        Entry {
            process: self.way.process,
            name: NAMES
                .into_iter()
                .find(|known| *known == name)
                .expect("users know no other names"),
            nonce: claim.nonce,
            ttl: claim.ttl,
            kept: claim.lease == Lease::Kept,
        }
    }

    fn watch(&self, claim: &Claim) -> Watch<'_> {
        let mut state = self.way.world.state();
        Watch {
            way: &self.way,
            nonce: claim.nonce,
            rings: state.link(self.way.process).watch(claim.nonce),
        }
    }
}

/// An answer, and between which times the server gave it.
struct Answer {
    reply: Reply,
    sent: BootInstant,
    received: BootInstant,
}

impl Answer {
    fn validity(&self, remaining: Duration) -> Validity {
        Validity::new(self.sent, self.received, remaining)
    }

    /// The grant of `claim`; `None` when it was not granted.
    fn grant(&self, way: &SimConnect, claim: &Claim, standing: Standing) -> Result<Option<Grant>> {
        match standing {
            Standing::Granted {
                token,
                remaining,
                provisional,
            } => {
                let mut state = way.world.state();
                state.link(way.process).heard_of(claim.nonce, token);
                let token = FencingToken::new(token)?;
                let grant = Grant::new(claim, token, self.validity(remaining));
                Ok(Some(if provisional {
                    grant.provisional()
                } else {
                    grant
                }))
            }
            Standing::Queued | Standing::Busy => Ok(None),
            Standing::Spent => Err(Error::new(ErrorKind::Lost, "acquire")),
        }
    }

    fn standing(
        &self,
        way: &SimConnect,
        claim: &Claim,
        standing: Standing,
    ) -> Result<grant::Standing> {
        let grant = self.grant(way, claim, standing)?;
        Ok(grant.map_or(grant::Standing::Queued, grant::Standing::Granted))
    }
}

/// Rings when the server says that a claim stands differently, for as long as somebody waits for that.
struct Watch<'a> {
    way: &'a SimConnect,
    nonce: Nonce,
    rings: Arc<Notify>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut state = self.way.world.state();
        state.link(self.way.process).unwatch(&self.nonce);
    }
}

fn surprise(op: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, op)
}

#[async_trait]
impl Backend for SimBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::least("simulation");
        capabilities.wait_order = WaitOrder::Fifo;
        capabilities.ttl = Some(TtlRange {
            min: Duration::from_millis(1),
            max: Duration::from_secs(60),
            step: Duration::from_nanos(1),
        });
        capabilities
    }

    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Grant>> {
        let request = Request::Try(self.entry(claim));
        let answer = self.ask_for(Some(claim), "try_acquire", request).await?;
        match answer.reply {
            Reply::Standing(standing) => answer.grant(&self.way, claim, standing),
            _ => Err(surprise("try_acquire")),
        }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Grant> {
        let watch = self.watch(claim);
        let mut queued = claim.progress.reach() == Reach::Queued;
        loop {
            let request = Request::Stand(self.entry(claim));
            let asking = self.ask_for(Some(claim), "acquire", request);
            let answer = if queued {
                // A push may be lost, and so may an answer: what is queued keeps asking.
                let ringing = watch.rings.notified();
                let _rung = self.clock.timeout(LOOK_EVERY, ringing).await;
                self.clock.timeout(LOOK_EVERY, asking).await
            } else {
                Some(asking.await)
            };
            let answer = match answer {
                Some(Ok(answer)) => answer,
                Some(Err(error)) if !queued => return Err(error),
                Some(Err(_)) | None => {
                    claim.progress.report(Reach::Adrift);
                    continue;
                }
            };
            match answer.reply {
                Reply::Standing(Standing::Queued) => {
                    queued = true;
                    claim.progress.report(Reach::Queued);
                }
                Reply::Standing(standing) => {
                    let grant = answer.grant(&self.way, claim, standing)?;
                    return grant.ok_or_else(|| surprise("acquire"));
                }
                _ => return Err(surprise("acquire")),
            }
        }
    }

    async fn renew(&self, grants: &[&Grant]) -> Vec<Result<Renewal>> {
        let holds = grants
            .iter()
            .map(|grant| (self.entry(grant.claim()), grant.token().get()))
            .collect();
        let answer = match self.ask("renew", Request::Renew(holds)).await {
            Ok(answer) => answer,
            Err(error) => return vec![Err(error); grants.len()],
        };
        let Reply::Renewed(left) = &answer.reply else {
            return vec![Err(surprise("renew")); grants.len()];
        };
        left.iter()
            .map(|left| {
                Ok(left.map_or(Renewal::Gone, |left| {
                    Renewal::Extended(answer.validity(left))
                }))
            })
            .collect()
    }

    async fn release(&self, claim: &Claim) -> Result<bool> {
        let SimConnect { world, process } = &self.way;
        {
            let mut state = world.state();
            let now = state.now();
            state.link(*process).release_asked(claim.nonce, now);
        }
        let request = Request::Release(self.entry(claim));
        let answer = self.ask("release", request).await?;
        world.state().link(*process).release_answered(&claim.nonce);
        match answer.reply {
            Reply::Released(held) => Ok(held),
            _ => Err(surprise("release")),
        }
    }

    async fn pass(&self, held: &Claim, next: &Claim) -> Result<Passed> {
        let request = Request::Pass {
            held: self.entry(held),
            next: self.entry(next),
        };
        let answer = self.ask("pass", request).await?;
        match answer.reply {
            Reply::Passed {
                released,
                next: standing,
            } => Ok(Passed {
                released,
                next: answer.standing(&self.way, next, standing)?,
            }),
            _ => Err(surprise("pass")),
        }
    }

    async fn replace(&self, waiting: &Claim, next: &Claim) -> Result<Replaced> {
        let request = Request::Replace {
            waiting: self.entry(waiting),
            next: self.entry(next),
        };
        let answer = self.ask("replace", request).await?;
        match answer.reply {
            Reply::Replaced(None) => Ok(Replaced::Gone),
            Reply::Replaced(Some(standing)) => {
                Ok(Replaced::Now(answer.standing(&self.way, next, standing)?))
            }
            _ => Err(surprise("replace")),
        }
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let events = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .expect("core asks for the events once");
        futures_util::stream::unfold(events, |mut events| async move {
            events.recv().await.map(|event| (event, events))
        })
        .boxed()
    }

    async fn inspect(&self, name: &LockName) -> Result<LockState> {
        Err(Error::new(ErrorKind::Unsupported, "inspect").with_name(name))
    }

    async fn list(&self, _prefix: &str, _cursor: Cursor) -> Result<Page> {
        Err(Error::new(ErrorKind::Unsupported, "list"))
    }

    async fn break_hold(&self, name: &LockName, _token: FencingToken) -> Result<bool> {
        Err(Error::new(ErrorKind::Unsupported, "break").with_name(name))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
