//! What clients saw against what the backend itself says.

use super::prelude::*;
use crate::resource::{Fencing, Resource};
use crate::worker::{Count, Order};

pub(super) async fn every_grant_stands_in_the_backends_own_record(s: Stand) -> Check {
    let faults = s.faults();
    let witness = faults.witness().await?;
    let resource = Resource::start(Fencing::Checked, s.recorder().clone())?;
    let mut workers = s.workers(4).await?;
    let name = s.name("counter");
    let order = Order::Count(Count {
        name: name.clone(),
        ttl: s.kept_ttl(),
        resource: resource.path(),
        tasks: 2,
        sections: None,
        think: ms(5),
    });
    let counting: Vec<_> = workers.iter().map(|w| w.begin(order.clone())).collect();
    // Somebody else passes the lock on among its own tasks, and gives up waiting now and then.
    let a = s.client().await?;
    let mut passing = Vec::new();
    for number in 0..4 {
        let (a, name) = (a.clone(), name.clone());
        passing.push(tokio::spawn(async move {
            for round in 0..10 {
                let patience = if (number + round) % 3 == 0 {
                    ms(20)
                } else {
                    SOON
                };
                match a.hold_within(&name, patience).await {
                    Ok(Some(guard)) => drop(a.give_up(guard).await?),
                    Ok(None) => {}
                    Err(error) => ensure(error.is_retryable(), format!("{error:?}"))?,
                }
            }
            Ok(())
        }));
    }
    let mut readers = resource.last_reader();
    for _ in 0..2 {
        within(SOON, "a process reads the counter", readers.changed())
            .await?
            .expect("the resource is there");
        let reader = some(readers.borrow_and_update().clone(), "somebody has read")?;
        let holder = workers.iter().position(|worker| worker.who() == reader.who);
        // Killed between reading and writing; a reader that was killed before is not met again.
        let mut killed = workers.swap_remove(some(holder, "the reader is alive")?);
        killed.kill()?;
    }
    for task in passing {
        within(LONG, "those that pass it on end", joined(task)).await??;
    }
    for worker in &workers {
        worker.begin(Order::Finish).await?;
    }
    // Those of the killed processes fail, as they must.
    let ended = futures_util::future::join_all(counting);
    within(SOON + s.kept_ttl() * 4, "the others end", ended).await?;
    s.at_rest(&name).await?;
    let events = s.recorder().events();
    let records = witness.records().await?;
    let granted = |event: &&history::Event| {
        event.name == name && matches!(event.what, history::What::Granted { .. })
    };
    let seen = events.iter().filter(granted).count();
    ensure(seen >= 40, format!("a contended run: {seen} grants"))?;
    history::check_record(&events, &records)?;
    history::check_tokens(&events)?;
    // The look at rest was a hold too, and everything has ended.
    let began = |what| {
        let of_it = records.iter().filter(|record| record.name == name);
        of_it.filter(|record| record.what == what).count()
    };
    let (began, ended) = (began(history::Stood::Began), began(history::Stood::Ended));
    ensure_eq(ended, began, "holds that ended, of those that began")?;
    ensure(
        began > seen,
        format!("{began} holds in the record, of {seen} that clients saw"),
    )
}
