//! R7: waiting is pushed, in order, bounded, and does not spin.

use std::collections::BTreeMap;

use super::compaction::waiter_is_served_after_a_compaction;
use super::halfway::lost_request_costs_a_bounded_delay_and_leaves_nothing;
use super::prelude::*;
use super::seeded::run_seeded;
use super::sessions::waiter_whose_session_was_ended_is_served;
use crate::resource::{Fencing, Resource};
use crate::stand::Client;
use crate::worker::{Count, Order};
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!("R7.01", release_wakes_a_waiter),
    case!(
        "R7.02",
        clients_are_served_in_the_order_of_their_coming,
        needs(&[FIFO])
    ),
    case!("R7.03", tasks_of_one_client_are_served_in_order),
    case!(
        "R7.04",
        try_does_not_overtake_those_who_wait,
        needs(&[FIFO])
    ),
    case!("R7.05", wait_lasts_longer_than_an_operation),
    case!("R7.06", bounded_wait_ends_in_time_and_leaves_nothing),
    case!("R7.07", bounded_wait_of_zero_is_a_try),
    case!("R7.08", bounded_wait_is_granted_when_the_lock_comes_free),
    case!(
        "R7.09",
        cancelled_task_does_not_cost_the_others_their_place,
        needs(&[FIFO])
    ),
    case!(
        "R7.10",
        timed_out_task_does_not_cost_the_others_their_place,
        needs(&[FIFO])
    ),
    case!(
        "R7.11",
        operator_sees_holder_and_queue_in_order,
        needs(&[FIFO])
    ),
    case!(
        "R7.12",
        waiters_progress_although_every_notification_is_dropped,
        needs(&[Need::Fault(Fault::DropPushes)]),
        alone(),
    ),
    case!(
        "R7.13",
        dead_waiter_costs_the_queue_no_more_than_the_claim_window,
        needs(&[Need::Processes, CLAIM_WINDOW]),
        alone(),
    ),
    case!(
        "R7.14",
        dead_waiters_in_a_row_cost_a_claim_window_each,
        needs(&[Need::Processes, CLAIM_WINDOW]),
        alone(),
        full(),
    ),
    case!(
        "R7.15",
        waiter_keeps_waiting_through_a_server_restart,
        needs(&[Need::Fault(Fault::Kill)]),
    ),
    case!(
        "R7.16",
        waiter_keeps_its_place_when_its_connection_is_cut,
        needs(&[FIFO, Need::Fault(Fault::Cut)]),
    ),
    case!(
        "R7.17",
        waiter_keeps_waiting_through_a_loss_of_data,
        needs(&[Need::Fault(Fault::Wipe)]),
    ),
    case!(
        "R7.18",
        waiting_does_not_spin,
        needs(&[Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!(
        "R7.19",
        hand_offs_between_processes_are_cheap_and_fair,
        needs(&[Need::Processes, FIFO, Need::Fault(Fault::Count)]),
        alone(),
        deadline(120)
    ),
    case!(
        "R7.20",
        hand_offs_within_a_process_cost_one_step,
        needs(&[Need::Fault(Fault::Count)]),
        alone(),
    ),
    case!("R7.21", everybody_in_a_long_queue_is_served),
    case!(
        "R7.22",
        seeded_waiters_are_served_in_the_order_of_the_queue,
        needs(&[FIFO]),
        deadline(120)
    ),
    case!(
        "R7.30",
        lost_request_costs_a_bounded_delay_and_leaves_nothing,
        needs(&[Need::Fault(Fault::DropRequest)]),
        deadline(120)
    ),
    case!(
        "R7.31",
        waiter_whose_session_was_ended_is_served,
        needs(&[Need::Fault(Fault::KillSession)]),
    ),
    case!(
        "R7.32",
        waiter_is_served_after_a_compaction,
        needs(&[
            Need::Fault(Fault::Compact),
            Need::Fault(Fault::Cut),
            Need::Fault(Fault::BlackHole)
        ]),
    ),
];

/// Starts waiting for the lock, and is in the queue when this returns, and knows it.
async fn queue_up(
    s: &Stand,
    client: &Client,
    witness: &Client,
    name: &str,
    place: usize,
) -> Result<tokio::task::JoinHandle<Result<lock_core::Guard, Failure>>, Failure> {
    let task = tokio::spawn({
        let (client, name) = (client.clone(), name.to_owned());
        async move { Ok(client.hold(&name).await?) }
    });
    s.until_queued(witness, name, place).await?;
    s.until_heard(client, name).await?;
    Ok(task)
}

async fn release_wakes_a_waiter(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    for _ in 0..5 {
        // Held with a TTL that nobody waits for: only the release can let the waiter on.
        let held = a.hold(&name).await?;
        let waiting = queue_up(&s, &b, &a, &name, 1).await?;
        released_clean(a.give_up(held).await?)?;
        let guard = within(SOON, "woken by the release", joined(waiting)).await??;
        released_clean(b.give_up(guard).await?)?;
    }
    Ok(())
}

async fn clients_are_served_in_the_order_of_their_coming(s: Stand) -> Check {
    let name = s.name("n");
    let holder = s.client().await?;
    let held = holder.hold(&name).await?;
    let mut waiting = Vec::new();
    for place in 1..=6 {
        let client = s.client().await?;
        let task = queue_up(&s, &client, &holder, &name, place).await?;
        waiting.push((client, task));
    }
    let mut tokens = vec![held.token()];
    holder.give_up(held).await?;
    for (client, task) in waiting {
        let guard = within(SOON, "served in turn", joined(task)).await??;
        tokens.push(guard.token());
        client.give_up(guard).await?;
    }
    ensure_growing(&tokens)
}

async fn tasks_of_one_client_are_served_in_order(s: Stand) -> Check {
    let name = s.name("n");
    let a = s.client().await?;
    let held = a.hold(&name).await?;
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let mutex = a.mutex(&name).ttl(LONG);
            Box::pin(async move { mutex.acquire().await })
        })
        .collect();
    // The first poll is what asks, so this is the order of coming.
    for future in &mut waiting {
        ensure(future.now_or_never().is_none(), "a held lock was granted")?;
    }
    let mut tokens = vec![held.token()];
    a.give_up(held).await?;
    for future in waiting {
        let guard = within(SOON, "served in turn", future).await??;
        tokens.push(guard.token());
        released_clean(guard.release().await?)?;
    }
    ensure_growing(&tokens)
}

async fn try_does_not_overtake_those_who_wait(s: Stand) -> Check {
    let (a, b, c) = (s.client().await?, s.client().await?, s.client().await?);
    let name = s.name("n");
    for _ in 0..10 {
        let held = a.hold(&name).await?;
        let waiting = queue_up(&s, &b, &a, &name, 1).await?;
        released_clean(a.give_up(held).await?)?;
        ensure(
            c.attempt(&name).await?.is_none(),
            "a try overtook somebody who waits",
        )?;
        let guard = within(SOON, "woken by the release", joined(waiting)).await??;
        released_clean(b.give_up(guard).await?)?;
    }
    Ok(())
}

async fn wait_lasts_longer_than_an_operation(s: Stand) -> Check {
    let op_timeout = ms(300);
    let b = s
        .client_with(s.options().with_op_timeout(op_timeout))
        .await?;
    let a = s.client().await?;
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let mut waiting = queue_up(&s, &b, &a, &name, 1).await?;
    Clock::system().sleep(op_timeout * 4).await;
    ensure_pending(&mut waiting, "a queued wait ended with an operation's time")?;
    a.give_up(held).await?;
    drop(within(SOON, "granted in the end", joined(waiting)).await??);
    Ok(())
}

async fn bounded_wait_ends_in_time_and_leaves_nothing(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    for wait in [ms(200), ms(300), ms(500)] {
        let waiting = within(wait + SOON, "the end of a wait", b.hold_within(&name, wait));
        let (guard, took) = timed(waiting).await;
        ensure(guard??.is_none(), "a held lock was granted")?;
        ensure(took >= wait, format!("a wait of {wait:?} took {took:?}"))?;
        ensure(
            took <= wait + s.slack() + secs(1),
            format!("a wait of {wait:?} took {took:?}"),
        )?;
    }
    s.until_queued(&a, &name, 0).await?;
    s.until_idle(&b).await?;
    released_clean(a.give_up(held).await?)?;
    s.at_rest(&name).await
}

async fn bounded_wait_of_zero_is_a_try(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = b.hold_within(&name, Duration::ZERO).await?;
    let guard = some(guard, "a free lock is granted without waiting")?;
    let refused = a.hold_within(&name, Duration::ZERO).await?;
    ensure(refused.is_none(), "a held lock was granted")?;
    ensure_eq(a.inspect(&name).await?.waiters.len(), 0, "waiters of a try")?;
    released_clean(b.give_up(guard).await?)
}

async fn bounded_wait_is_granted_when_the_lock_comes_free(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { Ok::<_, Failure>(b.hold_within(&name, LONG).await?) }
    });
    s.until_queued(&a, &name, 1).await?;
    released_clean(a.give_up(held).await?)?;
    let guard = within(SOON, "granted within its wait", joined(waiting)).await??;
    let guard = some(guard, "busy although the lock came free")?;
    released_clean(b.give_up(guard).await?)
}

/// `b` has two tasks waiting, `c` one behind them; the first task of `b` goes away by `leave`.
async fn first_of_two_leaves(s: &Stand, bounded: Option<Duration>) -> Check {
    let (a, b, c) = (s.client().await?, s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let first = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move {
            match bounded {
                Some(wait) => drop(b.hold_within(&name, wait).await?),
                None => drop(b.hold(&name).await?),
            }
            Ok::<_, Failure>(())
        }
    });
    s.until_queued(&a, &name, 1).await?;
    let mutex = b.mutex(&name).ttl(LONG);
    let mut second = Box::pin(async move { Ok::<_, Failure>(mutex.acquire().await?) });
    // It stands in line locally, behind the first, from its first poll on; nobody outside sees it.
    ensure_pending(&mut second, "the second task")?;
    let second = tokio::spawn(second);
    let behind = queue_up(s, &c, &a, &name, 2).await?;
    let leaving = a.inspect(&name).await?.waiters[0].nonce;
    match bounded {
        Some(_) => within(SOON, "the first gives up", joined(first)).await??,
        None => first.abort(),
    }
    // Before the lock comes free: a grant that meets the leaving task counts as its turn.
    s.until_state(&a, &name, "the second task in its place", |state| {
        state.waiters.len() == 2 && state.waiters[0].nonce != leaving
    })
    .await?;
    released_clean(a.give_up(held).await?)?;
    let guard = within(
        SOON,
        "the second task has the place of the first",
        joined(second),
    );
    let guard = guard.await??;
    let token = guard.token();
    released_clean(b.give_up(guard).await?)?;
    let last = within(SOON, "the one behind is served", joined(behind)).await??;
    ensure_growing(&[token, last.token()])?;
    released_clean(c.give_up(last).await?)?;
    s.at_rest(&name).await
}

async fn cancelled_task_does_not_cost_the_others_their_place(s: Stand) -> Check {
    first_of_two_leaves(&s, None).await
}

async fn timed_out_task_does_not_cost_the_others_their_place(s: Stand) -> Check {
    first_of_two_leaves(&s, Some(secs(2))).await
}

async fn operator_sees_holder_and_queue_in_order(s: Stand) -> Check {
    let name = s.name("n");
    let holder = s.client_with(s.options().with_label("holder")).await?;
    let held = holder.hold(&name).await?;
    let mut waiting = Vec::new();
    for place in 1..=3 {
        let label = format!("waiter {place}");
        let client = s.client_with(s.options().with_label(&label)).await?;
        waiting.push(queue_up(&s, &client, &holder, &name, place).await?);
    }
    let state = holder.inspect(&name).await?;
    ensure_eq(state.name.as_str(), name.as_str(), "the name")?;
    ensure_eq(state.holders.len(), 1, "holders")?;
    let shown = &state.holders[0];
    ensure_eq(shown.token, held.token(), "the holder's token")?;
    ensure_eq(shown.identity.label(), "holder", "the holder's label")?;
    ensure_eq(
        shown.identity.pid(),
        std::process::id(),
        "the holder's process",
    )?;
    ensure(
        state.last_token.is_none_or(|last| last >= held.token()),
        format!("the last token {:?}", state.last_token),
    )?;
    let labels: Vec<_> = state.waiters.iter().map(|w| w.identity.label()).collect();
    ensure_eq(
        labels,
        vec!["waiter 1", "waiter 2", "waiter 3"],
        "the queue",
    )?;
    for task in waiting {
        task.abort();
    }
    Ok(())
}

async fn waiters_progress_although_every_notification_is_dropped(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.proxied_client().await?);
    let name = s.name("n");
    s.faults().drop_pushes(true).await?;
    let limit = secs(1) + s.claim_window();
    for _ in 0..3 {
        let held = a.hold(&name).await?;
        let waiting = queue_up(&s, &b, &a, &name, 1).await?;
        released_clean(a.give_up(held).await?)?;
        let (guard, took) = timed(within(limit + SOON, "progress", joined(waiting))).await;
        let guard = guard??;
        ensure(
            took <= limit + s.slack(),
            format!("{took:?} after the release; at most {limit:?} is declared"),
        )?;
        released_clean(b.give_up(guard).await?)?;
    }
    s.faults().drop_pushes(false).await?;
    s.at_rest(&name).await
}

/// So many processes wait and are killed; then the lock comes free, with a live waiter behind them.
async fn dead_waiters(s: &Stand, dead: usize) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let mut workers = s.workers(dead).await?;
    let held = a.hold(&name).await?;
    for (place, worker) in (1..).zip(&workers) {
        drop(worker.begin(Order::Acquire {
            key: 0,
            name: name.clone(),
            ttl: LONG,
            within: None,
        }));
        s.until_queued(&a, &name, place).await?;
    }
    let waiting = queue_up(s, &b, &a, &name, dead + 1).await?;
    for worker in &mut workers {
        worker.kill()?;
    }
    released_clean(a.give_up(held).await?)?;
    let (guard, took) = timed(within(LONG, "the live waiter", joined(waiting))).await;
    let guard = guard??;
    let dead = u32::try_from(dead).expect("few");
    let limit = (s.claim_window() + ms(500)) * dead;
    ensure(
        took <= limit + s.slack(),
        format!("{dead} dead waiters cost {took:?}; at most {limit:?} is declared"),
    )?;
    released_clean(b.give_up(guard).await?)?;
    s.at_rest(&name).await
}

async fn dead_waiter_costs_the_queue_no_more_than_the_claim_window(s: Stand) -> Check {
    dead_waiters(&s, 1).await
}

async fn dead_waiters_in_a_row_cost_a_claim_window_each(s: Stand) -> Check {
    dead_waiters(&s, 3).await
}

async fn waiter_keeps_waiting_through_a_server_restart(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let mut waiting = queue_up(&s, &b, &a, &name, 1).await?;
    s.faults().kill_server().await?;
    s.faults().restart_server().await?;
    s.eventually("the waiter is back in the queue", SOON * 2, || async {
        let state = a.inspect(&name).await?;
        Ok((state.waiters.len() == 1).then_some(()))
    })
    .await?;
    ensure_pending(&mut waiting, "granted while the holder holds")?;
    released_clean(a.give_up(held).await?)?;
    let guard = within(SOON, "granted after the restart", joined(waiting)).await??;
    released_clean(b.give_up(guard).await?)?;
    s.at_rest(&name).await
}

async fn waiter_keeps_waiting_through_a_loss_of_data(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold_for(&name, s.ttl() * 4).await?;
    let waiting = queue_up(&s, &b, &a, &name, 1).await?;
    s.faults().wipe().await?;
    // Nobody holds and nobody waits any more, as far as the server knows. The waiter finds out.
    let guard = within(SOON * 2, "granted in the end", joined(waiting)).await??;
    ensure_growing(&[held.token(), guard.token()])?;
    within(s.ttl() * 4 + SOON, "the old holder is told", held.lost()).await?;
    drop(held);
    released_clean(b.give_up(guard).await?)?;
    s.at_rest(&name).await
}

async fn waiter_keeps_its_place_when_its_connection_is_cut(s: Stand) -> Check {
    let (a, b, c) = (
        s.client().await?,
        s.proxied_client().await?,
        s.client().await?,
    );
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let first = queue_up(&s, &b, &a, &name, 1).await?;
    let second = queue_up(&s, &c, &a, &name, 2).await?;
    let before = a.inspect(&name).await?.waiters[0].nonce;
    for _ in 0..3 {
        s.faults().cut().await?;
        // Proof that the client is back: a request of its own is answered.
        s.eventually("the client is back", SOON, || async {
            b.inspect(&name).await.map(Some)
        })
        .await?;
    }
    let after = a.inspect(&name).await?;
    ensure_eq(after.waiters.len(), 2, "waiters after the cuts")?;
    ensure_eq(
        after.waiters[0].nonce,
        before,
        "who is first after the cuts",
    )?;
    released_clean(a.give_up(held).await?)?;
    let guard = within(SOON, "the first is served first", joined(first)).await??;
    let token = guard.token();
    released_clean(b.give_up(guard).await?)?;
    let last = within(SOON, "the second is served", joined(second)).await??;
    ensure_growing(&[token, last.token()])
}

async fn waiting_does_not_spin(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let mut clients = Vec::new();
    let mut waiting = Vec::new();
    for place in 1..=4 {
        let client = s.client().await?;
        waiting.push(queue_up(&s, &client, &a, &name, place).await?);
        clients.push(client);
    }
    let (seconds, waiters) = (4, 4);
    let commands = s
        .faults()
        .commands_during(Box::pin(Clock::system().sleep(secs(seconds))))
        .await?;
    // The safety net of each waiter may look twice a second; five clients may look after themselves.
    let most = usize::try_from(seconds * waiters * 2 + 5 * seconds).expect("few");
    ensure(
        commands.len() <= most,
        format!(
            "{waiters} waiters sent {} commands in {seconds} s, more than {most}: {commands:#?}",
            commands.len()
        ),
    )?;
    for task in waiting {
        task.abort();
    }
    released_clean(a.give_up(held).await?)
}

async fn hand_offs_between_processes_are_cheap_and_fair(s: Stand) -> Check {
    const PROCESSES: usize = 8;
    const ROUNDS: u64 = 60;
    let name = s.name("n");
    let resource = Resource::start(Fencing::Checked, s.recorder().clone())?;
    let workers = s.workers(PROCESSES).await?;
    let order = Order::Count(Count {
        name: name.clone(),
        ttl: LONG,
        resource: resource.path(),
        tasks: 1,
        sections: None,
        think: Duration::ZERO,
    });
    let counting: Vec<_> = workers.iter().map(|w| w.begin(order.clone())).collect();
    let counted_by_all = |wanted: u64, since: BTreeMap<String, u64>| {
        let resource = &resource;
        move || {
            let counts = progress(&resource.accepted(), &since);
            let all = counts.len() == PROCESSES && counts.values().all(|count| *count >= wanted);
            async move { Ok(all.then_some(())) }
        }
    };
    // Everybody has come before the measurement begins.
    s.eventually(
        "every process counts",
        SOON * 2,
        counted_by_all(3, BTreeMap::new()),
    )
    .await?;
    let (before, scripts_before) = (resource.accepted(), s.faults().scripts().await?);
    s.eventually(
        "every process has had its turns",
        SOON * 6,
        counted_by_all(ROUNDS, before.clone()),
    )
    .await?;
    let (after, scripts_after) = (resource.accepted(), s.faults().scripts().await?);
    for worker in &workers {
        worker.begin(Order::Finish).await?;
    }
    for done in counting {
        within(SOON, "a process ends its counting", done).await??;
    }
    let counts = progress(&after, &before);
    let sections: u64 = counts.values().sum();
    let scripts = scripts_after - scripts_before;
    // Those under way at either end of the measurement are not counted against it.
    let allowed = 2 * (sections + u64::try_from(PROCESSES).expect("few"));
    ensure(
        scripts <= allowed,
        format!("{scripts} requests for {sections} acquisitions: more than 2 each"),
    )?;
    let (least, most) = (
        counts.values().min().copied().unwrap_or(0),
        counts.values().max().copied().unwrap_or(0),
    );
    ensure(
        most * 10 <= least * 11,
        format!("from {least} to {most} acquisitions per process: {counts:?}"),
    )?;
    history::check_resource(&resource.writes())?;
    s.at_rest(&name).await
}

/// What each has done since.
fn progress(now: &BTreeMap<String, u64>, since: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    now.iter()
        .map(|(who, count)| (who.clone(), count - since.get(who).copied().unwrap_or(0)))
        .collect()
}

async fn hand_offs_within_a_process_cost_one_step(s: Stand) -> Check {
    const TASKS: u64 = 100;
    const SECTIONS: u64 = 10;
    let a = s.client().await?;
    let name = s.name("n");
    // The first acquire of a client may have to upload its scripts.
    let guard = a.hold(&name).await?;
    released_clean(a.give_up(guard).await?)?;
    let before = s.faults().scripts().await?;
    let running: Vec<_> = (0..TASKS)
        .map(|_| {
            let mutex = a.mutex(&name).ttl(LONG);
            tokio::spawn(async move {
                for _ in 0..SECTIONS {
                    released_clean(mutex.acquire().await?.release().await?)?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in running {
        joined(task).await?;
    }
    let scripts = s.faults().scripts().await? - before;
    let (sections, each) = (TASKS * SECTIONS, s.pace().local_hand_off);
    ensure(
        scripts * 10 <= sections * each * 11,
        format!("{scripts} requests for {sections} sections: more than 1.1 times {each} each"),
    )
}

async fn everybody_in_a_long_queue_is_served(s: Stand) -> Check {
    let name = s.name("n");
    let mut running = Vec::new();
    for _ in 0..5 {
        let client = s.client().await?;
        for _ in 0..40 {
            let (client, name) = (client.clone(), name.clone());
            running.push(tokio::spawn(async move {
                let guard = client.hold(&name).await?;
                released_clean(client.give_up(guard).await?)
            }));
        }
    }
    for task in running {
        within(LONG / 2, "served", joined(task)).await??;
    }
    history::check_tokens(&s.recorder().events())?;
    s.at_rest(&name).await
}

async fn seeded_waiters_are_served_in_the_order_of_the_queue(s: Stand) -> Check {
    run_seeded(s, Kind::Queue).await
}
