//! R3: a holder never believes in its lease for longer than the backend does.

use lock_core::Guard;

use super::prelude::*;
use crate::stand::Client;

pub(super) const CASES: &[Entry] = &[
    case!(
        "R3.01",
        validity_never_outlives_the_backends_record,
        needs(&[TTL])
    ),
    case!(
        "R3.02",
        validity_of_a_hand_off_never_outlives_the_record,
        needs(&[TTL])
    ),
    case!(
        "R3.03",
        validity_is_counted_from_before_the_request,
        needs(&[TTL, Need::Fault(Fault::HoldReplies)]),
    ),
    case!(
        "R3.04",
        renewal_is_counted_from_before_its_request,
        needs(&[TTL, Need::Fault(Fault::HoldReplies)]),
    ),
    case!(
        "R3.05",
        grant_that_arrives_after_its_lease_is_not_valid,
        needs(&[TTL, Need::Fault(Fault::HoldReplies)]),
    ),
    case!(
        "R3.06",
        hand_off_that_arrives_late_is_not_valid_for_longer,
        needs(&[TTL, Need::Fault(Fault::HoldReplies)]),
    ),
    case!("R3.07", validity_keeps_a_margin_to_the_lease, needs(&[TTL])),
    case!(
        "R3.08",
        remaining_time_only_falls_without_a_renewal,
        needs(&[TTL])
    ),
    case!("R3.09", fixed_lease_ends_by_itself, needs(&[TTL])),
    case!(
        "R3.10",
        renewal_by_hand_makes_the_lease_whole,
        needs(&[TTL])
    ),
];

/// Fails if the guard believes in itself for longer than the backend's own record says.
async fn not_longer_than_the_record(a: &Client, guard: &Guard) -> Check {
    let clock = Clock::system();
    // Read before the record, so that a renewal in between can only lengthen the record.
    let local_end = clock.now() + guard.remaining();
    let state = a.inspect(guard.name().as_str()).await?;
    let after = clock.now();
    let record = state.holders.iter().find(|h| h.token == guard.token());
    let record = some(record, "the backend shows the holder")?;
    let left = some(record.remaining, "a lease that ends shows what is left")?;
    ensure(
        local_end <= after + left,
        format!(
            "the guard believes {:?} longer in itself than the backend, which has {left:?} left",
            local_end.saturating_since(after + left),
        ),
    )
}

async fn validity_never_outlives_the_backends_record(s: Stand) -> Check {
    let a = s.client().await?;
    for (label, ttl) in [("short", s.ttl()), ("long", LONG)] {
        let guard = a.hold_for(&s.name(label), ttl).await?;
        not_longer_than_the_record(&a, &guard).await?;
        guard.renew().await?;
        not_longer_than_the_record(&a, &guard).await?;
        a.give_up(guard).await?;
        let name = s.name(&format!("{label} try"));
        let guard = a.mutex(&name).ttl(s.fixed(ttl)).fixed();
        let guard = guard.try_acquire().await?;
        let guard = some(guard, "the lock is free")?;
        not_longer_than_the_record(&a, &guard).await?;
    }
    Ok(())
}

async fn validity_of_a_hand_off_never_outlives_the_record(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    for (label, ttl) in [("short", s.ttl()), ("long", LONG)] {
        let name = s.name(label);
        let held = a.hold(&name).await?;
        let waiting = tokio::spawn({
            let (b, name) = (b.clone(), name.clone());
            async move { Ok::<_, Failure>(b.hold_for(&name, ttl).await?) }
        });
        s.until_queued(&a, &name, 1).await?;
        a.give_up(held).await?;
        let guard = within(SOON, "the waiter is granted", joined(waiting)).await??;
        not_longer_than_the_record(&b, &guard).await?;
        guard.renew().await?;
        not_longer_than_the_record(&b, &guard).await?;
    }
    Ok(())
}

/// Long enough that a validity counted from the reply would show.
fn delay(s: &Stand) -> Duration {
    s.ttl() / 2
}

async fn validity_is_counted_from_before_the_request(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    let clock = Clock::system();
    s.faults().hold_replies(true).await?;
    let asking = tokio::spawn({
        let (a, name, ttl) = (a.clone(), name.clone(), s.ttl());
        async move { Ok::<_, Failure>(a.hold_fixed(&name, ttl).await?) }
    });
    s.until_state(&b, &name, "granted by the server", |state| {
        state.holders.len() == 1
    })
    .await?;
    let granted_by = clock.now();
    clock.sleep(delay(&s)).await;
    s.faults().hold_replies(false).await?;
    let guard = joined(asking).await?;
    let end = clock.now() + guard.remaining();
    ensure(
        end <= granted_by + s.ttl(),
        format!(
            "the lease was counted from its reply: {:?} too long",
            end.saturating_since(granted_by + s.ttl()),
        ),
    )
}

async fn renewal_is_counted_from_before_its_request(s: Stand) -> Check {
    let a = s.proxied_client().await?;
    let name = s.name("n");
    let clock = Clock::system();
    let guard = Arc::new(a.hold_fixed(&name, s.fixed(s.ttl() * 2)).await?);
    let ttl = guard.ttl();
    s.faults().hold_replies(true).await?;
    let renewing = tokio::spawn({
        let guard = Arc::clone(&guard);
        async move { Ok::<_, Failure>(guard.renew().await?) }
    });
    // A witness on another connection sees when the server has extended it.
    let witness = s.client().await?;
    let before = guard.remaining();
    s.until_state(&witness, &name, "extended by the server", |state| {
        let left = state.holders.first().and_then(|holder| holder.remaining);
        left.is_some_and(|left| left > before)
    })
    .await?;
    let renewed_by = clock.now();
    clock.sleep(delay(&s)).await;
    s.faults().hold_replies(false).await?;
    joined(renewing).await?;
    let end = clock.now() + guard.remaining();
    ensure(
        end <= renewed_by + ttl,
        format!(
            "the renewal was counted from its reply: {:?} too long",
            end.saturating_since(renewed_by + ttl),
        ),
    )
}

async fn grant_that_arrives_after_its_lease_is_not_valid(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    s.faults().hold_replies(true).await?;
    let asking = tokio::spawn({
        let (a, name, ttl) = (a.clone(), name.clone(), s.ttl());
        async move { a.hold_fixed(&name, ttl).await }
    });
    s.until_state(&b, &name, "granted by the server", |state| {
        state.holders.len() == 1
    })
    .await?;
    // Somebody else gets the lock once the unheard grant has expired.
    let wait = s.replaced_within(s.ttl()) + SOON;
    let other = within(wait, "replaced", b.hold(&name)).await??;
    s.faults().hold_replies(false).await?;
    // It may fail, or find out and wait in the queue; what it must not do is believe.
    s.eventually("the late grant is judged", SOON, || async {
        let queued = !b.inspect(&name).await?.waiters.is_empty();
        Ok((queued || asking.is_finished()).then_some(()))
    })
    .await?;
    if asking.is_finished() {
        let answer = asking.await;
        let answer = answer.map_err(|error| Failure::new(error.to_string()))?;
        ensure(
            !answer.is_ok_and(|guard| a.still_held(&guard)),
            "a grant was valid although it arrived after its lease and after the next grant",
        )?;
        ensure(b.still_held(&other), "the new holder holds")?;
        return released_clean(b.give_up(other).await?);
    }
    ensure(b.still_held(&other), "the new holder holds")?;
    let token = other.token();
    released_clean(b.give_up(other).await?)?;
    let guard = within(SOON, "granted in its turn", asking).await?;
    let guard = guard.map_err(|error| Failure::new(error.to_string()))??;
    ensure_growing(&[token, guard.token()])
}

async fn hand_off_that_arrives_late_is_not_valid_for_longer(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.proxied_client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { b.hold(&name).await }
    });
    s.until_queued(&a, &name, 1).await?;
    s.faults().hold_replies(true).await?;
    a.give_up(held).await?;
    let clock = Clock::system();
    clock.sleep(ms(700)).await;
    s.faults().hold_replies(false).await?;
    let guard = within(LONG / 2, "granted in the end", waiting).await?;
    let guard = guard.map_err(|error| Failure::new(error.to_string()))??;
    not_longer_than_the_record(&a, &guard).await?;
    released_clean(b.give_up(guard).await?)
}

async fn validity_keeps_a_margin_to_the_lease(s: Stand) -> Check {
    let backend = s.backend().await?;
    let clock = Clock::system();
    for (label, ttl) in [("short", s.ttl()), ("long", LONG)] {
        let claim = s.claim(label, ttl);
        let before = clock.now();
        let grant = some(backend.try_acquire(&claim).await?, "the lock is free")?;
        let after = clock.now();
        let validity = grant.validity();
        ensure(
            validity.expires_at() + ms(5) <= after + ttl,
            "no margin between the local end and the lease",
        )?;
        ensure(
            validity.free_by() >= before + ttl,
            "`free_by` is before the lease can have ended",
        )?;
        ensure(
            validity.expires_at() > before,
            "a fresh grant is valid for a while",
        )?;
    }
    Ok(())
}

async fn remaining_time_only_falls_without_a_renewal(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold_fixed(&s.name("n"), s.ttl()).await?;
    let mut last = s.ttl();
    let mut lost = Box::pin(guard.lost());
    while (&mut lost).now_or_never().is_none() {
        let now = guard.remaining();
        ensure(
            now <= last,
            format!("remaining rose from {last:?} to {now:?}"),
        )?;
        last = now;
        tokio::time::sleep(ms(5)).await;
    }
    ensure_eq(
        guard.remaining(),
        Duration::ZERO,
        "remaining of a lost lock",
    )
}

async fn fixed_lease_ends_by_itself(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold_fixed(&s.name("n"), s.ttl()).await?;
    let reason = within(s.ttl() + SOON, "the lease ends", guard.lost()).await?;
    ensure_eq(reason, LossReason::Expired, "why it ended")?;
    ensure_kind(guard.check(), &[ErrorKind::Lost], "check of an ended lease")?;
    // Gone is gone: asking again does not change the answer.
    ensure_eq(guard.lost().await, LossReason::Expired, "why, asked again")
}

async fn renewal_by_hand_makes_the_lease_whole(s: Stand) -> Check {
    let a = s.client().await?;
    let b = s.client().await?;
    let name = s.name("n");
    let ttl = s.fixed(s.kept_ttl());
    let guard = a.hold_fixed(&name, ttl).await?;
    let clock = Clock::system();
    let end = clock.now() + ttl * 2;
    while clock.now() < end {
        clock.sleep(ttl / 4).await;
        guard.renew().await?;
        ensure(a.still_held(&guard), "a renewed lease is valid")?;
        ensure(
            b.attempt(&name).await?.is_none(),
            "a renewed lock was granted",
        )?;
    }
    released_clean(a.give_up(guard).await?)
}
