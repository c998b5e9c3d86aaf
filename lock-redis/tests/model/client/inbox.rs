//! What one client makes of answers and pushes: the inbox of `src/inbox.rs`, and `src/client.rs`.

use crate::network::{Message, Reply, Request, Script, Standing, Why};
use crate::rules::{Rule, Rules};
use crate::state::{
    Cleaning, Client, Grant, Id, Line, Nonce, Record, Reference, Stage, State, Time, Token,
};

/// An answer that was awaited: what a lease and a place in it are counted from.
#[derive(Clone, Copy)]
struct Answer {
    sent: Time,
    tainted: bool,
}

// Messages.
impl State {
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

// What it makes of them.
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
}

// The records.
impl Client {
    /// `Inbox::sending`.
    pub(super) fn register(&mut self, nonce: Nonce, now: Time) -> &mut Record {
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
    pub(super) fn taken(&mut self, nonce: Nonce) {
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
    pub(super) fn leaving(&mut self, nonce: Nonce) -> bool {
        self.record_mut(nonce).is_some_and(|record| {
            record.stage = Stage::Leaving;
            record.unanswered > 0
        })
    }

    pub(super) fn give_up(&mut self, nonce: Nonce) {
        self.leaving(nonce);
        let known = self.cleaning.iter().any(|it| it.nonce == nonce);
        if !known {
            self.cleaning.push(Cleaning {
                nonce,
                under_way: false,
            });
        }
    }

    pub(super) fn retry(&mut self, nonce: Nonce, at: Time) {
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
        let asked = Script::Acquire { nonce, why };
        if self.wire.awaits(|script| script == asked) {
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
