//! What one client does: the backend of `src/`, and as much of core's line, keeper and reaper as
//! decides what is sent.
//!
//! A pause needs no action of its own: a client may leave anything that it could do for as long as
//! time passes, between any two of its steps.

mod inbox;

use crate::network::{Message, Request, Script, Why};
use crate::rules::{Rule, Rules};
use crate::state::{Cleaning, Grant, Hold, Id, Line, Nonce, SERIALS, Stage, State};

// What a user, the keeper and the reaper make it do.
impl State {
    pub(crate) fn ask(&mut self, id: Id, why: Why, rules: Rules) {
        self.client_mut(id).line = Line::Idle;
        // Without a connection nothing is sent.
        if !self.client(id).wire.up {
            return;
        }
        let Some(nonce) = self.fresh(id) else { return };
        self.client_mut(id).line = match why {
            Why::Try => Line::Trying(nonce),
            Why::Wait | Why::JoinAgain => Line::Asking(nonce),
        };
        self.send(id, Script::Acquire { nonce, why }, rules);
    }

    /// The caller has gone, and nobody stands in line behind it.
    pub(crate) fn cancel(&mut self, id: Id, rules: Rules) {
        let nonce = self.client(id).wanted().expect("it waits");
        self.drop_future(id, nonce, rules);
        let client = self.client_mut(id);
        client.line = Line::Idle;
        client.turn = None;
        client.give_up(nonce);
    }

    /// The caller has gone, and another task of this client stands in line behind it.
    pub(crate) fn replace(&mut self, id: Id, rules: Rules) {
        let old = self.client(id).wanted().expect("it waits");
        self.drop_future(id, old, rules);
        let Some(next) = self.fresh(id) else { return };
        let client = self.client_mut(id);
        let bury = client.leaving(old);
        if rules.keep(Rule::ReplaceIsOneScript) {
            client.line = Line::Replacing { old, next };
            self.send(id, Script::Replace { old, next }, rules);
        } else {
            client.cleaning.push(Cleaning {
                nonce: old,
                under_way: true,
            });
            client.line = Line::Asking(next);
            self.send(id, Script::Release { nonce: old, bury }, rules);
            let why = Why::Wait;
            self.send(id, Script::Acquire { nonce: next, why }, rules);
        }
    }

    /// The caller comes for its grant (`Inbox::outcome`, `Line::confirm`).
    pub(crate) fn take(&mut self, id: Id, rules: Rules) {
        let now = self.now;
        let nonce = self.client(id).wanted().expect("it waits");
        let record = self.client_mut(id).record_mut(nonce).expect("registered");
        let (grant, stale) = match record.stage {
            Stage::Granted(grant) => (grant, false),
            Stage::Stale(grant) => (grant, true),
            _ => unreachable!("nothing to take"),
        };
        let over = grant.until <= now;
        if over && !stale && rules.keep(Rule::OverdueIsNotUsed) {
            let due = rules.keep(Rule::OverdueIsAskedAbout).then_some(now);
            record.stage = Stage::Waiting { due };
            return;
        }
        self.client_mut(id).taken(nonce);
        self.hand_out(id, nonce, grant, rules);
    }

    /// A grant reaches its caller, or is confirmed first.
    fn hand_out(&mut self, id: Id, nonce: Nonce, grant: Grant, rules: Rules) {
        let now = self.now;
        let over = grant.until <= now;
        if over && rules.keep(Rule::OverdueIsNotUsed) {
            let token = grant.token;
            self.client_mut(id).line = Line::Confirming { nonce, token };
            if self.client(id).wire.up {
                self.send(id, Script::Renew { nonce }, rules);
            } else {
                self.unconfirmed(id, nonce, rules);
            }
            return;
        }
        if over {
            self.memory.broken = Some(crate::properties::Property::HandedOutInTime);
        }
        self.client_mut(id).line = Line::Holding(Hold {
            nonce,
            token: grant.token,
            until: grant.until,
            tainted: grant.tainted,
            renewing: false,
            renewed: None,
        });
    }

    fn unconfirmed(&mut self, id: Id, nonce: Nonce, rules: Rules) {
        self.client_mut(id).give_up(nonce);
        self.ask(id, Why::Wait, rules);
    }

    pub(crate) fn renew(&mut self, id: Id, rules: Rules) {
        let now = self.now;
        let Line::Holding(hold) = &mut self.client_mut(id).line else {
            unreachable!("it holds")
        };
        hold.renewing = true;
        hold.renewed = Some(now);
        let nonce = hold.nonce;
        self.send(id, Script::Renew { nonce }, rules);
    }

    /// The hold ends, by its guard or by the local clock; a release follows.
    pub(crate) fn let_go(&mut self, id: Id) {
        let nonce = self.client(id).hold().expect("it holds").nonce;
        let client = self.client_mut(id);
        client.line = Line::Idle;
        client.give_up(nonce);
    }

    pub(crate) fn pass(&mut self, id: Id, rules: Rules) {
        let held = self.client(id).hold().expect("it holds").nonce;
        let Some(next) = self.fresh(id) else { return };
        let client = self.client_mut(id);
        let bury = client.leaving(held);
        client.line = Line::Passing { held, next };
        self.send(id, Script::Pass { held, bury, next }, rules);
    }

    /// The first nonce that waits to be released.
    pub(crate) fn clean(&mut self, id: Id, rules: Rules) {
        let client = self.client_mut(id);
        let cleaning = client
            .cleaning
            .iter_mut()
            .find(|cleaning| !cleaning.under_way)
            .expect("something to clean");
        cleaning.under_way = true;
        let nonce = cleaning.nonce;
        let bury = client.leaving(nonce) && rules.keep(Rule::UnansweredIsBuried);
        self.send(id, Script::Release { nonce, bury }, rules);
    }

    /// Renews the place that is due.
    pub(crate) fn renew_place(&mut self, id: Id, rules: Rules) {
        let now = self.now;
        let nonce = self.client(id).due(now).expect("a place is due");
        if let Some(record) = self.client_mut(id).record_mut(nonce) {
            record.stage = Stage::Waiting { due: None };
        }
        self.send(id, Script::Place { nonce }, rules);
    }
}

// Its connection.
impl State {
    fn send(&mut self, id: Id, script: Script, rules: Rules) {
        let now = self.now;
        let client = self.client_mut(id);
        if let Some(nonce) = script.claims()
            && rules.keep(Rule::RegisteredBeforeSent)
        {
            client.register(nonce, now).unanswered += 1;
        }
        let floor = client.seen;
        client.wire.requests.push(Request {
            script,
            sent: now,
            floor,
            awaited: true,
        });
    }

    /// The client gives its connection up: what is under way may still be run, and is not answered.
    pub(crate) fn discard(&mut self, id: Id, rules: Rules) {
        let client = self.client_mut(id);
        client.wire.up = false;
        let unanswered = std::mem::take(&mut client.wire.requests);
        let lost = std::mem::take(&mut client.wire.back);
        for record in &mut client.records {
            if let Some(reference) = &mut record.reference {
                reference.current = false;
            }
        }
        let lost = lost.into_iter().filter_map(|message| match message {
            Message::Answer { request, .. } => Some(request),
            Message::Push { .. } => None,
        });
        for request in lost.chain(unanswered.iter().copied()) {
            if request.awaited {
                self.failed(id, request.script, rules);
            }
        }
        if !unanswered.is_empty() {
            self.late.push(unanswered);
        }
    }

    pub(crate) fn connect(&mut self, id: Id, rules: Rules) {
        let now = self.now;
        let client = self.client_mut(id);
        client.wire.up = true;
        if rules.keep(Rule::PlacesAreRenewedOnConnect) {
            for record in &mut client.records {
                if let Stage::Waiting { due } = &mut record.stage {
                    *due = Some(now);
                }
            }
        }
        if let (Line::Passing { held, next }, false) = (
            self.client(id).line.clone(),
            rules.keep(Rule::OnlyReleaseHalfIsRepeated),
        ) {
            let client = self.client_mut(id);
            let floor = client.seen;
            client.wire.requests.push(Request {
                script: Script::Pass {
                    held,
                    bury: false,
                    next,
                },
                sent: now,
                floor,
                awaited: true,
            });
        }
    }

    pub(crate) fn crash(&mut self, id: Id) {
        let client = self.client_mut(id);
        client.alive = false;
        client.wire.up = false;
        client.wire.back.clear();
        let under_way = std::mem::take(&mut client.wire.requests);
        client.records.clear();
        client.cleaning.clear();
        client.line = Line::Idle;
        client.turn = None;
        if !under_way.is_empty() {
            self.late.push(under_way);
        }
    }

    /// A request was sent and is not going to be answered.
    fn failed(&mut self, id: Id, script: Script, rules: Rules) {
        let now = self.now;
        let client = self.client_mut(id);
        match script {
            Script::Acquire {
                nonce,
                why: Why::Try | Why::Wait,
            } => {
                client.line = Line::Idle;
                client.turn = None;
                client.give_up(nonce);
            }
            Script::Acquire {
                nonce,
                why: Why::JoinAgain,
            }
            | Script::Place { nonce } => client.retry(nonce, now),
            Script::Renew { nonce } => match &mut client.line {
                Line::Holding(hold) if hold.nonce == nonce => hold.renewing = false,
                Line::Confirming { nonce: asked, .. } if *asked == nonce => {
                    client.line = Line::Idle;
                    client.give_up(nonce);
                }
                _ => {}
            },
            Script::Release { nonce, .. } => {
                for cleaning in &mut client.cleaning {
                    if cleaning.nonce == nonce {
                        cleaning.under_way = false;
                    }
                }
            }
            Script::Pass { .. } if !rules.keep(Rule::OnlyReleaseHalfIsRepeated) => {}
            Script::Pass { held, next, .. } => {
                client.line = Line::Idle;
                client.turn = None;
                client.give_up(held);
                client.give_up(next);
            }
            Script::Replace { old, next } => {
                client.line = Line::Idle;
                client.turn = None;
                client.give_up(old);
                client.give_up(next);
            }
        }
    }

    fn drop_future(&mut self, id: Id, nonce: Nonce, rules: Rules) {
        let client = self.client_mut(id);
        let wire = &mut client.wire;
        let answered = wire.back.iter_mut().filter_map(|message| match message {
            Message::Answer { request, .. } => Some(request),
            Message::Push { .. } => None,
        });
        for request in wire.requests.iter_mut().chain(answered) {
            let asked = match request.script {
                Script::Acquire {
                    nonce: asked,
                    why: Why::Wait,
                } => asked == nonce,
                Script::Renew { nonce: asked } => asked == nonce,
                _ => false,
            };
            if asked {
                request.awaited = false;
            }
        }
        if !rules.keep(Rule::DroppedIsUnanswered)
            && let Some(record) = client.record_mut(nonce)
        {
            record.unanswered = 0;
        }
    }

    fn fresh(&mut self, id: Id) -> Option<Nonce> {
        let client = self.client_mut(id);
        let serial = client.serials;
        if serial >= SERIALS {
            return None;
        }
        client.serials += 1;
        Some(Nonce { client: id, serial })
    }
}
