//! Random schedules, each step compared with a model of a few lines.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 2] = ["a", "b"];
const CLIENTS: usize = 3;

/// One step. Numbers pick a client, a name or an earlier claim, modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Try {
        client: usize,
        name: usize,
        ttl: u64,
    },
    Enqueue {
        client: usize,
        name: usize,
        ttl: u64,
    },
    /// Asks again for a claim, in whatever state it is.
    Again(usize),
    Renew(usize),
    Release(usize),
    Pass(usize),
    Replace(usize),
    Break(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let new = || (0..CLIENTS, 0..NAMES.len(), 1..=10_u64);
    prop_oneof![
        2 => new().prop_map(|(client, name, ttl)| Step::Try { client, name, ttl }),
        4 => new().prop_map(|(client, name, ttl)| Step::Enqueue { client, name, ttl }),
        3 => any::<usize>().prop_map(Step::Again),
        2 => any::<usize>().prop_map(Step::Renew),
        4 => any::<usize>().prop_map(Step::Release),
        2 => any::<usize>().prop_map(Step::Pass),
        2 => any::<usize>().prop_map(Step::Replace),
        1 => (0..NAMES.len()).prop_map(Step::Break),
        2 => (0..12_u64).prop_map(Step::Advance),
    ]
}

/// A claim as its client and the model know it.
struct Known {
    claim: Claim,
    client: usize,
    name: usize,
    spent: bool,
}

#[derive(Default)]
struct Expected {
    /// Index into the claims, and the end of the lease.
    holder: Option<(usize, BootInstant)>,
    queue: VecDeque<usize>,
    last_token: u64,
    last_holder: Option<usize>,
}

struct Run {
    world: World,
    clients: Vec<Arc<dyn Backend>>,
    claims: Vec<Known>,
    locks: [Expected; NAMES.len()],
}

impl Run {
    fn new() -> Self {
        let world = World::new();
        let clients = (0..CLIENTS).map(|_| world.client()).collect();
        Self {
            world,
            clients,
            claims: Vec::new(),
            locks: Default::default(),
        }
    }

    fn now(&self) -> BootInstant {
        self.world.hand.clock().now()
    }

    fn new_claim(&mut self, client: usize, name: usize, ttl: u64) -> usize {
        let mut claim = claim_of(NAMES[name]);
        claim.ttl = Duration::from_secs(ttl);
        self.claims.push(Known {
            claim,
            client,
            name,
            spent: false,
        });
        self.claims.len() - 1
    }

    /// An earlier claim, if there is one.
    fn pick(&self, number: usize) -> Option<usize> {
        number.checked_rem(self.claims.len())
    }

    fn grant(&mut self, at: usize) {
        let end = self.now() + self.claims[at].claim.ttl;
        self.locks[self.claims[at].name].holder = Some((at, end));
    }

    fn promote(&mut self, name: usize) {
        self.locks[name].holder = None;
        if let Some(next) = self.locks[name].queue.pop_front() {
            self.grant(next);
        }
    }

    fn settle(&mut self) {
        for name in 0..NAMES.len() {
            while matches!(self.locks[name].holder, Some((_, end)) if end <= self.now()) {
                self.promote(name);
            }
        }
    }

    fn holds(&self, at: usize) -> bool {
        let lock = &self.locks[self.claims[at].name];
        matches!(lock.holder, Some((holder, _)) if holder == at)
    }

    fn has(&self, at: usize) -> bool {
        self.holds(at) || self.locks[self.claims[at].name].queue.contains(&at)
    }

    /// Grants or queues, and answers whether it was granted.
    fn put(&mut self, at: usize) -> bool {
        let lock = &mut self.locks[self.claims[at].name];
        if lock.holder.is_none() {
            self.grant(at);
            return true;
        }
        lock.queue.push_back(at);
        false
    }

    fn spend(&mut self, at: usize) -> bool {
        self.claims[at].spent = true;
        let held = self.holds(at);
        let name = self.claims[at].name;
        self.locks[name].queue.retain(|waiter| *waiter != at);
        if held {
            self.promote(name);
        }
        held
    }

    fn backend(&self, at: usize) -> (Arc<dyn Backend>, Claim) {
        let known = &self.claims[at];
        (Arc::clone(&self.clients[known.client]), known.claim.clone())
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Try { client, name, ttl } => {
                let at = self.new_claim(client, name, ttl);
                let (backend, claim) = self.backend(at);
                let granted = ready(backend.try_acquire(&claim)).expect("no error");
                let free = self.locks[name].holder.is_none();
                assert_eq!(granted.is_some(), free, "a try is answered by the holder");
                if free {
                    self.grant(at);
                }
            }
            Step::Enqueue { client, name, ttl } => {
                let at = self.new_claim(client, name, ttl);
                self.ask(at);
            }
            Step::Again(number) => {
                if let Some(at) = self.pick(number) {
                    self.ask(at);
                }
            }
            Step::Renew(number) => {
                if let Some(at) = self.pick(number) {
                    self.renew(at);
                }
            }
            Step::Release(number) => {
                if let Some(at) = self.pick(number) {
                    self.release(at);
                }
            }
            Step::Pass(number) => {
                if let Some(at) = self.pick(number) {
                    self.pass(at);
                }
            }
            Step::Replace(number) => {
                if let Some(at) = self.pick(number) {
                    self.replace(at);
                }
            }
            Step::Break(name) => {
                if let Some((holder, _)) = self.locks[name].holder {
                    let token = FencingToken::new(self.locks[name].last_token).expect("a token");
                    let broken =
                        ready(self.clients[0].break_hold(&super::name(NAMES[name]), token));
                    assert!(broken.expect("answers"), "the holder has the last token");
                    self.spend(holder);
                }
            }
            Step::Advance(seconds) => {
                self.world.hand.advance(Duration::from_secs(seconds));
                self.settle();
            }
        }
    }

    fn ask(&mut self, at: usize) {
        let (backend, claim) = self.backend(at);
        let answer = backend.acquire(&claim).now_or_never();
        let granted = if self.has(at) {
            self.holds(at)
        } else if self.claims[at].spent {
            assert!(matches!(answer, Some(Err(_))), "a spent claim is refused");
            return;
        } else {
            self.put(at)
        };
        assert_eq!(matches!(answer, Some(Ok(_))), granted);
        assert_eq!(answer.is_none(), !granted);
    }

    fn renew(&mut self, at: usize) {
        let (backend, claim) = self.backend(at);
        let now = self.now();
        let token = FencingToken::MAX;
        let grant = Grant::new(&claim, token, Validity::new(now, now, claim.ttl));
        let answer = ready(backend.renew(&[&grant])).remove(0).expect("answers");
        let extended = matches!(answer, Renewal::Extended(_));
        assert_eq!(extended, self.holds(at), "only the holder is renewed");
        if extended {
            self.grant(at);
        }
    }

    fn release(&mut self, at: usize) {
        let (backend, claim) = self.backend(at);
        let held = release(&backend, &claim);
        assert_eq!(held, self.spend(at), "release says whether it held");
    }

    fn pass(&mut self, at: usize) {
        let (backend, held) = self.backend(at);
        let next = self.new_claim(self.claims[at].client, self.claims[at].name, 5);
        let passed = ready(backend.pass(&held, &self.claims[next].claim)).expect("passes");
        assert_eq!(passed.released, self.spend(at));
        let granted = self.put(next);
        assert_eq!(matches!(passed.next, Standing::Granted(_)), granted);
    }

    fn replace(&mut self, at: usize) {
        let (backend, waiting) = self.backend(at);
        let next = self.new_claim(self.claims[at].client, self.claims[at].name, 5);
        let replaced = ready(backend.replace(&waiting, &self.claims[next].claim));
        self.claims[at].spent = true;
        let lock = &mut self.locks[self.claims[at].name];
        let place = lock.queue.iter().position(|waiter| *waiter == at);
        match replaced.expect("answers") {
            Replaced::Now(Standing::Granted(_)) => {
                assert!(self.holds(at));
                self.grant(next);
            }
            Replaced::Now(Standing::Queued) => {
                lock.queue[place.expect("only a waiter's place is given")] = next;
            }
            Replaced::Gone => assert!(!self.has(at)),
        }
    }

    /// The store looks as expected, and whoever is new to the lock has a larger token.
    fn compare(&mut self) {
        for (lock, text) in self.locks.iter_mut().zip(NAMES) {
            let state = ready(self.clients[0].inspect(&name(text))).expect("looks");
            let nonce = |at: usize| self.claims[at].claim.nonce;
            let holders: Vec<_> = state.holders.iter().map(|holder| holder.nonce).collect();
            let waiters: Vec<_> = state.waiters.iter().map(|waiter| waiter.nonce).collect();
            let holder = lock.holder.map(|(at, _)| at);
            assert_eq!(holders, holder.map(nonce).into_iter().collect::<Vec<_>>());
            assert_eq!(
                waiters,
                lock.queue.iter().copied().map(nonce).collect::<Vec<_>>()
            );
            if let Some(shown) = state.holders.first() {
                let token = shown.token.get();
                if lock.last_holder == holder {
                    assert!(token >= lock.last_token);
                } else {
                    assert!(
                        token > lock.last_token,
                        "tokens grow in the order of grants"
                    );
                }
                lock.last_token = token;
            }
            lock.last_holder = holder;
        }
    }
}

proptest! {
    #[test]
    fn any_schedule_is_served_as_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
            run.compare();
        }
        for at in 0..run.claims.len() {
            run.release(at);
            run.compare();
        }
        prop_assert_eq!(run.world.remembered(), 0, "something is left of idle names");
    }
}
