//! Another server takes the place of the one that leads, or this one is changed while it runs.

use std::io;

use futures_util::future::BoxFuture;
use lock_core::MemoryGate;

use super::prelude::*;

/// Long enough for an election on a machine that is busy.
const ELECTION: Duration = Duration::from_secs(30);

pub(super) async fn tokens_grow_across_a_failover(s: Stand) -> Check {
    let name = s.name("n");
    let a = s.client().await?;
    let guard = a.hold(&name).await?;
    let mut tokens = vec![guard.token()];
    a.give_up(guard).await?;
    s.faults().fail_over().await?;
    let newcomer = s
        .eventually("a client connects after the failover", ELECTION, || async {
            s.client().await.map(Some)
        })
        .await?;
    // Both one that remembers the old token and one that has never seen it.
    for client in [&a, &newcomer, &a] {
        let guard = s
            .eventually("granted after the failover", ELECTION, || async {
                client.attempt(&name).await
            })
            .await?;
        tokens.push(guard.token());
        client.give_up(guard).await?;
    }
    ensure_growing(&tokens)
}

pub(super) async fn token_protects_across_a_failover_that_forgot_the_holder(s: Stand) -> Check {
    let name = s.name("n");
    let gate = MemoryGate::new();
    let (a, b) = (s.client().await?, s.client().await?);
    let earlier = a.hold(&name).await?;
    let mut tokens = vec![earlier.token()];
    a.give_up(earlier).await?;
    s.faults().stop_replication().await?;
    let old = a.hold(&name).await?;
    gate.admit_now(&name, old.token())?;
    s.faults().fail_over().await?;
    // Declared: exclusion is lost here. The one that leads now has never heard of the holder.
    let new = s
        .eventually("granted after the failover", SOON, || async {
            b.attempt(&name).await
        })
        .await?;
    tokens.extend([old.token(), new.token()]);
    ensure_growing(&tokens)?;
    gate.admit_now(&name, new.token())?;
    ensure_kind(
        gate.admit_now(&name, old.token()),
        &[ErrorKind::Lost],
        "the write of a holder that was forgotten",
    )?;
    let reason = within(SOON, "the holder is told", old.lost()).await?;
    ensure_eq(reason, LossReason::NotHeld, "why it was lost")?;
    let late = a.give_up(old).await?;
    ensure(
        matches!(late, Released::WasLost(_)),
        format!("the release of what was forgotten: {late:?}"),
    )?;
    ensure(
        b.still_held(&new),
        "the forgotten holder's release freed its successor",
    )?;
    released_clean(b.give_up(new).await?)?;
    s.at_rest(&name).await
}

pub(super) async fn holder_and_waiter_outlive_a_failover(s: Stand) -> Check {
    outlived(&s, s.faults().fail_over()).await
}

pub(super) async fn holder_and_waiter_outlive_a_move_of_the_leader(s: Stand) -> Check {
    outlived(&s, s.faults().move_leader()).await
}

pub(super) async fn holder_and_waiter_outlive_a_reconfiguration(s: Stand) -> Check {
    outlived(&s, s.faults().reconfigure()).await
}

/// Somebody holds and somebody waits while `change` happens, and for longer than a lease lasts without
/// a renewal by whoever leads then.
async fn outlived(s: &Stand, change: BoxFuture<'_, io::Result<()>>) -> Check {
    let (a, b, c) = (s.client().await?, s.client().await?, s.client().await?);
    let name = s.name("n");
    let ttl = s.ttl() * 8;
    let guard = a.hold_for(&name, ttl).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { Ok::<_, Failure>(b.hold_for(&name, ttl).await?) }
    });
    s.until_queued(&c, &name, 1).await?;
    s.until_heard(&b, &name).await?;
    change.await?;
    let end = Clock::system().now() + ttl + s.ttl();
    while Clock::system().now() < end {
        // It may say that it cannot be reached, and nothing else but busy.
        if let Ok(Some(new)) = c.attempt(&name).await {
            let held = a.still_held(&guard);
            c.give_up(new).await?;
            return Err(Failure::new(format!(
                "somebody overtook the queue; the holder says that it holds: {held}"
            )));
        }
        ensure(!waiting.is_finished(), "two holders")?;
        ensure(
            a.still_held(&guard),
            "a change that loses nothing and is over well within the TTL cost the holder its lock",
        )?;
        tokio::time::sleep(ms(20)).await;
    }
    let old = guard.token();
    released_clean(a.give_up(guard).await?)?;
    let new = within(ELECTION, "handed on", joined(waiting)).await??;
    ensure_growing(&[old, new.token()])?;
    released_clean(b.give_up(new).await?)?;
    s.at_rest(&name).await
}
