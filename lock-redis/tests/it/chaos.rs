//! Everything at once: clients that try, wait, give up, pass and replace, over connections that are
//! reset, silenced and delayed, on a server that forgets scripts. Afterwards: nobody overlapped,
//! tokens grew, and nothing is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_conformance::fault::Proxy;
use lock_conformance::servers::RedisServer;
use lock_core::{
    Backend, BootInstant, Claim, Clock, Grant, Reach, Renewal, Replaced, Result, Standing, Validity,
};
use lock_redis::{RedisBackend, RedisConfig};

use crate::fixture::*;

const NAMES: [&str; 2] = ["a", "b"];
const LENGTH: Duration = Duration::from_secs(6);

/// From when to when a holder believed that it held, on the one clock of this machine.
#[derive(Clone, Copy, Debug)]
struct Hold {
    from: BootInstant,
    until: BootInstant,
}

#[derive(Default)]
struct History(Mutex<BTreeMap<(String, u64), Hold>>);

impl History {
    fn add(&self, grant: &Grant, hold: Hold) {
        let key = (grant.claim().name.as_str().to_owned(), grant.token().get());
        let before = self.0.lock().expect("no panic").insert(key, hold);
        assert!(
            before.is_none(),
            "the token of {grant:?} was handed out twice"
        );
    }

    /// In the order of their tokens, nobody begins before everybody earlier has ended.
    fn check(&self) -> usize {
        let holds = self.0.lock().expect("no panic");
        for name in NAMES {
            let mut ended = BootInstant::from_origin(Duration::ZERO);
            for ((other, token), hold) in holds.iter().filter(|((other, _), _)| other == name) {
                assert!(hold.from >= ended, "{other} {token} overlaps: {holds:#?}");
                ended = ended.max(hold.until);
            }
        }
        holds.len()
    }
}

async fn backend(config: RedisConfig) -> Arc<RedisBackend> {
    let mut context = context();
    context.op_timeout = ms(400);
    let config = config.with_claim(ms(300));
    Arc::new(
        RedisBackend::connect(config, context)
            .await
            .expect("connects"),
    )
}

/// Makes sure that this claim is over, however often that takes.
async fn give_up(backend: &RedisBackend, claim: &Claim) {
    if claim.progress.reach() != Reach::Unsent {
        eventually(|| async { backend.release(claim).await.ok() }).await;
    }
}

fn a_claim() -> Claim {
    let name = NAMES[fastrand::usize(..NAMES.len())];
    claim_for(name, ms(fastrand::u64(400..900)))
}

fn next_of(claim: &Claim) -> Claim {
    Claim::new(claim.name.clone(), claim.identity.clone(), claim.ttl)
}

async fn patient<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(ms(fastrand::u64(0..250)), work)
        .await
        .ok()
}

/// One visit to a lock, by one of the ways there are.
async fn visit(backend: &RedisBackend, history: &History) {
    let mut claim = a_claim();
    let tried: Option<Result<Option<Grant>>> = match fastrand::u8(0..4) {
        0 => patient(backend.try_acquire(&claim)).await,
        1 => {
            // A task that gives up, with another behind it.
            let first = patient(backend.acquire(&claim)).await;
            if let Some(Ok(grant)) = first {
                Some(Ok(Some(grant)))
            } else {
                let next = next_of(&claim);
                match patient(backend.replace(&claim, &next)).await {
                    Some(Ok(Replaced::Now(standing))) => {
                        claim = next;
                        match standing {
                            Standing::Granted(grant) => Some(Ok(Some(grant))),
                            Standing::Queued => patient(backend.acquire(&claim))
                                .await
                                .map(|done| done.map(Some)),
                        }
                    }
                    _ => {
                        give_up(backend, &claim).await;
                        claim = next;
                        None
                    }
                }
            }
        }
        _ => patient(backend.acquire(&claim))
            .await
            .map(|done| done.map(Some)),
    };
    let Some(Ok(Some(grant))) = tried else {
        give_up(backend, &claim).await;
        return;
    };
    let Some(grant) = stay(backend, history, grant).await else {
        return;
    };
    if fastrand::bool() {
        give_up(backend, grant.claim()).await;
        return;
    }
    let next = next_of(grant.claim());
    match patient(backend.pass(grant.claim(), &next)).await {
        Some(Ok(passed)) => {
            let granted = match passed.next {
                Standing::Granted(grant) => Some(grant),
                Standing::Queued => patient(backend.acquire(&next)).await.and_then(Result::ok),
            };
            if let Some(grant) = granted {
                stay(backend, history, grant).await;
            }
        }
        Some(Err(_)) | None => give_up(backend, grant.claim()).await,
    }
    give_up(backend, &next).await;
}

/// Holds for a moment, or until the lease is over. The grant, if there is something to release.
async fn stay(backend: &RedisBackend, history: &History, grant: Grant) -> Option<Grant> {
    let from = now();
    let mut validity: Validity = grant.validity();
    if validity.expires_at() > from {
        match fastrand::u8(0..8) {
            0 => Clock::system().sleep_until(validity.expires_at()).await,
            1..4 => {
                if let Some(Ok(Renewal::Extended(longer))) = patient(backend.renew(&[&grant]))
                    .await
                    .map(|mut all| all.remove(0))
                {
                    validity = longer;
                }
            }
            _ => tokio::time::sleep(ms(fastrand::u64(0..15))).await,
        }
        let until = now().min(validity.expires_at());
        history.add(&grant, Hold { from, until });
    }
    Some(grant)
}

async fn disturb(server: &RedisServer, proxies: &[Proxy], until: BootInstant) {
    while now() < until {
        let proxy = &proxies[fastrand::usize(..proxies.len())];
        let moment = ms(fastrand::u64(5..250));
        match fastrand::u8(0..8) {
            0 => proxy.reset(),
            1 => proxy.cut(),
            2 => proxy.drop_pushes(),
            3 => proxy.drop_replies(),
            4 => proxy.hold_replies(),
            5 => proxy.black_hole(),
            6 => drop(server.cli(&["SCRIPT", "FLUSH"]).expect("flushes")),
            _ => proxy.hold_requests_matching(|message| message.starts_with(b"*")),
        }
        tokio::time::sleep(moment).await;
        proxy.pass();
        proxy.deliver_held();
        tokio::time::sleep(ms(fastrand::u64(5..100))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_overlaps_and_nothing_is_left_whatever_the_network_does() {
    let server = RedisServer::start();
    let proxies: Vec<Proxy> = (0..3).map(|_| Proxy::start(server.addr())).collect();
    let mut clients = vec![backend(config(&server)).await];
    for proxy in &proxies {
        clients.push(backend(through(proxy)).await);
    }
    let history = Arc::new(History::default());
    let until = now() + LENGTH;
    let mut visitors = Vec::new();
    for client in &clients {
        for _ in 0..3 {
            let (client, history) = (Arc::clone(client), Arc::clone(&history));
            visitors.push(tokio::spawn(async move {
                while now() < until {
                    visit(&client, &history).await;
                }
            }));
        }
    }
    disturb(&server, &proxies, until).await;
    for proxy in &proxies {
        proxy.pass();
        proxy.deliver_held();
    }
    for visitor in visitors {
        soon(visitor).await.expect("no panic");
    }
    let holds = history.check();
    assert!(holds > 100, "only {holds} holds");

    let fresh = client(&server).await;
    for text in NAMES {
        // The last late copies have arrived, and found tombstones.
        let state = look(&fresh, text).await;
        assert!(
            state.holders.is_empty() && state.waiters.is_empty(),
            "{state:?}"
        );
    }
    for client in &clients {
        assert_eq!(client.registered_claims(), 0);
    }
    assert_eq!(
        server.keys_without_ttl().expect("keys"),
        Vec::<String>::new()
    );
}
