//! R6: a holder that died is replaced in time, a live one is not.

use super::clocks::lease_and_place_are_kept_while_the_clients_wall_clocks_jump;
use super::failover::{
    holder_and_waiter_outlive_a_failover, holder_and_waiter_outlive_a_move_of_the_leader,
    holder_and_waiter_outlive_a_reconfiguration,
};
use super::halfway::hold_is_renewed_on_the_next_connection;
use super::prelude::*;
use super::seeded::run_seeded;
use crate::worker::{Answer, Order};
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!(
        "R6.01",
        dead_holder_is_replaced_within_its_ttl,
        needs(&[TTL])
    ),
    case!("R6.02", live_holder_is_kept_for_many_ttls, needs(&[TTL])),
    case!(
        "R6.03",
        fixed_lease_is_not_replaced_before_its_ttl,
        needs(&[TTL])
    ),
    case!("R6.04", renewal_counts_the_ttl_afresh, needs(&[TTL])),
    case!(
        "R6.05",
        live_waiter_outlives_the_claim_window,
        needs(&[CLAIM_WINDOW])
    ),
    case!(
        "R6.06",
        fixed_lease_is_whole_after_a_hand_off,
        needs(&[CLAIM_WINDOW])
    ),
    case!(
        "R6.07",
        killed_process_is_replaced_within_its_ttl,
        needs(&[Need::Processes, CRASH]),
    ),
    case!(
        "R6.08",
        stopped_process_is_replaced_and_knows_it_when_continued,
        needs(&[Need::Processes, TTL]),
    ),
    case!(
        "R6.09",
        lock_survives_a_server_that_is_killed_and_restarted_while_it_is_held,
        needs(&[TTL, Need::Fault(Fault::Kill)]),
    ),
    case!(
        "R6.10",
        backward_step_of_the_servers_clock_neither_blocks_nor_evicts,
        needs(&[TTL, Need::Fault(Fault::StepClock)]),
    ),
    case!(
        "R6.11",
        forward_step_of_the_servers_clock_is_told_and_fenced,
        needs(&[TTL, Need::Fault(Fault::StepClock)]),
    ),
    case!("R6.12", shutdown_ends_holds_with_their_ttl, needs(&[TTL])),
    case!(
        "R6.13",
        seeded_holds_of_several_leases_are_kept,
        deadline(120)
    ),
    case!(
        "R6.21",
        lease_and_place_are_kept_while_the_clients_wall_clocks_jump,
        needs(&[Need::Processes, TTL]),
    ),
    case!(
        "R6.22",
        holder_and_waiter_outlive_a_failover,
        needs(&[TTL, Need::Fault(Fault::Failover)]),
        deadline(120)
    ),
    case!(
        "R6.23",
        holder_and_waiter_outlive_a_move_of_the_leader,
        needs(&[TTL, Need::Fault(Fault::MoveLeader)]),
        deadline(120)
    ),
    case!(
        "R6.24",
        holder_and_waiter_outlive_a_reconfiguration,
        needs(&[TTL, Need::Fault(Fault::Reconfigure)]),
    ),
    case!(
        "R6.25",
        hold_is_renewed_on_the_next_connection,
        needs(&[TTL, Need::Fault(Fault::Cut)]),
    ),
];

async fn dead_holder_is_replaced_within_its_ttl(s: Stand) -> Check {
    let backend = s.backend().await?;
    let a = s.client().await?;
    // A backend without core around it renews nothing: this holder is as good as dead.
    let claim = s.claim("n", s.ttl());
    some(backend.try_acquire(&claim).await?, "the lock is free")?;
    let wait = s.replaced_within(s.ttl());
    let guard = within(
        wait,
        "a dead holder is replaced",
        a.hold(claim.name.as_str()),
    )
    .await??;
    ensure(!backend.release(&claim).await?, "the dead one still held")?;
    ensure(
        a.still_held(&guard),
        "the dead one's release freed its successor",
    )
}

async fn live_holder_is_kept_for_many_ttls(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold_for(&name, s.kept_ttl()).await?;
    let token = guard.token();
    let clock = Clock::system();
    let end = clock.now() + s.kept_ttl() * 4;
    while clock.now() < end {
        ensure(
            b.attempt(&name).await?.is_none(),
            "a live holder was replaced",
        )?;
        ensure(a.still_held(&guard), "a live holder lost its lock")?;
        tokio::time::sleep(s.ttl() / 10).await;
    }
    ensure_eq(guard.token(), token, "the token of a long hold")?;
    released_clean(a.give_up(guard).await?)
}

async fn fixed_lease_is_not_replaced_before_its_ttl(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let clock = Clock::system();
    for (round, ttl) in [s.ttl(), s.fixed(s.ttl() * 2), s.ttl()]
        .into_iter()
        .enumerate()
    {
        let name = s.name(&round.to_string());
        // The server counts from no earlier than this.
        let before = clock.now();
        let _old = a.hold_fixed(&name, ttl).await?;
        let _new = within(s.replaced_within(ttl), "replaced", b.hold(&name)).await??;
        let held = clock.now().saturating_since(before);
        ensure(
            held >= ttl,
            format!("replaced after {held:?} of a TTL of {ttl:?}"),
        )?;
    }
    Ok(())
}

async fn renewal_counts_the_ttl_afresh(s: Stand) -> Check {
    let (backend, other) = (s.backend().await?, s.backend().await?);
    let clock = Clock::system();
    let claim = s.claim("n", s.ttl() * 2);
    let grant = some(backend.try_acquire(&claim).await?, "the lock is free")?;
    clock.sleep(s.ttl()).await;
    let before = clock.now();
    let renewed = backend.renew(&[&grant]).await.remove(0)?;
    let Renewal::Extended(validity) = renewed else {
        return Err(Failure::new("the holder's renewal was refused"));
    };
    ensure(
        validity.expires_at() + ms(5) <= clock.now() + claim.ttl,
        "the renewed validity has no margin",
    )?;
    let next = s.claim("n", LONG);
    s.eventually("the lease ends", s.replaced_within(claim.ttl), || async {
        other.try_acquire(&next).await
    })
    .await?;
    let held = clock.now().saturating_since(before);
    ensure(
        held >= claim.ttl,
        format!("replaced {held:?} after a renewal by {:?}", claim.ttl),
    )
}

async fn live_waiter_outlives_the_claim_window(s: Stand) -> Check {
    let (a, b, c) = (s.client().await?, s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { Ok::<_, Failure>(b.hold(&name).await?) }
    });
    s.until_queued(&a, &name, 1).await?;
    a.give_up(held).await?;
    let guard = within(SOON, "handed on", joined(waiting)).await??;
    let end = Clock::system().now() + s.claim_window() * 2;
    while Clock::system().now() < end {
        ensure(
            c.attempt(&name).await?.is_none(),
            "a live receiver was replaced",
        )?;
        ensure(b.still_held(&guard), "a live receiver lost its lock")?;
        tokio::time::sleep(ms(50)).await;
    }
    released_clean(b.give_up(guard).await?)
}

async fn fixed_lease_is_whole_after_a_hand_off(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let ttl = s.fixed(s.claim_window() * 3);
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { Ok::<_, Failure>(b.hold_fixed(&name, ttl).await?) }
    });
    s.until_queued(&a, &name, 1).await?;
    a.give_up(held).await?;
    let guard = within(SOON, "handed on", joined(waiting)).await??;
    ensure(
        guard.remaining() > s.claim_window(),
        format!("a fixed lease of {ttl:?} has {:?} left", guard.remaining()),
    )
}

async fn killed_process_is_replaced_within_its_ttl(s: Stand) -> Check {
    let a = s.client().await?;
    let mut workers = s.workers(1).await?;
    let name = s.name("n");
    let mut worker = workers.remove(0);
    let old = worker.acquire(&name, s.ttl()).await?;
    ensure(
        a.attempt(&name).await?.is_none(),
        "a worker's lock was granted",
    )?;
    worker.kill()?;
    let wait = s.replaced_within(s.ttl());
    let guard = within(wait, "a killed process is replaced", a.hold(&name)).await??;
    ensure(guard.token().get() > old, "tokens grow across a crash")
}

async fn stopped_process_is_replaced_and_knows_it_when_continued(s: Stand) -> Check {
    let a = s.client().await?;
    let workers = s.workers(1).await?;
    let name = s.name("n");
    let worker = &workers[0];
    let old = worker.acquire(&name, s.ttl()).await?;
    worker.pause()?;
    let wait = s.replaced_within(s.ttl());
    let guard = within(wait, "a stopped process is replaced", a.hold(&name)).await;
    worker.resume()?;
    let guard = guard??;
    ensure(guard.token().get() > old, "tokens grow across a pause")?;
    let answer = worker.begin(Order::Check { key: 0 }).await?;
    ensure_eq(answer, Answer::Valid(false), "check() after waking up")?;
    let late = worker.begin(Order::Release { key: 0 }).await?;
    ensure(
        matches!(&late, Answer::Released(how) if how.starts_with("WasLost")),
        format!("its release: {late:?}"),
    )?;
    ensure(a.still_held(&guard), "its release freed the successor")?;
    let b = s.client().await?;
    ensure(
        b.attempt(&name).await?.is_none(),
        "its release freed the successor",
    )
}

async fn lock_survives_a_server_that_is_killed_and_restarted_while_it_is_held(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let ttl = s.ttl() * 8;
    let guard = a.hold_for(&name, ttl).await?;
    s.faults().kill_server().await?;
    s.faults().restart_server().await?;
    let clock = Clock::system();
    let end = clock.now() + ttl * 2;
    // Kept or lost, but never both: who checks as valid after another was granted has two holders.
    while clock.now() < end && a.still_held(&guard) {
        if let Ok(Some(new)) = b.attempt(&name).await {
            ensure(!a.still_held(&guard), "two holders after a restart")?;
            b.give_up(new).await?;
        }
        tokio::time::sleep(ms(20)).await;
    }
    ensure(
        a.still_held(&guard),
        "a server that is back well within the TTL, with its data, still has the holder",
    )?;
    released_clean(a.give_up(guard).await?)?;
    s.at_rest(&name).await
}

async fn backward_step_of_the_servers_clock_neither_blocks_nor_evicts(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let (name, dead) = (s.name("live"), s.claim("dead", s.ttl() * 2));
    let backend = s.backend().await?;
    let live = a.hold_for(&name, s.kept_ttl()).await?;
    let corpse = some(backend.try_acquire(&dead).await?, "the lock is free")?;
    s.faults().step_clock(-3600).await?;
    let waited = s.replaced_within(dead.ttl) + s.claim_window() + SOON;
    let next = b.hold(dead.name.as_str());
    let next = within(waited, "a dead holder does not gain an hour", next).await??;
    ensure_growing(&[corpse.token(), next.token()])?;
    let end = Clock::system().now() + s.kept_ttl() * 2;
    while Clock::system().now() < end {
        ensure(a.still_held(&live), "a live holder lost its lock")?;
        ensure(
            b.attempt(&name).await?.is_none(),
            "a live holder was replaced",
        )?;
        tokio::time::sleep(ms(50)).await;
    }
    released_clean(a.give_up(live).await?)?;
    s.at_rest(&name).await
}

async fn forward_step_of_the_servers_clock_is_told_and_fenced(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let old = a.hold_for(&name, s.ttl() * 4).await?;
    s.faults().step_clock(3600).await?;
    // Declared: exclusion may be lost here. What must still hold: the token grows, and the victim
    // is told as soon as it next speaks to the server.
    let new = b.hold_within(&name, secs(1)).await?;
    match new {
        Some(new) => {
            ensure_growing(&[old.token(), new.token()])?;
            let wait = s.ttl() * 4 + SOON;
            within(wait, "the victim is told", old.lost()).await?;
            let late = a.give_up(old).await?;
            ensure(
                matches!(late, Released::WasLost(_)),
                format!("the victim's release: {late:?}"),
            )?;
            ensure(
                b.still_held(&new),
                "the victim's release freed its successor",
            )?;
            released_clean(b.give_up(new).await?)?;
        }
        None => released_clean(a.give_up(old).await?)?,
    }
    s.at_rest(&name).await
}

async fn shutdown_ends_holds_with_their_ttl(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold_for(&name, s.ttl()).await?;
    let report = within(SOON, "shutdown", a.shutdown(ms(100))).await??;
    ensure_eq(
        report.still_held,
        1,
        "locks that the report says are still held",
    )?;
    ensure_kind(
        guard.check(),
        &[ErrorKind::Lost],
        "a guard of a closed client",
    )?;
    let reason = within(SOON, "told of the shutdown", guard.lost()).await?;
    ensure_eq(reason, LossReason::Closed, "why it was lost")?;
    let wait = s.replaced_within(s.ttl());
    drop(within(wait, "free after its TTL", b.hold(&name)).await??);
    Ok(())
}

async fn seeded_holds_of_several_leases_are_kept(s: Stand) -> Check {
    run_seeded(s, Kind::LongHolds).await
}
