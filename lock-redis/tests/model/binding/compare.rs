//! What the model says, against what the server says and stores.

use lock_redis::redis::{Value, cmd};

use super::value::{count, list, number, text, ticks, whole};
use super::{Pair, TICK, TICK_US};
use crate::network::{Reply, Script, Standing};
use crate::server::Effect;
use crate::state::Token;

/// Nothing, or where they differ.
pub(super) type Compared = Result<(), String>;

impl Pair<'_> {
    /// Tokens are others on each side, but they grow on both.
    pub(super) fn compare_token(&mut self, token: Token, floors: (Token, i64)) -> Compared {
        let last = self.key("l");
        let real = number(&self.ask(cmd("HGET").arg(last).arg("last"))).expect("a token");
        let before = self.highest();
        self.tokens.insert(token, real);
        let grew = token > before.0.max(floors.0);
        same("a token that grew", &grew, &(real > before.1.max(floors.1)))
    }

    pub(super) fn highest(&self) -> (Token, i64) {
        let highest = self.tokens.last_key_value();
        highest.map_or((0, 0), |(model, real)| (*model, *real))
    }

    pub(super) fn compare_reply(&self, script: Script, reply: Reply, answer: &Value) -> Compared {
        let answer = match script {
            Script::Place { .. } | Script::Renew { .. } => &list(answer)[0],
            _ => answer,
        };
        match reply {
            Reply::Released(held) => same("released", &i64::from(held), &whole(answer)),
            Reply::Renewed(left) => same("renewed", &i64::from(left), &ticks(whole(answer))),
            Reply::Claim(standing) => self.compare_standing(script, standing, answer),
            Reply::Passed(held, standing) => {
                same("released", &i64::from(held), &whole(&list(answer)[0]))?;
                self.compare_standing(script, standing, &list(answer)[1])
            }
        }
    }

    fn compare_standing(&self, script: Script, standing: Standing, answer: &Value) -> Compared {
        let parts = list(answer);
        let said = text(&parts[0]);
        match standing {
            Standing::Granted { token, left } => {
                same("answer", &"granted", &said.as_str())?;
                same("token", &self.tokens[&token], &whole(&parts[1]))?;
                same("left", &i64::from(left), &ticks(whole(&parts[2])))?;
                let provisional = self.model.holder.is_some_and(|it| it.provisional);
                same("provisional", &i64::from(provisional), &whole(&parts[3]))
            }
            Standing::Queued { server, .. } => {
                same("answer", &"queued", &said.as_str())?;
                let nonce = match script {
                    Script::Place { nonce } | Script::Acquire { nonce, .. } => nonce,
                    Script::Pass { next, .. } | Script::Replace { next, .. } => next,
                    _ => unreachable!("{script:?} is no claim"),
                };
                let place = self.model.place(nonce).map(|at| count(at) + 1);
                same("place", &place, &Some(whole(&parts[1])))?;
                let left = self.model.live(server).map_or(0, |it| it.expires - server);
                same("left", &i64::from(left), &ticks(whole(&parts[3])))
            }
            Standing::Busy => same("answer", &"busy", &said.as_str()),
            Standing::Gone => same("answer", &"gone", &said.as_str()),
            Standing::Dead => same("answer", &"dead", &said.as_str()),
        }
    }

    pub(super) fn compare_pushes(&mut self, effects: &[Effect]) -> Compared {
        let end = format!("{}:end", self.inboxes);
        self.ask(cmd("PUBLISH").arg(end).arg("end"));
        let mut heard = Vec::new();
        loop {
            let message = self.pushes.get_message().expect("a push");
            let payload: String = message.get_payload().expect("text");
            if payload == "end" {
                break;
            }
            heard.push((message.get_channel_name().to_owned(), payload));
        }
        let mut said = effects.iter().filter_map(|effect| match effect {
            Effect::Pushed {
                nonce,
                token,
                lease,
                ..
            } => Some((*nonce, *token, *lease)),
            _ => None,
        });
        for (channel, payload) in heard {
            let Some((nonce, token, lease)) = said.next() else {
                return Err(format!("a push that the model does not send: {payload}"));
            };
            same("inbox", &self.inbox(nonce), &channel)?;
            let lease = i64::from(lease) * TICK_US;
            let expected = format!("granted\t{nonce}\t{}\t{lease}\t", self.tokens[&token]);
            same("push", &true, &payload.starts_with(&expected))?;
        }
        same("pushes that are missing", &None, &said.next())
    }

    pub(super) fn compare_tombstones(&mut self, script: Script) -> Compared {
        let nonces = match script {
            Script::Acquire { nonce, .. }
            | Script::Place { nonce }
            | Script::Renew { nonce }
            | Script::Release { nonce, .. } => vec![nonce],
            Script::Pass { held, next, .. } => vec![held, next],
            Script::Replace { old, next } => vec![old, next],
        };
        for nonce in nonces {
            let key = self.key(&format!("t:{nonce}"));
            let buried = whole(&self.ask(cmd("EXISTS").arg(key))) == 1;
            same("buried", &self.model.tombstones.contains(nonce), &buried)?;
        }
        Ok(())
    }

    /// The records themselves: holder, queue and the waiters' leases.
    pub(super) fn compare_records(&mut self) -> Compared {
        let [l, w] = ["l", "w"].map(|kind| self.key(kind));
        let (clock, now) = (self.model.clock(self.now), self.real_clock());
        let fields = ["holder", "expires", "lease", "provisional"];
        let holder = self.ask(cmd("HMGET").arg(&l).arg(&fields));
        let holder = match list(&holder) {
            [Value::Nil, ..] => None,
            [nonce, expires, lease, provisional] => Some((
                text(nonce),
                ticks(number(expires).expect("a time") - now),
                number(lease).expect("a length") / TICK,
                text(provisional) == "1",
            )),
            other => return Err(format!("holder {other:?}")),
        };
        let modelled = self.model.holder.map(|it| {
            let (left, lease) = (i64::from(it.expires - clock), i64::from(it.lease));
            (it.nonce.to_string(), left, lease, it.provisional)
        });
        same("holder", &modelled, &holder)?;
        let mut queue = Vec::new();
        for nonce in self.real_queue() {
            let record = text(&self.ask(cmd("HGET").arg(&w).arg(&nonce)));
            let parts: Vec<&str> = record.split('\t').collect();
            let part = |at: usize| parts[at].parse::<i64>().expect("a number");
            queue.push((nonce, ticks(part(0) - now), part(1) / TICK));
        }
        let modelled: Vec<_> = self
            .model
            .queue
            .iter()
            .map(|it| {
                (
                    it.nonce.to_string(),
                    i64::from(it.ends - clock),
                    i64::from(it.lease),
                )
            })
            .collect();
        same("queue", &modelled, &queue)?;
        let waiters = whole(&self.ask(cmd("HLEN").arg(&w)));
        same("records of waiters", &count(queue.len()), &waiters)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, real: &T) -> Compared {
    if model == real {
        return Ok(());
    }
    Err(format!(
        "{what}: {model:?} in the model, {real:?} on the server"
    ))
}
