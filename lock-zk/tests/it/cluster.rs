//! Three members: leaders that die, members that are cut off, and what holders are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_conformance::fault::{Protocol, Proxy};
use lock_conformance::servers::ZooKeeperServer;
use lock_core::{
    Backend, BootInstant, ClientOptions, Clock, Connect, ErrorKind, FenceGate, Guard, Locks,
    LossReason, MemoryGate, Released, Renewal,
};
use lock_zk::ZkConfig;
use lock_zk::zookeeper_client as zk;

use crate::fixture::{
    self, ROOT, claim, config, config_of, connect, context, eventually, granted, ms, now, queue,
    soon,
};

/// Longer than an election takes, or the start of a member on a machine that is busy.
const SESSION: Duration = Duration::from_secs(20);
/// An election, and a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

fn ensemble() -> ZooKeeperServer {
    ZooKeeperServer::builder().members(3).start()
}

async fn open(config: ZkConfig) -> Locks {
    let options = || {
        ClientOptions::default()
            .with_op_timeout(Duration::from_secs(5))
            .with_outage_limit(LONG)
            .with_ttl(LONG)
    };
    eventually(|| async { Locks::open(config.clone(), options()).await.ok() }).await
}

async fn locks(server: &ZooKeeperServer) -> Locks {
    open(config(server).with_session_timeout(SESSION)).await
}

/// The lock, however long that takes.
async fn hold(locks: &Locks, name: &str) -> Guard {
    let clock = Clock::system();
    clock
        .timeout(LONG, async {
            loop {
                match locks.mutex(name).acquire().await {
                    Ok(guard) => return guard,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        })
        .await
        .expect("in time")
}

async fn release(guard: Guard) {
    let released = Clock::system().timeout(LONG, guard.release()).await;
    let released = released.expect("in time").expect("released");
    assert!(
        matches!(released, Released::Clean | Released::Unknown { .. }),
        "{released:?}"
    );
}

async fn queued(locks: &Locks, name: &str, waiters: usize) {
    eventually(|| async {
        let state = locks.inspect(name).await.ok()?;
        (state.waiters.len() == waiters).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_is_held_and_waited_for_through_the_death_of_the_leader() {
    let server = ensemble();
    let (a, b) = (locks(&server).await, locks(&server).await);
    let held = hold(&a, "n").await;
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { hold(&b, "n").await }
    });
    queued(&a, "n", 1).await;
    let before = server.await_leader();
    server.member(before).kill();
    let after = server.await_leader();
    assert_ne!(before, after);
    queued(&a, "n", 1).await;
    held.check().expect("a session lives through an election");
    assert!(!waiting.is_finished());
    let token = held.token();
    release(held).await;
    let next = waiting.await.expect("no panic");
    assert!(next.token() > token, "{} after {token}", next.token());
    release(next).await;
    server.member(before).restart();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_overlaps_while_leaders_change_under_load() {
    const CLIENTS: usize = 4;
    let server = ensemble();
    let gate = Arc::new(MemoryGate::new());
    let inside = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..CLIENTS {
        let locks = locks(&server).await;
        let (gate, inside, stop) = (Arc::clone(&gate), Arc::clone(&inside), Arc::clone(&stop));
        running.push(tokio::spawn(async move {
            let mut sections = 0_u64;
            while !stop.load(Ordering::Acquire) {
                let guard = hold(&locks, "n").await;
                if guard.check().is_ok() {
                    gate.admit("n", guard.token())
                        .await
                        .expect("no token is older than one before");
                    assert!(!inside.swap(true, Ordering::AcqRel), "two are inside");
                    tokio::task::yield_now().await;
                    inside.store(false, Ordering::Release);
                    sections += 1;
                }
                release(guard).await;
            }
            sections
        }));
    }
    for _ in 0..2 {
        let leader = server.await_leader();
        server.member(leader).kill();
        let _ = server.await_leader();
        server.member(leader).restart();
    }
    stop.store(true, Ordering::Release);
    let mut sections = 0;
    for task in running {
        sections += task.await.expect("no panic");
    }
    assert!(sections > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_and_the_hold_stays_while_every_member_is_restarted() {
    let server = ensemble();
    let a = locks(&server).await;
    let kept = hold(&a, "kept").await;
    let mut last = kept.token();
    for member in 0..3 {
        server.member(member).kill();
        server.member(member).restart();
        let _ = server.await_leader();
        let guard = hold(&a, "n").await;
        assert!(guard.token() > last);
        last = guard.token();
        release(guard).await;
    }
    kept.check().expect("still held");
    release(kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_without_a_majority_grants_nothing() {
    let server = ensemble();
    let a = locks(&server).await;
    let other = server.members().len() - 1;
    for member in 0..other {
        server.member(member).kill();
    }
    let refused = a.mutex("n").try_acquire().await.expect_err("no majority");
    assert!(refused.is_retryable(), "{refused:?}");
    let alone = config_of(&[server.member(other).port()]);
    let refused = alone.connect(context()).await.expect_err("no majority");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    for member in 0..other {
        server.member(member).relaunch();
    }
    let _ = server.await_leader();
    let guard = hold(&a, "n").await;
    release(guard).await;
}

/// The holder's client knows only the member that is cut off. What the guard was told, and when; and
/// when the next holder had the lock.
async fn isolated(
    server: &ZooKeeperServer,
    member: usize,
) -> (LossReason, BootInstant, BootInstant) {
    let session = ms(3_000);
    let others: Vec<u16> = (0..3)
        .filter(|other| *other != member)
        .map(|other| server.member(other).port())
        .collect();
    let a = open(config_of(&[server.member(member).port()]).with_session_timeout(session)).await;
    let b = open(config_of(&others).with_session_timeout(SESSION)).await;
    let held = hold(&a, "n").await;
    let token = held.token();
    let waiting = tokio::spawn({
        let b = b.clone();
        async move {
            let guard = hold(&b, "n").await;
            (now(), guard)
        }
    });
    queued(&b, "n", 1).await;
    let seen = zk::Client::connector()
        .with_session_timeout(session)
        .connect(&format!("127.0.0.1:{}", server.member(member).port()))
        .await
        .expect("connects");
    server.isolate(member);
    // A member that is cut off and does not know it yet still answers.
    soon(seen.get_children(&format!("{ROOT}/l/n")))
        .await
        .expect("it answers reads");
    let lost = held.lost().await;
    let told = now();
    assert!(held.check().is_err());
    let (granted, next) = waiting.await.expect("no panic");
    assert!(next.token() > token);
    server.heal(member);
    release(next).await;
    (lost, told, granted)
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_on_a_follower_that_is_cut_off_is_told_before_the_next_is_granted() {
    let server = ZooKeeperServer::builder().members(3).isolatable().start();
    let leader = server.await_leader();
    let follower = (leader + 1) % 3;
    let (lost, told, granted) = isolated(&server, follower).await;
    assert!(
        told < granted,
        "told {:?} after the next grant",
        told.saturating_since(granted)
    );
    assert!(
        matches!(lost, LossReason::Expired | LossReason::SessionEnded),
        "{lost:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_on_a_leader_that_is_cut_off_is_told_before_the_next_is_granted() {
    let server = ZooKeeperServer::builder().members(3).isolatable().start();
    let leader = server.await_leader();
    let (lost, told, granted) = isolated(&server, leader).await;
    assert!(
        told < granted,
        "told {:?} after the next grant",
        told.saturating_since(granted)
    );
    assert!(
        matches!(lost, LossReason::Expired | LossReason::SessionEnded),
        "{lost:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_that_a_follower_hears_all_at_once_count_for_nothing_by_themselves() {
    let server = ZooKeeperServer::builder().members(3).tick(ms(500)).start();
    let leader = server.await_leader();
    let follower = server.member((leader + 1) % 3);
    let proxy = Proxy::start_with(follower.addr(), Protocol::Jute);
    let session = ms(6_000);
    let through = config_of(&[proxy.addr().port()]).with_session_timeout(session);
    let a = connect(through).await;
    let b = connect(config_of(&[server.member(leader).port()])).await;
    let (one, two) = (claim("n"), claim("n"));
    let grant = fixture::hold(&a, &one).await;
    let waiting = queue(&b, &two).await;
    let next = tokio::spawn(async {
        granted(waiting).await;
        now()
    });
    tokio::time::sleep(session / 2).await;
    // Not so long that the client gives the connection up.
    proxy.black_hole();
    tokio::time::sleep(session * 11 / 20).await;
    let mut validity = grant.validity();
    let (healed, clock) = (now(), Clock::system());
    proxy.heal();
    // The follower passes on what it is asked, and is stopped before it tells whom it has heard of.
    while now() < healed + ms(50) && validity.expires_at() < healed + session / 2 {
        let renewing = clock.timeout(ms(50), a.renew(&[&grant])).await;
        let renewed = renewing.and_then(|mut renewed| renewed.remove(0).ok());
        if let Some(Renewal::Extended(longer)) = renewed {
            validity = longer;
        }
    }
    follower.pause();
    let granted = next.await.expect("no panic");
    follower.resume();
    assert!(
        validity.expires_at() <= granted,
        "valid for {:?} after the next grant",
        validity.expires_at().saturating_since(granted)
    );
}
