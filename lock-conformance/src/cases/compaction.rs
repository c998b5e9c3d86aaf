//! A server that has forgotten the changes which a client was away for.

use super::prelude::*;
use crate::stand::Client;

pub(super) async fn waiter_is_served_after_a_compaction(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.proxied_client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { Ok::<_, Failure>(b.hold(&name).await?) }
    });
    s.until_queued(&a, &name, 1).await?;
    s.until_heard(&b, &name).await?;
    forget_while_away(&s, &a).await?;
    ensure(!waiting.is_finished(), "granted while somebody holds")?;
    released_clean(a.give_up(held).await?)?;
    let guard = within(SOON, "handed on", joined(waiting)).await??;
    ensure(b.still_held(&guard), "the waiter holds now")?;
    // And again, without anything that would make it look anew.
    let next = tokio::spawn({
        let (a, name) = (a.clone(), name.clone());
        async move { Ok::<_, Failure>(a.hold(&name).await?) }
    });
    s.until_queued(&b, &name, 1).await?;
    s.faults().compact().await?;
    released_clean(b.give_up(guard).await?)?;
    let guard = within(SOON, "handed back", joined(next)).await??;
    released_clean(a.give_up(guard).await?)?;
    s.at_rest(&name).await
}

pub(super) async fn holder_is_told_of_a_break_after_a_compaction(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    forget_while_away(&s, &b).await?;
    ensure(a.still_held(&guard), "still held after the outage")?;
    ensure(b.break_hold(&name, guard.token()).await?, "it was broken")?;
    // Long before the next renewal of so long a lease.
    let reason = within(SOON, "the victim is told", guard.lost()).await?;
    ensure(
        matches!(reason, LossReason::Broken | LossReason::NotHeld),
        format!("what the victim is told: {reason:?}"),
    )?;
    let late = a.give_up(guard).await?;
    ensure(
        matches!(late, Released::WasLost(_)),
        format!("the victim's release: {late:?}"),
    )?;
    s.at_rest(&name).await
}

/// Cuts proxied clients off; meanwhile `other` makes history, which the server then forgets. So what they
/// would ask for first when they come back is not there.
async fn forget_while_away(s: &Stand, other: &Client) -> Check {
    s.faults().black_hole(true).await?;
    s.faults().cut().await?;
    for _ in 0..5 {
        let guard = other.hold(&s.name("history")).await?;
        other.give_up(guard).await?;
    }
    s.faults().compact().await?;
    s.faults().black_hole(false).await?;
    Ok(())
}
