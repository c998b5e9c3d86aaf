//! The model's server and the real scripts do the same: one random sequence on both, compared after
//! each step.
//!
//! A tick is so long that a test takes none. Time passes, and clocks are set, by moving every time
//! that the server has stored.

mod compare;
mod value;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use lock_conformance::servers::RedisServer;
use lock_redis::redis::{self, Cmd, Connection, PubSub, Value, cmd};

use compare::Compared;
use value::{list, number, text};

use crate::network::{Request, Script, Why};
use crate::rules::{Rule, Rules};
use crate::scripts::{self, Call};
use crate::server::{Effect, Periods, Server};
use crate::state::{CLAIM, Nonce, TTL, Time, Token};

/// A tick, in ms of the server.
const TICK: i64 = 1_000_000;
/// In the units of stored times.
const TICK_US: i64 = TICK * 1_000;
/// Real waiters renew within seconds, so that their lease is the claim window.
const PERIODS: Periods = Periods { head: 1, behind: 1 };
/// How many sequences there are, and how long one is.
const SEQUENCES: u64 = 250;
const STEPS: usize = 60;

#[test]
fn real_scripts_do_what_the_model_does() {
    let mut real = Real::start();
    let mut granted = 0;
    for seed in 0..SEQUENCES {
        match real.sequence(seed, Rules::ALL) {
            Ok(tokens) => granted += tokens,
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    assert!(granted > 1_000, "only {granted} grants");
}

#[test]
fn model_without_a_rule_of_the_scripts_is_told_from_them() {
    let mut real = Real::start();
    for rule in [
        Rule::CallerLeavesBeforePromotion,
        Rule::QueueOwnsFreeLock,
        Rule::TombstonesAreRespected,
        Rule::ReplaceBuriesTheOld,
        Rule::HolderIsClamped,
        Rule::WaiterIsClamped,
        Rule::HandOffGrantsClaimWindow,
        Rule::PlaceReportsGrant,
        Rule::PlaceNoticesExpiry,
        Rule::TokenAboveLast,
        Rule::TokenAboveSeen,
        Rule::RenewalNeverRecreates,
        Rule::RenewalNeverRevives,
        Rule::ReleaseIsByNonce,
    ] {
        let rules = Rules::without(rule);
        let told = (0..SEQUENCES).any(|seed| real.sequence(seed, rules).is_err());
        assert!(told, "{rule:?}");
    }
}

/// A server, and a subscriber to all inboxes.
struct Real {
    server: RedisServer,
    pushes: Connection,
    locks: u64,
}

impl Real {
    fn start() -> Self {
        let server = RedisServer::start();
        Self {
            pushes: connect(&server),
            server,
            locks: 0,
        }
    }

    /// One sequence, on a lock of its own; answers how many grants were in it.
    fn sequence(&mut self, seed: u64, rules: Rules) -> Result<usize, String> {
        self.locks += 1;
        let mut pushes = self.pushes.as_pubsub();
        pushes
            .psubscribe(format!("{}:*", self.locks))
            .expect("subscribes");
        let mut pair = Pair {
            rules,
            model: Server::new(),
            now: 0,
            arrivals: 0,
            real: connect(&self.server),
            pushes,
            name: format!("{{p00}}:{}", self.locks),
            inboxes: self.locks,
            tokens: BTreeMap::new(),
            rng: Rng::with_seed(seed),
            steps: String::new(),
        };
        for _ in 0..STEPS {
            let step = pair.step();
            step.map_err(|why| format!("{why}\nafter:{}", pair.steps))?;
        }
        Ok(pair.tokens.len())
    }
}

fn connect(server: &RedisServer) -> Connection {
    let client = redis::Client::open(server.url()).expect("a good address");
    let connection = client.get_connection().expect("connects");
    let patience = Some(Duration::from_secs(20));
    connection
        .set_read_timeout(patience)
        .expect("a good timeout");
    connection
}

/// One lock, twice.
struct Pair<'a> {
    rules: Rules,
    model: Server,
    now: Time,
    arrivals: u8,
    real: Connection,
    pushes: PubSub<'a>,
    name: String,
    inboxes: u64,
    /// Of the model, and what the real server gave in their place.
    tokens: BTreeMap<Token, i64>,
    rng: Rng,
    steps: String,
}

impl Pair<'_> {
    fn step(&mut self) -> Compared {
        match self.rng.u8(0..12) {
            0..=1 => self.pass_time(1),
            2 => {
                let by = *self.rng.choice(&[-7, -1, 2, 3]).expect("not empty");
                self.pass_time(by);
            }
            _ => {
                let script = self.any_script();
                self.run(script)?;
            }
        }
        self.compare_records()
    }

    fn any_nonce(&mut self) -> Nonce {
        let holder = self.model.holder.map(|holder| holder.nonce);
        let waiting = self.model.queue.iter().map(|waiter| waiter.nonce);
        let known: Vec<Nonce> = holder.into_iter().chain(waiting).collect();
        match self.rng.choice(&known) {
            Some(nonce) if self.rng.u8(0..3) > 0 => *nonce,
            _ => Nonce {
                client: self.rng.u8(0..3),
                serial: self.rng.u8(0..8),
            },
        }
    }

    fn any_script(&mut self) -> Script {
        let (nonce, other) = (self.any_nonce(), self.any_nonce());
        let bury = self.rng.u8(0..4) == 0;
        match self.rng.u8(0..12) {
            0 => Script::Acquire {
                nonce,
                why: Why::Try,
            },
            1..=4 => Script::Acquire {
                nonce,
                why: Why::Wait,
            },
            5..=6 => Script::Place { nonce },
            7 => Script::Renew { nonce },
            8..=9 => Script::Release { nonce, bury },
            10 if nonce != other => Script::Pass {
                held: nonce,
                bury,
                next: other,
            },
            11 if nonce != other => Script::Replace {
                old: nonce,
                next: other,
            },
            _ => Script::Place { nonce },
        }
    }

    fn run(&mut self, script: Script) -> Compared {
        // Now and then, a client that has seen larger tokens than this server.
        let ahead = self.rng.u8(0..8) == 0;
        let highest = self.highest();
        let clock = self.model.clock(self.now);
        let floors = if ahead {
            let floor = highest.0.max(Server::token_of(clock)) + 1_000;
            (floor, highest.1.max(self.real_clock()) + TICK_US)
        } else {
            (0, 0)
        };
        let _ = write!(self.steps, "\n  {script:?} {floors:?}");
        let request = Request {
            script,
            sent: self.now,
            floor: floors.0,
            awaited: true,
        };
        let (reply, effects) =
            self.model
                .run(&request, clock, self.rules, PERIODS, &mut self.arrivals);
        let answer = self.call(script, floors.1);
        for effect in &effects {
            if let Effect::Granted { token, .. } = effect {
                self.compare_token(*token, floors)?;
            }
        }
        self.compare_reply(script, reply, &answer)?;
        self.compare_pushes(&effects)?;
        self.compare_tombstones(script)
    }

    /// Calls the real script as the client does.
    fn call(&mut self, script: Script, floor: i64) -> Value {
        let lock = ["l", "q", "w"].map(|kind| self.key(kind));
        let tombstone = |nonce: Nonce| format!("{}:t:{nonce}", self.name);
        let begin = |script| {
            Call::new(script)
                .keys(lock.clone())
                .arg(floor)
                .arg(TICK)
                .arg(i64::from(CLAIM) * TICK)
        };
        let (ttl, life) = (i64::from(TTL) * TICK, TICK);
        let bury_for = |bury: bool| if bury { life } else { 0 };
        let inbox = |nonce: Nonce| self.inbox(nonce);
        let call = match script {
            Script::Acquire { nonce, why } => begin(&scripts::ACQUIRE)
                .keys([tombstone(nonce)])
                .arg(if why == Why::Try { "try" } else { "wait" })
                .arg(nonce)
                .arg(ttl)
                .arg(inbox(nonce))
                .arg("identity"),
            Script::Place { nonce } => begin(&scripts::PLACE).arg(nonce),
            Script::Renew { nonce } => begin(&scripts::RENEW).arg(nonce).arg(ttl),
            Script::Release { nonce, bury } => begin(&scripts::RELEASE)
                .keys([tombstone(nonce)])
                .arg(nonce)
                .arg(bury_for(bury)),
            Script::Pass { held, bury, next } => begin(&scripts::PASS)
                .keys([tombstone(next), tombstone(held)])
                .arg(held)
                .arg(bury_for(bury))
                .arg(next)
                .arg(ttl)
                .arg(inbox(next))
                .arg("identity"),
            Script::Replace { old, next } => begin(&scripts::REPLACE)
                .keys([tombstone(old), tombstone(next)])
                .arg(old)
                .arg(bury_for(true))
                .arg(next)
                .arg(ttl)
                .arg(inbox(next))
                .arg("identity"),
        };
        self.ask(&call.by_text())
    }

    /// Moves every stored time, so that the server's clock seems to have moved the other way.
    fn pass_time(&mut self, by: Time) {
        let _ = write!(self.steps, "\n  {by} ticks pass");
        self.now += by;
        let moved = i64::from(by) * TICK_US;
        let [l, w] = ["l", "w"].map(|kind| self.key(kind));
        if let Some(expires) = number(&self.ask(cmd("HGET").arg(&l).arg("expires"))) {
            self.ask(cmd("HSET").arg(&l).arg("expires").arg(expires - moved));
        }
        for nonce in self.real_queue() {
            let record = text(&self.ask(cmd("HGET").arg(&w).arg(&nonce)));
            let (ends, rest) = record.split_once('\t').expect("a waiter's record");
            let ends: i64 = ends.parse().expect("a time");
            let moved = format!("{}\t{rest}", ends - moved);
            self.ask(cmd("HSET").arg(&w).arg(&nonce).arg(moved));
        }
    }
}

// The real server.
impl Pair<'_> {
    fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.name)
    }

    fn inbox(&self, nonce: Nonce) -> String {
        format!("{}:{}", self.inboxes, nonce.client)
    }

    fn ask(&mut self, command: &Cmd) -> Value {
        command.query(&mut self.real).expect("answers")
    }

    fn real_queue(&mut self) -> Vec<String> {
        let q = self.key("q");
        let queue = self.ask(cmd("ZRANGE").arg(q).arg(0).arg(-1));
        list(&queue).iter().map(text).collect()
    }

    fn real_clock(&mut self) -> i64 {
        let time = self.ask(&cmd("TIME"));
        let part = |at: usize| number(&list(&time)[at]).expect("a number");
        part(0) * 1_000_000 + part(1)
    }
}
