//! R11: what is declared holds, what is not declared is refused.

use lock_core::{Cursor, FenceStrength, Guarantee, LockName, Mode};

use super::prelude::*;

pub(super) const CASES: &[Entry] = &[
    case!("R11.01", declarations_do_not_contradict_each_other),
    case!("R11.02", declarations_are_the_same_for_every_connection),
    case!("R11.03", require_accepts_what_is_declared_and_nothing_else),
    case!("R11.04", undeclared_modes_are_unsupported),
    case!("R11.05", undeclared_listing_is_unsupported),
    case!("R11.06", undeclared_break_is_unsupported),
    case!("R11.07", shortest_and_longest_ttl_are_kept, needs(&[TTL])),
    case!("R11.08", longest_name_is_kept),
];

async fn declarations_do_not_contradict_each_other(s: Stand) -> Check {
    let caps = s.capabilities();
    ensure(!caps.backend.is_empty(), "the backend has no name")?;
    ensure(
        (1..=LockName::MAX_BYTES).contains(&caps.name_max),
        format!("longest name: {}", caps.name_max),
    )?;
    ensure(
        (1..=FencingToken::MAX.get()).contains(&caps.largest_token),
        format!("largest token: {}", caps.largest_token),
    )?;
    for range in [Lease::Kept, Lease::Fixed]
        .into_iter()
        .filter_map(|lease| caps.ttl_of(lease))
    {
        ensure(!range.min.is_zero(), "a TTL of zero is declared")?;
        ensure(
            range.min <= range.max,
            "the shortest TTL is above the longest",
        )?;
        ensure(!range.step.is_zero(), "a TTL step of zero is declared")?;
        ensure(
            range.refusal(range.min).is_none() && range.refusal(range.max).is_none(),
            "the ends of the TTL range are no multiples of its step",
        )?;
        ensure(
            range.refusal(s.ttl()).is_none(),
            "the harness' pace is outside of the TTL range",
        )?;
    }
    if caps.ttl.is_none() {
        ensure(caps.claim_window.is_none(), "a claim window without leases")?;
    }
    ensure(
        !caps.linearizable || caps.fence == FenceStrength::Linearizable,
        "exclusion survives failures, but tokens do not",
    )
}

async fn declarations_are_the_same_for_every_connection(s: Stand) -> Check {
    let a = s.client().await?;
    let (first, second) = (s.backend().await?, s.backend().await?);
    let wanted = format!("{:?}", first.capabilities());
    ensure_eq(
        format!("{:?}", second.capabilities()),
        wanted.clone(),
        "another",
    )?;
    ensure_eq(
        format!("{:?}", a.capabilities()),
        wanted.clone(),
        "the client's",
    )?;
    let guard = a.hold(&s.name("n")).await?;
    a.give_up(guard).await?;
    ensure_eq(format!("{:?}", a.capabilities()), wanted, "after some work")
}

async fn require_accepts_what_is_declared_and_nothing_else(s: Stand) -> Check {
    let a = s.client().await?;
    for wanted in [
        Guarantee::Linearizable,
        Guarantee::Fifo,
        Guarantee::CrossProcess,
        Guarantee::CrossHost,
        Guarantee::Expiry,
    ] {
        let answer = (*a).clone().require(wanted);
        if s.capabilities().promises(wanted) {
            answer?;
        } else {
            ensure_kind(answer, &[ErrorKind::Unsupported], &format!("{wanted}"))?;
        }
    }
    Ok(())
}

async fn undeclared_modes_are_unsupported(s: Stand) -> Check {
    let backend = s.backend().await?;
    let caps = s.capabilities();
    for (mode, declared) in [
        (Mode::Shared, caps.shared),
        (Mode::Permit { of: 3 }, caps.permits),
    ] {
        if declared {
            continue;
        }
        let claim = || s.claim(&format!("{mode:?}"), LONG).with_mode(mode);
        let unsupported = &[ErrorKind::Unsupported];
        ensure_kind(backend.try_acquire(&claim()).await, unsupported, "a try")?;
        let waited = within(SOON, "an answer", async { backend.acquire(&claim()).await });
        ensure_kind(waited.await?, unsupported, "a wait")?;
        s.at_rest(claim().name.as_str()).await?;
    }
    Ok(())
}

async fn undeclared_listing_is_unsupported(s: Stand) -> Check {
    let a = s.client().await?;
    let listed = a.list("", Cursor::default()).await;
    match s.capabilities().list {
        true => listed.map(drop).map_err(Into::into),
        false => ensure_kind(listed, &[ErrorKind::Unsupported], "a listing").map(drop),
    }
}

async fn undeclared_break_is_unsupported(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let old = a.hold(&name).await?;
    let stale = old.token();
    a.give_up(old).await?;
    let guard = a.hold(&name).await?;
    let broken = a.break_hold(&name, stale).await;
    match s.capabilities().break_hold {
        true => ensure(!broken?, "a hold with another token was broken")?,
        false => drop(ensure_kind(broken, &[ErrorKind::Unsupported], "a break")?),
    }
    released_clean(a.give_up(guard).await?)
}

async fn shortest_and_longest_ttl_are_kept(s: Stand) -> Check {
    let a = s.client().await?;
    let range = some(s.capabilities().ttl_of(Lease::Fixed), "leases that end")?;
    let longest = a.mutex(s.name("longest")).ttl(range.max).fixed();
    let guard = longest.acquire().await?;
    ensure(
        guard.remaining() > (range.max - range.max / 20).saturating_sub(secs(5)),
        format!("{:?} are left of {:?}", guard.remaining(), range.max),
    )?;
    let state = a.inspect(s.name("longest")).await?;
    let shown = state.holders.first().and_then(|holder| holder.remaining);
    let shown = some(shown, "the backend shows what is left")?;
    ensure(shown <= range.max, format!("the backend keeps {shown:?}"))?;
    released_clean(guard.release().await?)?;
    // Too short to be of use, but it must end, and must not end with an error of the backend's.
    let name = s.name("shortest");
    match a.mutex(&name).ttl(range.min).fixed().try_acquire().await {
        Ok(guard) => drop(guard),
        Err(error) => ensure(
            matches!(
                error.kind(),
                ErrorKind::Unavailable | ErrorKind::Indeterminate | ErrorKind::Lost
            ),
            format!("the shortest TTL of {:?}: {error:?}", range.min),
        )?,
    }
    let wait = s.replaced_within(range.min) + SOON;
    drop(within(wait, "free again", a.hold(&name)).await??);
    Ok(())
}

async fn longest_name_is_kept(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let start = s.name("");
    let fill = s.capabilities().name_max - start.len();
    let name = format!("{start}{}", "z".repeat(fill));
    let guard = a.hold(&name).await?;
    ensure(b.attempt(&name).await?.is_none(), "it does not exclude")?;
    ensure_eq(guard.name().as_str(), name.as_str(), "its name")?;
    released_clean(a.give_up(guard).await?)
}
