//! Connections that only one side believes in, and requests that are lost on the way.

use super::prelude::*;

pub(super) async fn connection_that_only_the_holder_believes_in_makes_no_second_holder(
    s: Stand,
) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold_for(&name, s.kept_ttl()).await?;
    s.faults().half_open(true).await?;
    let end = Clock::system().now() + s.kept_ttl() + s.pace().op_timeout * 2;
    // Kept or lost, but never both: who checks as valid after another was granted has two holders.
    while Clock::system().now() < end {
        if let Some(new) = b.attempt(&name).await? {
            ensure(!a.still_held(&guard), "two holders")?;
            ensure(
                guard.lost().now_or_never().is_some(),
                "lost() has not resolved although the next holder was granted",
            )?;
            b.give_up(new).await?;
            break;
        }
        tokio::time::sleep(ms(10)).await;
    }
    s.faults().half_open(false).await?;
    // Whatever became of its hold, its client has found the way back.
    let kept = a.still_held(&guard);
    let late = within(SOON, "a release afterwards", a.give_up(guard)).await??;
    ensure(
        matches!(late, Released::Clean) == kept,
        format!("kept: {kept}, and its release: {late:?}"),
    )?;
    let again = within(SOON, "the client goes on", a.hold(&name)).await??;
    released_clean(a.give_up(again).await?)?;
    s.at_rest(&name).await
}

pub(super) async fn hold_is_renewed_on_the_next_connection(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold_for(&name, s.kept_ttl()).await?;
    let (token, lease) = (guard.token(), guard.remaining());
    for _ in 0..2 {
        s.faults().cut().await?;
        // If nothing renews it on the connection after that, it ends in this time.
        let end = Clock::system().now() + lease * 5 / 4;
        while Clock::system().now() < end {
            ensure(a.still_held(&guard), "lost after a cut connection")?;
            ensure(b.attempt(&name).await?.is_none(), "granted to another")?;
            tokio::time::sleep(ms(20)).await;
        }
    }
    ensure_eq(guard.token(), token, "the token of the hold")?;
    released_clean(a.give_up(guard).await?)?;
    s.at_rest(&name).await
}

pub(super) async fn lost_request_costs_a_bounded_delay_and_leaves_nothing(s: Stand) -> Check {
    let a = s.proxied_client().await?;
    for nth in 1..=4 {
        let name = s.name(&nth.to_string());
        s.faults().drop_nth_request(nth).await?;
        let asked = within(SOON * 2, "an answer", a.hold_within(&name, SOON)).await?;
        match asked {
            Ok(Some(guard)) => {
                let released = within(SOON, "a release", a.give_up(guard)).await?;
                if let Err(error) = released {
                    ensure(error.is_retryable(), format!("{error:?}"))?;
                }
            }
            Ok(None) => return Err(Failure::new("a lost request was taken for a place")),
            Err(error) => ensure(error.is_retryable(), format!("{error:?}"))?,
        }
        s.faults().drop_nth_request(0).await?;
        s.at_rest(&name).await?;
    }
    Ok(())
}
