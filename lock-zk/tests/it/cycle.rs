//! What things cost, counted at the server.

use std::sync::Arc;

use lock_conformance::servers::ZooKeeperServer;
use lock_core::{Backend, Renewal};
use lock_zk::ZkBackend;

use crate::fixture::{
    claim, client, eventually, granted, hold, lock_nodes, ms, queue, quiet_server, soon,
};

/// Requests of clients that the server has taken, heartbeats and pings among them.
fn received(server: &ZooKeeperServer) -> u64 {
    server.mntr(0).expect("answers")["zk_packets_received"]
        .parse()
        .expect("a number")
}

async fn cycles(a: &Arc<ZkBackend>, count: usize) {
    for _ in 0..count {
        let claim = claim("n");
        soon(a.acquire(&claim)).await.expect("granted");
        assert!(soon(a.release(&claim)).await.expect("answered"));
    }
}

#[tokio::test]
async fn uncontended_cycle_is_two_quorum_writes() {
    let server = quiet_server();
    let a = client(&server).await;
    cycles(&a, 1).await;
    let before = server.writes().expect("counted");
    cycles(&a, 100).await;
    assert_eq!(server.writes().expect("counted") - before, 200);
}

#[tokio::test]
async fn try_on_a_held_lock_writes_nothing_and_is_not_seen() {
    let server = quiet_server();
    let (a, b) = (client(&server).await, client(&server).await);
    hold(&a, &claim("n")).await;
    let before = server.writes().expect("counted");
    for _ in 0..50 {
        assert!(
            soon(b.try_acquire(&claim("n")))
                .await
                .expect("answered")
                .is_none()
        );
    }
    assert_eq!(server.writes().expect("counted"), before);
    assert_eq!(b.registered_claims(), 0);
}

#[tokio::test]
async fn hand_off_within_a_client_is_a_delete_and_a_create() {
    let server = quiet_server();
    let a = client(&server).await;
    let mut held = claim("n");
    hold(&a, &held).await;
    let before = server.writes().expect("counted");
    for _ in 0..50 {
        let next = claim("n");
        let passed = soon(a.pass(&held, &next)).await.expect("answered");
        assert!(passed.released);
        assert!(matches!(passed.next, lock_core::Standing::Granted(_)));
        held = next;
    }
    assert_eq!(server.writes().expect("counted") - before, 100);
    assert_eq!(lock_nodes(&server).len(), 1);
}

#[tokio::test]
async fn thousand_locks_are_renewed_by_one_read() {
    const LOCKS: usize = 1_000;
    let server = quiet_server();
    let a = client(&server).await;
    let claims: Vec<_> = (0..LOCKS)
        .map(|label| claim(&format!("n{label}")))
        .collect();
    let acquired = claims.iter().map(|claim| a.acquire(claim));
    let grants = soon(futures_util::future::try_join_all(acquired))
        .await
        .expect("granted");
    let grants: Vec<_> = grants.iter().collect();
    let writes = server.writes().expect("counted");
    let packets = received(&server);
    let renewals = soon(a.renew(&grants)).await;
    let asked = received(&server) - packets;
    assert_eq!(renewals.len(), LOCKS);
    for renewal in renewals {
        assert!(matches!(renewal, Ok(Renewal::Extended(_))));
    }
    // One request for all of them; what was counted besides are heartbeats and the two looks.
    assert!(asked <= 16, "{asked} requests to renew {LOCKS} locks");
    assert_eq!(server.writes().expect("counted"), writes);
    assert_eq!(server.sessions().expect("listed").len(), 1);
    assert_eq!(server.connections().expect("counted"), 1);
}

#[tokio::test]
async fn release_wakes_one_waiter_of_many() {
    const WAITERS: usize = 10;
    let server = quiet_server();
    let first = client(&server).await;
    let mut held = (Arc::clone(&first), claim("n"));
    hold(&held.0, &held.1).await;
    let base = server.watches().expect("counted");
    let mut waiting = Vec::new();
    for place in 0..WAITERS {
        let (b, claim) = (client(&server).await, claim("n"));
        let task = queue(&b, &claim).await;
        let clients = u64::try_from(place + 1).expect("few");
        // Each has two for itself, and one on whoever is ahead.
        eventually(|| async {
            (server.watches().expect("counted") == base + 3 * clients).then_some(())
        })
        .await;
        waiting.push((b, claim, task));
    }
    // A client that goes takes its own watches along.
    let mut stay = Vec::new();
    for (b, claim, task) in waiting {
        let before = server.watches().expect("counted");
        assert!(soon(held.0.release(&held.1)).await.expect("answered"));
        granted(task).await;
        // Exactly one watch has fired, and nobody has had to set another one.
        assert_eq!(server.watches().expect("counted"), before - 1);
        stay.push(std::mem::replace(&mut held, (b, claim)));
    }
}

#[tokio::test]
async fn ten_thousand_cycles_leave_no_node_and_no_watch() {
    const CYCLES: usize = 10_000;
    const TASKS: usize = 32;
    let server = quiet_server();
    let a = client(&server).await;
    let base = server.watches().expect("counted");
    let running: Vec<_> = (0..TASKS)
        .map(|task| {
            let a = Arc::clone(&a);
            tokio::spawn(async move {
                for cycle in (task..CYCLES).step_by(TASKS) {
                    // Some names are fought over, most are used once.
                    let label = if cycle % 4 == 0 { cycle % 7 } else { cycle };
                    let claim = claim(&format!("n{label}"));
                    a.acquire(&claim).await.expect("granted");
                    assert!(a.release(&claim).await.expect("answered"));
                }
            })
        })
        .collect();
    for task in running {
        tokio::time::timeout(ms(120_000), task)
            .await
            .expect("in time")
            .expect("no panic");
    }
    assert_eq!(a.registered_claims(), 0);
    assert!(lock_nodes(&server).is_empty());
    eventually(|| async { (server.watches().expect("counted") == base).then_some(()) }).await;
    // Its own node, and the two containers: the parents have been removed.
    eventually(|| async {
        let nodes = server.nodes(crate::fixture::ROOT).expect("listed");
        (nodes.len() <= 3).then_some(())
    })
    .await;
}
