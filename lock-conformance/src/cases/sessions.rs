//! Sessions and leases that somebody else ends.

use super::prelude::*;

pub(super) async fn holder_is_told_that_its_session_was_ended(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let old = a.hold_for(&name, s.kept_ttl()).await?;
    s.faults().kill_session(&name, 0).await?;
    // As with a break, the next grant may come before the victim hears of it.
    let wait = s.replaced_within(s.kept_ttl());
    let reason = within(wait, "the holder is told", old.lost()).await?;
    ensure(
        matches!(
            reason,
            LossReason::SessionEnded | LossReason::NotHeld | LossReason::Expired
        ),
        format!("why it was lost: {reason:?}"),
    )?;
    let new = within(wait, "the lock is free", b.hold(&name)).await??;
    ensure_growing(&[old.token(), new.token()])?;
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
    // The client itself goes on, in a session of its own again.
    let again = within(wait + SOON, "the client goes on", a.hold(&name)).await??;
    released_clean(a.give_up(again).await?)?;
    s.at_rest(&name).await
}

pub(super) async fn waiter_whose_session_was_ended_is_served(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { Ok::<_, Failure>(b.hold(&name).await?) }
    });
    s.until_queued(&a, &name, 1).await?;
    s.faults().kill_session(&name, 1).await?;
    // It comes back by itself, and not into a hold that is somebody else's.
    s.until_queued(&a, &name, 1).await?;
    ensure(a.still_held(&held), "the holder was disturbed")?;
    released_clean(a.give_up(held).await?)?;
    let guard = within(SOON, "served", joined(waiting)).await??;
    ensure(b.still_held(&guard), "the waiter holds now")?;
    released_clean(b.give_up(guard).await?)?;
    s.at_rest(&name).await
}
