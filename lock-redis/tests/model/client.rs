//! What one client does: the inbox and the backend of `src/`, and as much of core's line, keeper and
//! reaper as decides what is sent.
//!
//! A pause needs no action of its own: a client may leave anything that it could do for as long as
//! time passes, between any two of its steps.

use crate::network::{Message, Reply, Request, Script, Standing, Why};
use crate::rules::{Rule, Rules};
use crate::state::{
    Cleaning, Client, Grant, Hold, Id, Line, Nonce, Record, Reference, SERIALS, Stage, State, Time,
    Token,
};

/// An answer that was awaited: what a lease and a place in it are counted from.
#[derive(Clone, Copy)]
struct Answer {
    sent: Time,
    tainted: bool,
}

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

    /// Takes in one message.
    pub(crate) fn deliver(&mut self, id: Id, at: usize, rules: Rules) {
        match self.client_mut(id).wire.back.remove(at) {
            Message::Push {
                nonce,
                token,
                lease,
                server,
                tainted,
            } => self.pushed(id, nonce, token, lease, server, tainted, rules),
            Message::Answer {
                request,
                reply,
                tainted,
            } => {
                if request.awaited {
                    self.answered(id, request, reply, tainted, rules);
                }
            }
        }
    }

    fn answered(&mut self, id: Id, request: Request, reply: Reply, tainted: bool, rules: Rules) {
        let now = self.now;
        if let Some(nonce) = request.script.claims() {
            let client = self.client_mut(id);
            if !rules.keep(Rule::RegisteredBeforeSent) {
                client.register(nonce, now);
            } else if let Some(record) = client.record_mut(nonce) {
                record.unanswered = record.unanswered.saturating_sub(1);
            }
        }
        let sent = if rules.keep(Rule::AnswerCountsFromSending) {
            request.sent
        } else {
            now
        };
        let answer = Answer { sent, tainted };
        match (request.script, reply) {
            (
                Script::Acquire {
                    nonce,
                    why: Why::Try,
                },
                Reply::Claim(standing),
            ) => self.tried(id, nonce, standing, answer, rules),
            (Script::Acquire { nonce, why }, Reply::Claim(standing)) => {
                if standing == Standing::Dead {
                    self.refused(id, nonce, why);
                } else {
                    self.settled(id, nonce, standing, answer);
                }
            }
            (Script::Place { nonce }, Reply::Claim(Standing::Gone)) => {
                self.join_again(id, nonce, rules);
            }
            (Script::Place { nonce }, Reply::Claim(standing)) => {
                self.settled(id, nonce, standing, answer);
            }
            (Script::Renew { nonce }, Reply::Renewed(left)) => {
                self.renewed(id, nonce, left, answer, rules);
            }
            (Script::Release { nonce, .. }, Reply::Released(_)) => self.left(id, nonce),
            (Script::Pass { held, next, .. }, Reply::Passed(_, standing)) => {
                self.left(id, held);
                self.stands(id, next, standing, answer, rules);
            }
            (Script::Replace { old, next }, Reply::Claim(standing)) => {
                self.left(id, old);
                if standing == Standing::Gone {
                    let client = self.client_mut(id);
                    client.taken(next);
                    client.turn = None;
                    self.ask(id, Why::Wait, rules);
                } else {
                    self.stands(id, next, standing, answer, rules);
                }
            }
            (script, reply) => unreachable!("{script:?} answered {reply:?}"),
        }
    }
}

// What it makes of an answer or a push.
impl State {
    fn tried(&mut self, id: Id, nonce: Nonce, standing: Standing, answer: Answer, rules: Rules) {
        let client = self.client_mut(id);
        client.taken(nonce);
        client.line = Line::Idle;
        if let Some(grant) = client.grant_of(standing, answer) {
            self.hand_out(id, nonce, grant, rules);
        }
    }

    /// `Client::standing`: of a claim that was put in the place of another.
    fn stands(&mut self, id: Id, nonce: Nonce, standing: Standing, answer: Answer, rules: Rules) {
        let client = self.client_mut(id);
        if let Some(grant) = client.grant_of(standing, answer) {
            client.taken(nonce);
            self.hand_out(id, nonce, grant, rules);
        } else if matches!(standing, Standing::Queued { .. }) {
            client.line = Line::Asking(nonce);
            self.settled(id, nonce, standing, answer);
        } else {
            client.taken(nonce);
            client.line = Line::Idle;
            client.turn = None;
            client.give_up(nonce);
        }
    }

    /// The claim was buried before.
    fn refused(&mut self, id: Id, nonce: Nonce, why: Why) {
        let client = self.client_mut(id);
        if client.wanted() == Some(nonce) {
            client.line = Line::Idle;
            client.turn = None;
            if why == Why::JoinAgain {
                client.give_up(nonce);
                return;
            }
        }
        client.taken(nonce);
    }

    /// `Client::settle`, `Inbox::granted`, `Inbox::queued`.
    fn settled(&mut self, id: Id, nonce: Nonce, standing: Standing, answer: Answer) {
        let now = self.now;
        let client = self.client_mut(id);
        let grant = client.grant_of(standing, answer);
        let Some(record) = client.record_mut(nonce) else {
            return;
        };
        match (grant, standing) {
            (Some(grant), _) => {
                match record.stage {
                    Stage::Asking | Stage::Waiting { .. } => {}
                    Stage::Granted(before) | Stage::Stale(before) if before.token < grant.token => {
                    }
                    _ => return,
                }
                record.stage = if grant.until <= now {
                    Stage::Stale(grant)
                } else {
                    Stage::Granted(grant)
                };
            }
            (None, Standing::Queued { server, again }) => {
                let due = now + again;
                let due = match record.stage {
                    Stage::Asking | Stage::Waiting { due: None } => due,
                    Stage::Waiting { due: Some(earlier) } => earlier.min(due),
                    _ => return,
                };
                record.reference = Some(Reference {
                    current: true,
                    sent: answer.sent,
                    server,
                    tainted: answer.tainted,
                });
                record.stage = Stage::Waiting { due: Some(due) };
            }
            (None, other) => unreachable!("{nonce} was answered {other:?}"),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn pushed(
        &mut self,
        id: Id,
        nonce: Nonce,
        token: Token,
        lease: Time,
        server: Time,
        tainted: bool,
        rules: Rules,
    ) {
        let now = self.now;
        let client = self.client_mut(id);
        client.seen = client.seen.max(token);
        let idle = client.line == Line::Idle;
        let Some(record) = client.record_mut(nonce) else {
            return;
        };
        let adopted =
            record.stage == Stage::Leaving && idle && !rules.keep(Rule::CancelledIsNotAdopted);
        if !matches!(record.stage, Stage::Asking | Stage::Waiting { .. }) && !adopted {
            return;
        }
        let (since, doubtful) = record.granted_since(now, server, rules);
        let until = since + lease;
        let grant = Grant {
            token,
            until,
            tainted: tainted || doubtful,
        };
        if adopted {
            self.hand_out(id, nonce, grant, rules);
        } else if until > now || !rules.keep(Rule::OverdueIsNotUsed) {
            record.stage = Stage::Granted(grant);
        } else {
            let due = rules.keep(Rule::OverdueIsAskedAbout).then_some(now);
            record.stage = Stage::Waiting { due };
        }
    }

    fn join_again(&mut self, id: Id, nonce: Nonce, rules: Rules) {
        let now = self.now;
        let client = self.client_mut(id);
        let waits = client
            .record(nonce)
            .is_some_and(|record| matches!(record.stage, Stage::Waiting { .. }));
        if !waits {
            return;
        }
        if client.wire.up {
            let why = Why::JoinAgain;
            self.send(id, Script::Acquire { nonce, why }, rules);
        } else {
            client.retry(nonce, now);
        }
    }

    fn renewed(&mut self, id: Id, nonce: Nonce, left: Time, answer: Answer, rules: Rules) {
        let now = self.now;
        let until = answer.sent + left;
        let line = self.client(id).line.clone();
        match line {
            Line::Holding(mut hold) if hold.nonce == nonce => {
                hold.renewing = false;
                // A hold whose local end has passed is not revived (`LeaseState::apply`).
                let over = now >= hold.until;
                if !over && left > 0 {
                    hold.until = until;
                    hold.tainted = answer.tainted;
                }
                self.client_mut(id).line = Line::Holding(hold);
                if !over && left == 0 {
                    self.let_go(id);
                }
            }
            Line::Confirming {
                nonce: asked,
                token,
            } if asked == nonce => {
                if left > 0 && until > now {
                    let tainted = answer.tainted;
                    let grant = Grant {
                        token,
                        until,
                        tainted,
                    };
                    self.hand_out(id, nonce, grant, rules);
                } else {
                    self.unconfirmed(id, nonce, rules);
                }
            }
            _ => {}
        }
    }

    fn left(&mut self, id: Id, nonce: Nonce) {
        self.memory.released.insert(nonce);
        let client = self.client_mut(id);
        client.records.retain(|record| record.nonce != nonce);
        client.cleaning.retain(|cleaning| cleaning.nonce != nonce);
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

// The inbox.
impl Client {
    /// `Inbox::sending`.
    fn register(&mut self, nonce: Nonce, now: Time) -> &mut Record {
        if self.record(nonce).is_none() {
            self.records.push(Record {
                nonce,
                stage: Stage::Asking,
                unanswered: 0,
                enqueued: now,
                reference: None,
            });
        }
        let record = self.record_mut(nonce).expect("just put there");
        if record.stage == Stage::Taken {
            record.stage = Stage::Asking;
        }
        record
    }

    /// `Inbox::taken`: core knows the outcome.
    fn taken(&mut self, nonce: Nonce) {
        if let Some(record) = self.record_mut(nonce)
            && record.stage != Stage::Leaving
        {
            record.stage = Stage::Taken;
            if record.unanswered == 0 {
                self.records.retain(|record| record.nonce != nonce);
            }
        }
    }

    /// `Inbox::leaving`: a release begins; answers whether the nonce has to be buried.
    fn leaving(&mut self, nonce: Nonce) -> bool {
        self.record_mut(nonce).is_some_and(|record| {
            record.stage = Stage::Leaving;
            record.unanswered > 0
        })
    }

    fn give_up(&mut self, nonce: Nonce) {
        self.leaving(nonce);
        let known = self.cleaning.iter().any(|it| it.nonce == nonce);
        if !known {
            self.cleaning.push(Cleaning {
                nonce,
                under_way: false,
            });
        }
    }

    fn retry(&mut self, nonce: Nonce, at: Time) {
        if let Some(record) = self.record_mut(nonce)
            && let Stage::Waiting { due } = &mut record.stage
        {
            *due = Some(due.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// What the caller of a waiting claim can come for. It awaits the answer to its request before it
    /// looks.
    pub(crate) fn ready(&self) -> Option<Stage> {
        let Line::Asking(nonce) = self.line else {
            return None;
        };
        let why = Why::Wait;
        if self.wire.awaits(Script::Acquire { nonce, why }) {
            return None;
        }
        let stage = self.record(nonce)?.stage;
        matches!(stage, Stage::Granted(_) | Stage::Stale(_)).then_some(stage)
    }

    /// A nonce whose place is to be renewed by `now`.
    pub(crate) fn due(&self, now: Time) -> Option<Nonce> {
        self.records.iter().find_map(|record| match record.stage {
            Stage::Waiting { due: Some(due) } if due <= now => Some(record.nonce),
            _ => None,
        })
    }

    fn grant_of(&mut self, standing: Standing, answer: Answer) -> Option<Grant> {
        let Standing::Granted { token, left } = standing else {
            return None;
        };
        self.seen = self.seen.max(token);
        Some(Grant {
            token,
            until: answer.sent + left,
            tainted: answer.tainted,
        })
    }
}

impl Record {
    /// A point that is certainly not later than a grant that the server dates `granted`, and whether
    /// a forward step of the server's clock makes it doubtful.
    fn granted_since(&self, arrived: Time, granted: Time, rules: Rules) -> (Time, bool) {
        if !rules.keep(Rule::PushCountsFromReference) {
            return (arrived, false);
        }
        let bound = !rules.keep(Rule::ReferencesDieWithConnection);
        let (since, doubtful) = match self.reference {
            Some(it) if it.current || bound => (it.sent + (granted - it.server).max(0), it.tainted),
            _ => (self.enqueued, false),
        };
        (since.min(arrived), doubtful)
    }
}
