//! Wall clocks of clients that jump. No lease, token or queue hangs on what time it is at a client.

use super::prelude::*;
use crate::case::Outcome;
use crate::worker::{Answer, Order, Worker};

/// In seconds.
const DAY: i64 = 24 * 60 * 60;

/// What a case answers that may lack the tool.
type Verdict = Result<Outcome, Failure>;

pub(super) async fn tokens_grow_while_the_clients_wall_clocks_jump(s: Stand) -> Verdict {
    let workers = match s.workers_with_clocks(2).await? {
        Ok(workers) => workers,
        Err(lacking) => return Ok(lacking),
    };
    let a = s.client().await?;
    let name = s.name("n");
    let mut tokens = Vec::new();
    for (worker, day) in [(0, 0), (1, DAY), (0, -DAY), (1, -DAY), (0, DAY), (1, 0)] {
        let worker = &workers[worker];
        worker.set_wall_clock(day).await?;
        tokens.push(worker.acquire(&name, s.kept_ttl()).await?);
        released(worker).await?;
        let guard = a.hold(&name).await?;
        tokens.push(guard.token().get());
        a.give_up(guard).await?;
    }
    ensure(
        tokens.is_sorted_by(|one, next| one < next),
        format!("tokens grow: seen {tokens:?}"),
    )?;
    Ok(Outcome::Passed)
}

pub(super) async fn lease_and_place_are_kept_while_the_clients_wall_clocks_jump(
    s: Stand,
) -> Verdict {
    let workers = match s.workers_with_clocks(2).await? {
        Ok(workers) => workers,
        Err(lacking) => return Ok(lacking),
    };
    let [holder, waiter] = &workers[..] else {
        return Err(Failure::new("two workers were asked for"));
    };
    let a = s.client().await?;
    let name = s.name("n");
    let old = holder.acquire(&name, s.kept_ttl()).await?;
    let waiting = waiter.begin(Order::Acquire {
        key: 0,
        name: name.clone(),
        ttl: s.kept_ttl(),
        within: None,
    });
    s.until_queued(&a, &name, 1).await?;
    for (one, other) in [(DAY, -DAY), (-DAY, DAY)] {
        holder.set_wall_clock(one).await?;
        waiter.set_wall_clock(other).await?;
        let end = Clock::system().now() + s.kept_ttl() + s.ttl();
        while Clock::system().now() < end {
            ensure(
                a.attempt(&name).await?.is_none(),
                "a live holder was replaced",
            )?;
            tokio::time::sleep(ms(20)).await;
        }
        let answer = holder.begin(Order::Check { key: 0 }).await?;
        ensure_eq(answer, Answer::Valid(true), "check() after the jump")?;
        s.until_queued(&a, &name, 1).await?;
    }
    released(holder).await?;
    let new = match within(SOON, "handed on", waiting).await?? {
        Answer::Granted(new) => new,
        other => return Err(Failure::new(format!("the waiter: {other:?}"))),
    };
    ensure(new > old, "tokens grow across the hand-off")?;
    // Nor does a jump keep a dead holder alive.
    waiter.set_wall_clock(-DAY).await?;
    waiter.pause()?;
    let wait = s.replaced_within(s.kept_ttl()) + s.claim_window();
    let next = within(wait, "a stopped process is replaced", a.hold(&name)).await;
    waiter.resume()?;
    ensure(next??.token().get() > new, "tokens grow across a pause")?;
    let answer = waiter.begin(Order::Check { key: 0 }).await?;
    ensure_eq(answer, Answer::Valid(false), "check() after waking up")?;
    Ok(Outcome::Passed)
}

async fn released(worker: &Worker) -> Check {
    let answer = worker.begin(Order::Release { key: 0 }).await?;
    ensure_eq(answer, Answer::Released("Clean".into()), "a release")
}
