//! R5: only the acquisition that holds a lock can renew or release it.

use lock_core::{Passed, Standing};

use super::prelude::*;

pub(super) const CASES: &[Entry] = &[
    case!(
        "R5.01",
        late_release_does_not_free_the_successor,
        needs(&[TTL])
    ),
    case!(
        "R5.02",
        late_drop_does_not_free_the_successor,
        needs(&[TTL])
    ),
    case!("R5.03", release_with_a_foreign_nonce_changes_nothing),
    case!("R5.04", release_is_idempotent),
    case!(
        "R5.05",
        renewal_of_an_expired_hold_does_not_revive_it,
        needs(&[TTL])
    ),
    case!("R5.06", renewal_of_a_released_hold_does_not_recreate_it),
    case!(
        "R5.07",
        renewals_of_a_batch_are_judged_each_alone,
        needs(&[TTL])
    ),
    case!(
        "R5.08",
        pass_by_one_that_holds_no_longer_disturbs_nobody,
        needs(&[TTL])
    ),
    case!("R5.09", every_acquisition_has_a_fresh_nonce),
    case!(
        "R5.10",
        same_owner_gets_the_same_hold_without_a_network_call
    ),
    case!(
        "R5.11",
        loss_hits_every_level_of_a_reentrant_hold,
        needs(&[TTL])
    ),
    case!("R5.12", inner_release_says_how_many_still_hold),
    case!("R5.13", nothing_is_reentrant_by_accident),
    case!("R5.14", owner_means_nothing_to_another_client),
    case!(
        "R5.15",
        acquire_delivered_after_its_release_leaves_no_ghost,
        needs(&[Need::Fault(Fault::HoldRequest)]),
    ),
    case!(
        "R5.16",
        enqueue_delivered_after_its_release_leaves_no_ghost,
        needs(&[Need::Fault(Fault::HoldRequest)]),
    ),
    case!(
        "R5.17",
        enqueue_delivered_after_the_lock_is_free_leaves_no_ghost,
        needs(&[Need::Fault(Fault::HoldRequest)]),
    ),
    case!(
        "R5.18",
        renewal_delivered_after_the_next_grant_changes_nothing,
        needs(&[TTL, Need::Fault(Fault::HoldRequest)]),
    ),
    case!(
        "R5.19",
        release_delivered_after_the_next_grant_changes_nothing,
        needs(&[TTL, Need::Fault(Fault::HoldRequest)]),
    ),
];

async fn late_release_does_not_free_the_successor(s: Stand) -> Check {
    let (a, b, c) = (s.client().await?, s.client().await?, s.client().await?);
    let name = s.name("n");
    let old = a.hold_fixed(&name, s.ttl()).await?;
    let new = within(s.replaced_within(s.ttl()), "replaced", b.hold(&name)).await??;
    let late = a.give_up(old).await?;
    ensure(
        matches!(late, Released::WasLost(_)),
        format!("a late release says {late:?}"),
    )?;
    // What the client sends on behalf of the old hold has been sent.
    s.until_idle(&a).await?;
    ensure(b.still_held(&new), "the successor still holds")?;
    ensure(
        c.attempt(&name).await?.is_none(),
        "a late release freed the successor",
    )?;
    ensure(
        a.attempt(&name).await?.is_none(),
        "a late release freed the successor",
    )?;
    released_clean(b.give_up(new).await?)
}

async fn late_drop_does_not_free_the_successor(s: Stand) -> Check {
    let (a, b, c) = (s.client().await?, s.client().await?, s.client().await?);
    let name = s.name("n");
    let old = a.hold_fixed(&name, s.ttl()).await?;
    let new = within(s.replaced_within(s.ttl()), "replaced", b.hold(&name)).await??;
    drop(old);
    s.until_idle(&a).await?;
    ensure(b.still_held(&new), "the successor still holds")?;
    ensure(
        c.attempt(&name).await?.is_none(),
        "a late drop freed the successor",
    )?;
    released_clean(b.give_up(new).await?)
}

async fn release_with_a_foreign_nonce_changes_nothing(s: Stand) -> Check {
    let (backend, other) = (s.backend().await?, s.backend().await?);
    let (held, foreign) = (s.claim("n", LONG), s.claim("n", LONG));
    let grant = some(backend.try_acquire(&held).await?, "the lock is free")?;
    ensure(
        !other.release(&foreign).await?,
        "a foreign nonce held the lock",
    )?;
    ensure(
        !backend.release(&foreign).await?,
        "a foreign nonce held the lock",
    )?;
    let state = backend.inspect(&held.name).await?;
    let holders: Vec<_> = state.holders.iter().map(|holder| holder.nonce).collect();
    ensure_eq(holders, vec![held.nonce], "who holds")?;
    let renewed = backend.renew(&[&grant]).await.remove(0)?;
    ensure(
        matches!(renewed, Renewal::Extended(_)),
        format!("the holder's renewal: {renewed:?}"),
    )
}

async fn release_is_idempotent(s: Stand) -> Check {
    let backend = s.backend().await?;
    let claim = s.claim("n", LONG);
    some(backend.try_acquire(&claim).await?, "the lock is free")?;
    ensure(backend.release(&claim).await?, "the first release had held")?;
    ensure(
        !backend.release(&claim).await?,
        "the second release had held too",
    )?;
    let next = s.claim("n", LONG);
    some(backend.try_acquire(&next).await?, "the lock is free")?;
    ensure(!backend.release(&claim).await?, "an old nonce held again")?;
    ensure(backend.release(&next).await?, "the holder was disturbed")
}

async fn renewal_of_an_expired_hold_does_not_revive_it(s: Stand) -> Check {
    let (backend, other) = (s.backend().await?, s.backend().await?);
    let claim = s.claim("n", s.ttl());
    let grant = some(backend.try_acquire(&claim).await?, "the lock is free")?;
    s.eventually("the lease ends", s.replaced_within(s.ttl()), || async {
        let state = other.inspect(&claim.name).await?;
        Ok(state.holders.is_empty().then_some(()))
    })
    .await?;
    let renewed = backend.renew(&[&grant]).await.remove(0)?;
    ensure_eq(renewed, Renewal::Gone, "renewing what has expired")?;
    let state = other.inspect(&claim.name).await?;
    ensure(
        state.holders.is_empty(),
        "a renewal revived an expired hold",
    )?;
    let next = s.claim("n", LONG);
    some(other.try_acquire(&next).await?, "the lock is free")?;
    let renewed = backend.renew(&[&grant]).await.remove(0)?;
    ensure_eq(renewed, Renewal::Gone, "renewing after the next grant")?;
    ensure(other.release(&next).await?, "the next holder was disturbed")
}

async fn renewal_of_a_released_hold_does_not_recreate_it(s: Stand) -> Check {
    let backend = s.backend().await?;
    let claim = s.claim("n", LONG);
    let grant = some(backend.try_acquire(&claim).await?, "the lock is free")?;
    ensure(backend.release(&claim).await?, "it was held")?;
    let renewed = backend.renew(&[&grant]).await.remove(0)?;
    ensure_eq(renewed, Renewal::Gone, "renewing what was released")?;
    let state = backend.inspect(&claim.name).await?;
    ensure(state.holders.is_empty(), "a renewal made a holder")?;
    s.at_rest(claim.name.as_str()).await
}

async fn renewals_of_a_batch_are_judged_each_alone(s: Stand) -> Check {
    let backend = s.backend().await?;
    let mut grants = Vec::new();
    for label in 0..6 {
        let claim = s.claim(&label.to_string(), LONG);
        grants.push(some(backend.try_acquire(&claim).await?, "free")?);
    }
    for gone in [1, 4] {
        backend.release(grants[gone].claim()).await?;
    }
    let all: Vec<_> = grants.iter().collect();
    let answers = backend.renew(&all).await;
    ensure_eq(answers.len(), grants.len(), "one answer for each")?;
    for (index, answer) in answers.into_iter().enumerate() {
        let gone = matches!(answer?, Renewal::Gone);
        ensure_eq(
            gone,
            index == 1 || index == 4,
            &format!("grant {index} is gone"),
        )?;
    }
    ensure(backend.renew(&[]).await.is_empty(), "no grants, no answers")
}

async fn pass_by_one_that_holds_no_longer_disturbs_nobody(s: Stand) -> Check {
    let (backend, other) = (s.backend().await?, s.backend().await?);
    let (old, next) = (s.claim("n", s.ttl()), s.claim("n", LONG));
    some(backend.try_acquire(&old).await?, "the lock is free")?;
    let successor = s.claim("n", LONG);
    s.eventually("the lease ends", s.replaced_within(s.ttl()), || async {
        other.try_acquire(&successor).await
    })
    .await?;
    let Passed {
        released,
        next: standing,
    } = backend.pass(&old, &next).await?;
    ensure(!released, "it says that it held until now")?;
    ensure(
        matches!(standing, Standing::Queued),
        format!("the next one was put in front of the holder: {standing:?}"),
    )?;
    let state = other.inspect(&old.name).await?;
    let holders: Vec<_> = state.holders.iter().map(|holder| holder.nonce).collect();
    ensure_eq(holders, vec![successor.nonce], "who holds")?;
    ensure(!backend.release(&next).await?, "the queued one held")?;
    ensure(other.release(&successor).await?, "the holder was disturbed")
}

async fn every_acquisition_has_a_fresh_nonce(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let mut nonces = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let guard = a.hold(&name).await?;
        let state = a.inspect(&name).await?;
        nonces.extend(state.holders.iter().map(|holder| holder.nonce));
        a.give_up(guard).await?;
    }
    ensure_eq(nonces.len(), 8, "different nonces of eight acquisitions")
}

async fn same_owner_gets_the_same_hold_without_a_network_call(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let owner = OwnerId::new();
    let outer = a.mutex(&name).ttl(LONG).owner(owner).acquire().await?;
    let again = || async {
        let inner = a.mutex(&name).ttl(LONG).owner(owner);
        let inner = within(SOON, "an inner acquire", inner.acquire()).await??;
        ensure_eq(
            inner.token(),
            outer.token(),
            "the token of an inner acquire",
        )?;
        let tried = a.mutex(&name).ttl(LONG).owner(owner).try_acquire().await?;
        let tried = some(tried, "an inner try is granted")?;
        ensure_eq(tried.token(), outer.token(), "the token of an inner try")?;
        ensure_eq(
            tried.release().await?,
            Released::StillHeld(2),
            "an inner release",
        )?;
        ensure_eq(
            inner.release().await?,
            Released::StillHeld(1),
            "an inner release",
        )?;
        Ok::<_, Failure>(())
    };
    if s.supports(Fault::Count) {
        let mut outcome = Ok(());
        let commands = s
            .faults()
            .commands_during(Box::pin(async { outcome = again().await }))
            .await?;
        outcome?;
        // Only that of the hold's own keeping may be among them.
        let about: Vec<_> = commands.iter().filter(|c| c.contains(&name)).collect();
        ensure(
            about.is_empty(),
            format!("commands of a re-entrant acquire: {about:?}"),
        )?;
    } else {
        again().await?;
    }
    released_clean(outer.release().await?)?;
    s.at_rest(&name).await
}

async fn loss_hits_every_level_of_a_reentrant_hold(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let owner = OwnerId::new();
    let mutex = a.mutex(&name).ttl(s.ttl()).owner(owner).fixed();
    let levels = [
        mutex.acquire().await?,
        mutex.acquire().await?,
        mutex.acquire().await?,
    ];
    for level in &levels {
        let reason = within(s.ttl() + SOON, "every level is told", level.lost()).await?;
        ensure_eq(reason, LossReason::Expired, "what each level is told")?;
        ensure_kind(level.check(), &[ErrorKind::Lost], "check of each level")?;
    }
    for level in levels {
        let late = level.release().await?;
        ensure(
            matches!(late, Released::WasLost(_)),
            format!("the release of a lost level: {late:?}"),
        )?;
    }
    // What comes after is a hold of its own.
    let next = within(s.replaced_within(s.ttl()), "free again", mutex.acquire()).await??;
    next.check()?;
    Ok(())
}

async fn inner_release_says_how_many_still_hold(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let owner = OwnerId::new();
    let mutex = a.mutex(&name).ttl(LONG).owner(owner);
    let (one, two, three) = (
        mutex.acquire().await?,
        mutex.acquire().await?,
        mutex.acquire().await?,
    );
    // In any order, not only from the inside out.
    ensure_eq(
        one.release().await?,
        Released::StillHeld(2),
        "the outermost",
    )?;
    ensure(
        b.attempt(&name).await?.is_none(),
        "free while two levels hold",
    )?;
    drop(three);
    s.eventually("the dropped level is counted off", SOON, || async {
        let guard = a.mutex(&name).ttl(LONG).owner(owner).acquire().await?;
        Ok((guard.release().await? == Released::StillHeld(1)).then_some(()))
    })
    .await?;
    ensure(
        b.attempt(&name).await?.is_none(),
        "free while one level holds",
    )?;
    released_clean(two.release().await?)?;
    let new = some(b.attempt(&name).await?, "free after the last level")?;
    ensure(
        a.mutex(&name).owner(owner).try_acquire().await?.is_none(),
        "the owner is granted what somebody else holds",
    )?;
    released_clean(b.give_up(new).await?)
}

async fn nothing_is_reentrant_by_accident(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let plain = a.hold(&name).await?;
    ensure(
        a.attempt(&name).await?.is_none(),
        "re-entrant without an owner",
    )?;
    let owned = a.mutex(&name).ttl(LONG).owner(OwnerId::new());
    ensure(
        owned.try_acquire().await?.is_none(),
        "an owner met a hold without one",
    )?;
    released_clean(a.give_up(plain).await?)?;
    let held = some(owned.try_acquire().await?, "the lock is free")?;
    ensure(
        a.attempt(&name).await?.is_none(),
        "no owner met a hold with one",
    )?;
    let other = a.mutex(&name).ttl(LONG).owner(OwnerId::new());
    ensure(
        other.try_acquire().await?.is_none(),
        "another owner was let in",
    )?;
    released_clean(held.release().await?)
}

async fn owner_means_nothing_to_another_client(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let owner = OwnerId::new();
    let held = a.mutex(&name).ttl(LONG).owner(owner).acquire().await?;
    ensure(
        b.mutex(&name)
            .ttl(LONG)
            .owner(owner)
            .try_acquire()
            .await?
            .is_none(),
        "the owner of one client was let in through another",
    )?;
    released_clean(held.release().await?)
}

/// Options with which an unanswered request is soon given up.
fn impatient(s: &Stand) -> lock_core::ClientOptions {
    s.options()
        .with_op_timeout(s.pace().op_timeout.min(secs(1)))
}

async fn acquire_delivered_after_its_release_leaves_no_ghost(s: Stand) -> Check {
    let (a, b) = (
        s.proxied_client_with(impatient(&s)).await?,
        s.client().await?,
    );
    let name = s.name("n");
    let held_back = s.faults().hold_next_request(&name).await?;
    let answer = within(
        SOON,
        "a verdict on a request without answer",
        a.attempt(&name),
    )
    .await?;
    ensure_kind(
        answer,
        &[ErrorKind::Indeterminate, ErrorKind::Unavailable],
        "a request without answer",
    )?;
    held_back.caught().await?;
    s.faults().cut().await?;
    // The client has reconnected, and has had its release confirmed.
    s.until_idle(&a).await?;
    held_back.deliver().await?;
    let state = b.inspect(&name).await?;
    ensure(
        state.holders.is_empty(),
        format!("a ghost holds: {state:#?}"),
    )?;
    s.at_rest(&name).await?;
    let guard = some(a.attempt(&name).await?, "the client itself can go on")?;
    released_clean(a.give_up(guard).await?)
}

async fn enqueue_delivered_after_its_release_leaves_no_ghost(s: Stand) -> Check {
    let (a, b) = (
        s.client().await?,
        s.proxied_client_with(impatient(&s)).await?,
    );
    let name = s.name("n");
    let holder = a.hold(&name).await?;
    let held_back = s.faults().hold_next_request(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { b.hold(&name).await }
    });
    held_back.caught().await?;
    s.faults().cut().await?;
    // The client may have asked again by the same nonce; then it is dropped with the place it has.
    s.eventually("a verdict, or a place in the queue", SOON, || async {
        let queued = !a.inspect(&name).await?.waiters.is_empty();
        Ok((queued || waiting.is_finished()).then_some(()))
    })
    .await?;
    waiting.abort();
    s.until_queued(&a, &name, 0).await?;
    s.until_idle(&b).await?;
    held_back.deliver().await?;
    let state = a.inspect(&name).await?;
    ensure(
        state.waiters.is_empty(),
        format!("a ghost waits: {state:#?}"),
    )?;
    ensure(a.still_held(&holder), "the holder was disturbed")?;
    released_clean(a.give_up(holder).await?)?;
    let state = a.inspect(&name).await?;
    ensure(
        state.holders.is_empty(),
        format!("a ghost holds: {state:#?}"),
    )?;
    s.at_rest(&name).await
}

async fn enqueue_delivered_after_the_lock_is_free_leaves_no_ghost(s: Stand) -> Check {
    let (a, b) = (
        s.client().await?,
        s.proxied_client_with(impatient(&s)).await?,
    );
    let name = s.name("n");
    let holder = a.hold(&name).await?;
    let held_back = s.faults().hold_next_request(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { b.hold(&name).await }
    });
    held_back.caught().await?;
    // The waiter is dropped while its request is under way.
    waiting.abort();
    s.until_idle(&b).await?;
    released_clean(a.give_up(holder).await?)?;
    s.faults().cut().await?;
    held_back.deliver().await?;
    let state = a.inspect(&name).await?;
    ensure(
        state.holders.is_empty() && state.waiters.is_empty(),
        format!("a ghost came back: {state:#?}"),
    )?;
    s.at_rest(&name).await
}

async fn renewal_delivered_after_the_next_grant_changes_nothing(s: Stand) -> Check {
    let (a, b) = (
        s.proxied_client_with(impatient(&s)).await?,
        s.client().await?,
    );
    let name = s.name("n");
    let ttl = s.fixed(s.ttl() * 2);
    let old = a.hold_fixed(&name, ttl).await?;
    let held_back = s.faults().hold_next_request(&name).await?;
    let answer = within(
        SOON + ttl,
        "a verdict on a renewal without answer",
        old.renew(),
    )
    .await?;
    ensure_kind(
        answer,
        &[
            ErrorKind::Indeterminate,
            ErrorKind::Unavailable,
            ErrorKind::Lost,
        ],
        "a renewal without answer",
    )?;
    held_back.caught().await?;
    let new = within(s.replaced_within(ttl) + SOON, "replaced", b.hold(&name)).await??;
    ensure(!a.still_held(&old), "the old holder believes in its lock")?;
    held_back.deliver().await?;
    let state = b.inspect(&name).await?;
    let tokens: Vec<_> = state.holders.iter().map(|holder| holder.token).collect();
    ensure_eq(tokens, vec![new.token()], "who holds")?;
    ensure(b.still_held(&new), "the new holder was disturbed")?;
    released_clean(b.give_up(new).await?)?;
    s.at_rest(&name).await
}

async fn release_delivered_after_the_next_grant_changes_nothing(s: Stand) -> Check {
    let (a, b) = (
        s.proxied_client_with(impatient(&s)).await?,
        s.client().await?,
    );
    let name = s.name("n");
    let ttl = s.ttl();
    let old = a.hold_fixed(&name, ttl).await?;
    let held_back = s.faults().hold_next_request(&name).await?;
    let releasing = tokio::spawn({
        let a = a.clone();
        async move { a.give_up(old).await }
    });
    held_back.caught().await?;
    let new = within(s.replaced_within(ttl) + SOON, "replaced", b.hold(&name)).await??;
    held_back.deliver().await?;
    let late = within(SOON, "an answer to the release", releasing).await?;
    let late = late.map_err(|error| Failure::new(error.to_string()))??;
    ensure(
        matches!(
            late,
            Released::WasLost(_) | Released::Unknown { .. } | Released::Clean
        ),
        format!("the late release says {late:?}"),
    )?;
    let state = b.inspect(&name).await?;
    let tokens: Vec<_> = state.holders.iter().map(|holder| holder.token).collect();
    ensure_eq(tokens, vec![new.token()], "who holds")?;
    ensure(b.still_held(&new), "a late release freed the successor")?;
    released_clean(b.give_up(new).await?)
}
