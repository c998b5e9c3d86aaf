//! R1: for one name, at most one holder.

use super::prelude::*;
use super::seeded::{draws, run_seeded};
use crate::resource::{Fencing, Resource, ResourceClient};
use crate::worker::{Answer, Count, Order, Worker, increment};
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!("R1.01", second_client_is_refused_while_one_holds),
    case!("R1.02", tasks_of_one_client_exclude_each_other),
    case!("R1.03", different_names_are_held_side_by_side),
    case!("R1.04", counter_of_many_clients_stays_exact),
    case!(
        "R1.05",
        counter_of_many_processes_stays_exact,
        needs(&[Need::Processes]),
        alone(),
        deadline(120)
    ),
    case!(
        "R1.06",
        holders_paused_past_their_lease_lose_no_update_behind_a_fence,
        needs(&[Need::Processes, TTL]),
        alone(),
        deadline(120)
    ),
    case!(
        "R1.07",
        holders_paused_past_their_lease_lose_updates_without_a_fence,
        needs(&[Need::Processes, TTL]),
        alone(),
        deadline(120)
    ),
    case!(
        "R1.08",
        counter_stays_exact_while_processes_are_killed,
        needs(&[Need::Processes, CRASH]),
        alone(),
        deadline(120)
    ),
    case!("R1.09", nobody_overlaps_while_waiters_come_and_go),
    case!("R1.10", lock_is_free_again_after_its_release),
    case!(
        "R1.11",
        counter_of_many_clients_stays_exact_for_long,
        full(),
        alone(),
        deadline(180)
    ),
    case!(
        "R1.12",
        seeded_counter_of_clients_and_processes_stays_exact,
        deadline(120)
    ),
    case!(
        "R1.13",
        seeded_use_of_many_locks_keeps_them_apart,
        deadline(120)
    ),
];

async fn second_client_is_refused_while_one_holds(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    for _ in 0..5 {
        ensure(b.attempt(&name).await?.is_none(), "a held lock was granted")?;
    }
    ensure(a.still_held(&held), "the holder still holds")?;
    released_clean(a.give_up(held).await?)?;
    s.at_rest(&name).await
}

async fn tasks_of_one_client_exclude_each_other(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let held = a.hold(&name).await?;
    ensure(
        a.attempt(&name).await?.is_none(),
        "another task of the same client was granted a held lock",
    )?;
    let clone = a.clone();
    ensure(
        clone.attempt(&name).await?.is_none(),
        "a clone of the client was granted a held lock",
    )?;
    released_clean(a.give_up(held).await?)?;
    let held = some(a.attempt(&name).await?, "the lock is free")?;
    released_clean(a.give_up(held).await?)
}

async fn different_names_are_held_side_by_side(s: Stand) -> Check {
    let a = s.client().await?;
    let b = s.client().await?;
    let mut guards = Vec::new();
    for label in 0..20 {
        let client = if label % 2 == 0 { &a } else { &b };
        let guard = client.attempt(&s.name(&label.to_string())).await?;
        guards.push(some(guard, "another name is free")?);
    }
    for guard in &guards {
        guard.check()?;
    }
    Ok(())
}

async fn lock_is_free_again_after_its_release(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    for client in [&a, &b, &a, &a, &b] {
        let guard = some(
            client.attempt(&name).await?,
            "a released lock can be had at once",
        )?;
        released_clean(client.give_up(guard).await?)?;
    }
    Ok(())
}

/// Lets `clients` clients with `tasks` tasks each count to `sections`.
async fn count_in_process(s: &Stand, clients: u32, tasks: u32, sections: u32) -> Check {
    let name = s.name("counter");
    let resource = Resource::start(Fencing::Checked, s.recorder().clone())?;
    let mut running = Vec::new();
    for _ in 0..clients {
        let client = s.client().await?;
        for _ in 0..tasks {
            let (client, name, path) = (client.clone(), name.clone(), resource.path());
            running.push(tokio::spawn(async move {
                let mut resource = ResourceClient::connect(&path, &client.who).await?;
                for _ in 0..sections {
                    let guard = client.hold(&name).await?;
                    let taken =
                        increment(&mut resource, &name, guard.token(), Duration::ZERO).await?;
                    ensure(taken, "the holder's write was refused as stale")?;
                    ensure(
                        client.still_held(&guard),
                        "still held after a short section",
                    )?;
                    released_clean(client.give_up(guard).await?)?;
                }
                Ok::<_, Failure>(())
            }));
        }
    }
    for task in running {
        joined(task).await?;
    }
    ensure_eq(
        resource.value(&name),
        u64::from(clients * tasks * sections),
        "increments that arrived",
    )?;
    history::check_resource(&resource.writes())?;
    history::check_all(&s.recorder().events())?;
    s.at_rest(&name).await
}

async fn counter_of_many_clients_stays_exact(s: Stand) -> Check {
    count_in_process(&s, 4, 4, 15).await
}

async fn counter_of_many_clients_stays_exact_for_long(s: Stand) -> Check {
    count_in_process(&s, 8, 8, 100).await
}

async fn nobody_overlaps_while_waiters_come_and_go(s: Stand) -> Check {
    let name = s.name("n");
    let mut rng = draws(&s)?;
    let mut running = Vec::new();
    for _ in 0..3 {
        let client = s.client().await?;
        for _ in 0..3 {
            let (client, name, mut rng) = (client.clone(), name.clone(), rng.fork());
            running.push(tokio::spawn(async move {
                for _ in 0..12 {
                    let patience = ms(rng.u64(0..20));
                    match rng.u8(0..4) {
                        // Some give up at any moment, as a dropped future does.
                        0 => drop(tokio::time::timeout(patience, client.hold(&name)).await),
                        1 => {
                            if let Some(guard) = client.attempt(&name).await? {
                                client.give_up(guard).await?;
                            }
                        }
                        2 => {
                            match client.hold_within(&name, patience).await {
                                Ok(Some(guard)) => drop(client.give_up(guard).await?),
                                Ok(None) => {}
                                // So short a wait may end before the backend has said anything.
                                Err(error) if error.is_retryable() => {}
                                Err(error) => return Err(error.into()),
                            }
                        }
                        _ => {
                            let guard = client.hold(&name).await?;
                            ensure(client.still_held(&guard), "a fresh guard holds")?;
                            client.give_up(guard).await?;
                        }
                    }
                }
                Ok::<_, Failure>(())
            }));
        }
    }
    for task in running {
        joined(task).await?;
    }
    let events = s.recorder().events();
    history::check_tokens(&events)?;
    history::check_exclusion(&events)?;
    history::check_validity(&events)?;
    s.at_rest(&name).await
}

fn count(s: &Stand, resource: &Resource, tasks: u32, sections: Option<u32>, think: u64) -> Count {
    Count {
        name: s.name("counter"),
        ttl: LONG,
        resource: resource.path(),
        tasks,
        sections,
        think: ms(think),
    }
}

async fn counter_of_many_processes_stays_exact(s: Stand) -> Check {
    let (processes, tasks, sections) = (8, 4, 10);
    let resource = Resource::start(Fencing::Checked, s.recorder().clone())?;
    let workers = s.workers(processes).await?;
    let order = Order::Count(count(&s, &resource, tasks, Some(sections), 0));
    let counting: Vec<_> = workers.iter().map(|w| w.begin(order.clone())).collect();
    let each = u64::from(tasks * sections);
    for counted in counting {
        ensure_eq(counted.await?, Answer::Counted(each), "what a process did")?;
    }
    let name = s.name("counter");
    let wanted = each * u64::try_from(processes).expect("few");
    ensure_eq(resource.value(&name), wanted, "increments that arrived")?;
    ensure_eq(resource.refused(), 0, "writes of holders that were refused")?;
    history::check_resource(&resource.writes())?;
    let events = s.recorder().events();
    history::check_tokens(&events)?;
    history::check_exclusion(&events)?;
    s.at_rest(&name).await
}

/// Eight processes count; whoever has just read is stopped past the end of its lease, and continued.
async fn count_with_pauses(
    s: &Stand,
    fencing: Fencing,
    pauses: usize,
) -> Result<Resource, Failure> {
    let ttl = s.ttl();
    let resource = Resource::start(fencing, s.recorder().clone())?;
    let workers = s.workers(8).await?;
    let mut order = count(s, &resource, 2, None, 30);
    order.ttl = ttl;
    let counting: Vec<_> = workers
        .iter()
        .map(|worker| worker.begin(Order::Count(order.clone())))
        .collect();
    let mut readers = resource.last_reader();
    for _ in 0..pauses {
        within(
            SOON + ttl * 8,
            "a process reads the counter",
            readers.changed(),
        )
        .await?
        .expect("the resource is there");
        let reader = readers.borrow_and_update().clone();
        let reader = some(reader, "somebody has read")?;
        let paused = workers.iter().find(|worker| worker.who() == reader.who);
        let paused = some(paused, "the reader is one of the workers")?;
        pause_past_the_lease(s, paused, &resource, reader.token).await?;
    }
    for worker in &workers {
        worker.begin(Order::Finish).await?;
    }
    let mut counted = 0;
    for done in counting {
        match within(SOON + ttl * 8, "a process ends its counting", done).await?? {
            Answer::Counted(count) => counted += count,
            other => return Err(Failure::new(format!("unexpected: {other:?}"))),
        }
    }
    let accepted: u64 = resource.accepted().values().sum();
    ensure_eq(
        counted,
        accepted,
        "increments that the processes count as taken",
    )?;
    Ok(resource)
}

/// Stops the worker until somebody else has written with a newer token.
async fn pause_past_the_lease(
    s: &Stand,
    worker: &Worker,
    resource: &Resource,
    token: u64,
) -> Check {
    worker.pause()?;
    let newer = |event: &history::Event| matches!(event.what, history::What::Wrote { token: other, accepted: true, .. } if other > token);
    let replaced = s
        .eventually(
            "somebody else writes after the lease of a stopped holder has ended",
            s.replaced_within(s.ttl()) + s.claim_window() + SOON,
            || async { Ok(resource.writes().iter().any(newer).then_some(())) },
        )
        .await;
    worker.resume()?;
    replaced
}

async fn holders_paused_past_their_lease_lose_no_update_behind_a_fence(s: Stand) -> Check {
    let resource = count_with_pauses(&s, Fencing::Checked, 4).await?;
    history::check_resource(&resource.writes())?;
    let accepted: u64 = resource.accepted().values().sum();
    ensure_eq(
        resource.value(&s.name("counter")),
        accepted,
        "the counter against the writes that were taken",
    )?;
    history::check_tokens(&s.recorder().events())?;
    s.at_rest(&s.name("counter")).await
}

async fn holders_paused_past_their_lease_lose_updates_without_a_fence(s: Stand) -> Check {
    // The proof that the case before this one can fail: the same run, without looking at tokens.
    let resource = count_with_pauses(&s, Fencing::Ignored, 4).await?;
    let lost = history::lost_updates(&resource.writes());
    ensure(
        lost > 0,
        "paused holders overwrite others when nobody looks at tokens: no update was lost",
    )
}

async fn counter_stays_exact_while_processes_are_killed(s: Stand) -> Check {
    let resource = Resource::start(Fencing::Checked, s.recorder().clone())?;
    let mut workers = s.workers(4).await?;
    let mut order = count(&s, &resource, 2, None, 10);
    order.ttl = s.ttl();
    let counting: Vec<_> = workers
        .iter()
        .map(|worker| worker.begin(Order::Count(order.clone())))
        .collect();
    let mut readers = resource.last_reader();
    for _ in 0..2 {
        within(SOON, "a process reads the counter", readers.changed())
            .await?
            .expect("the resource is there");
        let reader = readers.borrow_and_update().clone();
        let reader = some(reader, "somebody has read")?;
        let holder = workers.iter().position(|worker| worker.who() == reader.who);
        // Killed between reading and writing; a reader that was killed before is not met again.
        let mut killed = workers.swap_remove(some(holder, "the reader is alive")?);
        killed.kill()?;
    }
    let before = resource.writes().len();
    s.eventually("the others go on counting", SOON + s.ttl() * 4, || async {
        Ok((resource.writes().len() >= before + 10).then_some(()))
    })
    .await?;
    for worker in &workers {
        worker.begin(Order::Finish).await?;
    }
    // Those of the killed processes fail, as they must.
    let ended = futures_util::future::join_all(counting);
    within(SOON + s.ttl() * 4, "the others end", ended).await?;
    history::check_resource(&resource.writes())?;
    let events = s.recorder().events();
    history::check_tokens(&events)?;
    // The fence would hide it.
    history::check_exclusion(&events)?;
    drop(workers);
    s.at_rest(&s.name("counter")).await
}

async fn seeded_counter_of_clients_and_processes_stays_exact(s: Stand) -> Check {
    run_seeded(s, Kind::Counter).await
}

async fn seeded_use_of_many_locks_keeps_them_apart(s: Stand) -> Check {
    run_seeded(s, Kind::Names).await
}
