//! R12: nothing is left that grows.

use lock_core::Stats;

use super::prelude::*;
use super::seeded::draws;

pub(super) const CASES: &[Entry] = &[
    case!(
        "R12.01",
        ten_thousand_cycles_on_ten_thousand_names_leave_nothing,
        alone(),
        deadline(120)
    ),
    case!("R12.02", contended_cycles_on_many_names_leave_nothing),
    case!("R12.03", cancelled_waits_leave_nothing),
    case!("R12.04", dropped_guards_leave_nothing),
    case!("R12.05", lost_locks_leave_nothing, needs(&[TTL])),
    case!(
        "R12.06",
        uncontended_cycle_is_two_commands,
        needs(&[Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!(
        "R12.07",
        thousand_held_locks_are_renewed_in_batches,
        needs(&[TTL, Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!(
        "R12.08",
        connections_do_not_grow_with_locks_and_waiters,
        needs(&[Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!(
        "R12.09",
        closed_clients_leave_no_connection,
        needs(&[Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!("R12.10", waits_for_a_loss_leave_nothing),
    case!(
        "R12.12",
        dropped_connects_leave_no_connection,
        needs(&[Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!(
        "R12.11",
        everything_stored_has_an_end,
        needs(&[Need::Fault(Fault::Records)]),
    ),
];

/// Fails if a client has more going on than before. What a backend's own housekeeping has in tasks
/// may vary by a few; what grows with operations does not stay within that.
async fn no_growth(s: &Stand, locks: &lock_core::Locks, before: Stats) -> Check {
    const HOUSEKEEPING: usize = 8;
    s.until_idle(locks).await?;
    s.eventually("tasks that have ended", SOON, || async {
        Ok((locks.stats().tasks <= before.tasks + HOUSEKEEPING).then_some(()))
    })
    .await
    .map_err(|failure| {
        Failure::new(format!(
            "{failure}: {before:?} before, {:?} after",
            locks.stats()
        ))
    })
}

async fn ten_thousand_cycles_on_ten_thousand_names_leave_nothing(s: Stand) -> Check {
    const NAMES: usize = 10_000;
    const TASKS: usize = 16;
    let a = s.client().await?;
    let before = a.stats();
    let running: Vec<_> = (0..TASKS)
        .map(|task| {
            let (a, s) = (a.clone(), s.clone());
            tokio::spawn(async move {
                for label in (task..NAMES).step_by(TASKS) {
                    let guard = a.mutex(s.name(&label.to_string())).acquire().await?;
                    match label % 3 {
                        0 => drop(guard),
                        _ => released_clean(guard.release().await?)?,
                    }
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in running {
        joined(task).await?;
    }
    no_growth(&s, &a, before).await?;
    if s.capabilities().list {
        let page = a.list(&s.name(""), lock_core::Cursor::default()).await?;
        ensure(
            page.names.is_empty(),
            format!("names in use: {:?}", page.names),
        )?;
    }
    let report = within(SOON, "shutdown", a.shutdown(SOON)).await??;
    ensure(report.is_clean(), format!("what shutdown left: {report:?}"))?;
    if s.supports(Fault::Records) {
        let unbounded = s.faults().unbounded_records().await?;
        ensure(
            unbounded.is_empty(),
            format!("without an end: {unbounded:?}"),
        )?;
    }
    Ok(())
}

async fn contended_cycles_on_many_names_leave_nothing(s: Stand) -> Check {
    const NAMES: usize = 50;
    let (a, b) = (s.client().await?, s.client().await?);
    let (before_a, before_b) = (a.stats(), b.stats());
    let running: Vec<_> = (0..8)
        .map(|task| {
            let client = if task % 2 == 0 { a.clone() } else { b.clone() };
            let s = s.clone();
            tokio::spawn(async move {
                for label in 0..NAMES {
                    let guard = client.hold(&s.name(&label.to_string())).await?;
                    match (task + label) % 3 {
                        0 => drop(guard),
                        _ => released_clean(client.give_up(guard).await?)?,
                    }
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in running {
        joined(task).await?;
    }
    history::check_tokens(&s.recorder().events())?;
    no_growth(&s, &a, before_a).await?;
    no_growth(&s, &b, before_b).await?;
    s.at_rest(&s.name("0")).await
}

async fn cancelled_waits_leave_nothing(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let before = b.stats();
    let mut rng = draws(&s)?;
    for _ in 0..5 {
        let waits = (0..30).map(|_| {
            let patience = Duration::from_micros(rng.u64(0..30_000));
            let (b, name) = (b.clone(), name.clone());
            async move { drop(tokio::time::timeout(patience, b.hold(&name)).await) }
        });
        futures_util::future::join_all(waits).await;
    }
    no_growth(&s, &b, before).await?;
    ensure_eq(
        a.inspect(&name).await?.waiters.len(),
        0,
        "waiters that are left",
    )?;
    released_clean(a.give_up(held).await?)?;
    s.at_rest(&name).await
}

async fn dropped_guards_leave_nothing(s: Stand) -> Check {
    let a = s.client().await?;
    let before = a.stats();
    for round in 0..100 {
        let again = s.name(&(round % 10).to_string());
        drop(within(SOON, "free again", a.hold(&again)).await??);
    }
    no_growth(&s, &a, before).await?;
    for label in 0..10 {
        s.at_rest(&s.name(&label.to_string())).await?;
    }
    Ok(())
}

async fn lost_locks_leave_nothing(s: Stand) -> Check {
    let a = s.client().await?;
    let before = a.stats();
    let mut guards = Vec::new();
    for label in 0..50 {
        guards.push(a.hold_fixed(&s.name(&label.to_string()), s.ttl()).await?);
    }
    for guard in &guards {
        within(s.ttl() + SOON, "every lease ends", guard.lost()).await?;
    }
    // The guards are still there: what they have lost must not cost anything.
    no_growth(&s, &a, before).await?;
    drop(guards);
    s.at_rest(&s.name("7")).await
}

async fn uncontended_cycle_is_two_commands(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    // The first acquire of a client may have to upload its scripts.
    let guard = a.hold(&name).await?;
    released_clean(a.give_up(guard).await?)?;
    let mut outcome = Ok(());
    let cycles = 10;
    let commands = s
        .faults()
        .commands_during(Box::pin(async {
            outcome = async {
                for _ in 0..cycles {
                    let guard = a.hold(&name).await?;
                    released_clean(a.give_up(guard).await?)?;
                }
                Ok::<_, Failure>(())
            }
            .await;
        }))
        .await?;
    outcome?;
    ensure_eq(
        commands.len(),
        2 * cycles,
        &format!("commands of {cycles} cycles: {commands:#?}"),
    )
}

async fn thousand_held_locks_are_renewed_in_batches(s: Stand) -> Check {
    const LOCKS: usize = 1_000;
    let ttl = secs(10);
    let a = s.client().await?;
    let connections = s.faults().connections().await?;
    let mut guards = Vec::new();
    for label in 0..LOCKS {
        guards.push(a.hold_for(&s.name(&label.to_string()), ttl).await?);
    }
    let clock = Clock::system();
    let granted = clock.now();
    // The first renewal may have to upload its script.
    guards[0].renew().await?;
    // A little less than a third of the validity: a longer look could see two rounds of one keeper.
    let period = ttl / 3 - ms(200);
    // Three looks, so that a burst at one end of the first does not pass for none.
    for _ in 0..3 {
        let before = s.faults().scripts().await?;
        clock.sleep(period).await;
        let renewals = s.faults().scripts().await? - before;
        ensure(
            renewals <= 64,
            format!("{renewals} scripts to renew {LOCKS} locks for {period:?}"),
        )?;
    }
    // By now nothing of what was granted is left.
    clock.sleep_until(granted + ttl).await;
    for guard in &guards {
        ensure(
            a.still_held(guard),
            "a lock was lost although its keeper is alive",
        )?;
    }
    ensure_eq(
        s.faults().connections().await?,
        connections,
        "connections with a thousand locks",
    )
}

async fn connections_do_not_grow_with_locks_and_waiters(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let before = s.faults().connections().await?;
    let subscriptions = s.faults().subscriptions().await?;
    let mut guards = Vec::new();
    let mut waiting = Vec::new();
    for label in 0..100 {
        let name = s.name(&label.to_string());
        guards.push(a.hold(&name).await?);
        waiting.push(tokio::spawn({
            let (b, name) = (b.clone(), name.clone());
            async move { b.hold(&name).await }
        }));
    }
    s.until_queued(&a, &s.name("99"), 1).await?;
    ensure_eq(
        s.faults().connections().await?,
        before,
        "connections with a hundred locks and a hundred waiters",
    )?;
    ensure_eq(
        s.faults().subscriptions().await?,
        subscriptions,
        "subscriptions with a hundred locks and a hundred waiters",
    )?;
    for task in waiting {
        task.abort();
    }
    drop(guards);
    s.until_idle(&b).await
}

async fn closed_clients_leave_no_connection(s: Stand) -> Check {
    let before = s.faults().connections().await?;
    for round in 0..10 {
        let client = s.client().await?;
        let guard = client.hold(&s.name("n")).await?;
        released_clean(client.give_up(guard).await?)?;
        // Closed, or only dropped.
        if round % 2 == 0 {
            client.shutdown(SOON).await?;
        }
    }
    connections_back_to(&s, before).await
}

async fn connections_back_to(s: &Stand, before: usize) -> Check {
    s.eventually("every connection is closed", SOON, || async {
        let count = s.faults().connections().await;
        let count = count.map_err(|error| {
            lock_core::Error::new(ErrorKind::Protocol, "count").with_source(error)
        })?;
        Ok((count <= before).then_some(()))
    })
    .await
}

async fn dropped_connects_leave_no_connection(s: Stand) -> Check {
    let before = s.faults().connections().await?;
    for round in 0..20 {
        let patience = Duration::from_micros(round * 500);
        let opened = tokio::time::timeout(patience, s.client()).await;
        // In time or not, it is dropped.
        drop(opened);
    }
    connections_back_to(&s, before).await
}

async fn waits_for_a_loss_leave_nothing(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold(&s.name("n")).await?;
    let before = a.stats();
    for _ in 0..1_000 {
        let mut lost = Box::pin(guard.lost());
        ensure_pending(&mut lost, "lost() of a held lock")?;
    }
    let after = a.stats();
    ensure(
        after.tasks <= before.tasks + 8,
        format!("a thousand dropped waits for a loss: {before:?} before, {after:?} after"),
    )?;
    released_clean(a.give_up(guard).await?)
}

async fn everything_stored_has_an_end(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    // Looked at while everything is there: a holder, waiters, and what a lost one leaves.
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { b.hold(&name).await }
    });
    s.until_queued(&a, &name, 1).await?;
    let backend = s.backend().await?;
    let claim = s.claim("released", LONG);
    some(backend.try_acquire(&claim).await?, "the lock is free")?;
    backend.release(&claim).await?;
    backend.release(&s.claim("never asked for", LONG)).await?;
    ensure(
        !s.faults().records().await?.is_empty(),
        "the record of the holder is not seen",
    )?;
    let unbounded = s.faults().unbounded_records().await?;
    ensure(
        unbounded.is_empty(),
        format!("without an end: {unbounded:?}"),
    )?;
    waiting.abort();
    released_clean(a.give_up(held).await?)
}
