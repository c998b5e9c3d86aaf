//! R2: tokens grow with every grant.

use lock_core::{MemoryGate, Replaced, Standing};

use super::clocks::tokens_grow_while_the_clients_wall_clocks_jump;
use super::failover::{
    token_protects_across_a_failover_that_forgot_the_holder, tokens_grow_across_a_failover,
};
use super::prelude::*;
use super::record::every_grant_stands_in_the_backends_own_record;
use super::seeded::{run_seeded, run_unfenced};
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!("R2.01", tokens_grow_from_grant_to_grant),
    case!("R2.02", tokens_grow_across_expiry, needs(&[TTL])),
    case!("R2.03", tokens_grow_across_clients_that_come_and_go),
    case!("R2.04", tokens_grow_across_hand_offs),
    case!("R2.05", token_does_not_change_during_a_hold),
    case!("R2.06", tokens_fit_what_is_declared),
    case!("R2.07", fence_base_lifts_every_token),
    case!("R2.08", real_time_order_is_token_order),
    case!("R2.09", tokens_grow_after_a_break, needs(&[BREAK])),
    case!(
        "R2.10",
        gate_refuses_the_holder_that_was_replaced,
        needs(&[TTL])
    ),
    case!("R2.11", grant_that_is_replaced_gets_a_larger_token),
    case!(
        "R2.12",
        tokens_grow_across_a_server_restart,
        needs(&[Need::Fault(Fault::Kill)]),
    ),
    case!(
        "R2.13",
        tokens_grow_through_a_backward_step_of_the_servers_clock,
        needs(&[Need::Fault(Fault::StepClock)]),
    ),
    case!(
        "R2.14",
        tokens_grow_across_a_loss_of_data,
        needs(&[Need::Fault(Fault::Wipe)]),
    ),
    case!(
        "R2.15",
        seeded_writers_past_their_lease_lose_no_update_behind_a_fence,
        needs(&[TTL]),
        deadline(120)
    ),
    case!(
        "R2.16",
        seeded_writers_past_their_lease_lose_updates_without_a_fence,
        needs(&[TTL]),
        deadline(120)
    ),
    case!(
        "R2.20",
        tokens_grow_across_a_failover,
        needs(&[Need::Fault(Fault::Failover)]),
        deadline(120)
    ),
    case!(
        "R2.21",
        token_protects_across_a_failover_that_forgot_the_holder,
        needs(&[
            Need::Fault(Fault::Failover),
            Need::Fault(Fault::StopReplication)
        ]),
    ),
    case!(
        "R2.22",
        tokens_grow_while_the_clients_wall_clocks_jump,
        needs(&[Need::Processes]),
    ),
    case!(
        "R2.23",
        every_grant_stands_in_the_backends_own_record,
        needs(&[Need::Processes, CRASH, Need::Fault(Fault::Witness)]),
        alone(),
        deadline(120)
    ),
];

async fn tokens_grow_from_grant_to_grant(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let mut tokens = Vec::new();
    for round in 0..20 {
        let client = if round % 3 == 0 { &a } else { &b };
        let guard = match round % 2 {
            0 => client.hold(&name).await?,
            _ => some(client.attempt(&name).await?, "the lock is free")?,
        };
        tokens.push(guard.token());
        client.give_up(guard).await?;
    }
    ensure_growing(&tokens)
}

async fn tokens_grow_across_expiry(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let mut tokens = Vec::new();
    let mut expired = Vec::new();
    for client in [&a, &b, &a] {
        // Each waits for the lease of the one before to end.
        let wait = s.replaced_within(s.ttl());
        let guard = within(
            wait,
            "an expired lease is replaced",
            client.hold_fixed(&name, s.ttl()),
        );
        let guard = guard.await??;
        tokens.push(guard.token());
        expired.push(guard);
    }
    ensure_growing(&tokens)
}

async fn tokens_grow_across_clients_that_come_and_go(s: Stand) -> Check {
    let name = s.name("n");
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let client = s.client().await?;
        let guard = client.hold(&name).await?;
        tokens.push(guard.token());
        client.give_up(guard).await?;
        client.shutdown(SOON).await?;
    }
    ensure_growing(&tokens)
}

async fn tokens_grow_across_hand_offs(s: Stand) -> Check {
    let clients = [s.client().await?, s.client().await?, s.client().await?];
    let name = s.name("n");
    let first = clients[0].hold(&name).await?;
    let mut tokens = vec![first.token()];
    let mut waiting = Vec::new();
    for client in clients.iter().cycle().take(6) {
        let (client, name) = (client.clone(), name.clone());
        waiting.push(tokio::spawn(async move {
            let guard = client.hold(&name).await?;
            let (token, at) = (guard.token(), Clock::system().now());
            client.give_up(guard).await?;
            Ok::<_, Failure>((at, token))
        }));
    }
    // The tasks of the holder's own client stand in line locally.
    s.until_queued(&clients[0], &name, clients.len() - 1)
        .await?;
    clients[0].give_up(first).await?;
    let mut grants = Vec::new();
    for task in waiting {
        grants.push(joined(task).await?);
    }
    grants.sort_by_key(|(at, _)| *at);
    tokens.extend(grants.into_iter().map(|(_, token)| token));
    ensure_growing(&tokens)
}

async fn token_does_not_change_during_a_hold(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let owner = OwnerId::new();
    let guard = a.mutex(&name).ttl(LONG).owner(owner).acquire().await?;
    let token = guard.token();
    for _ in 0..3 {
        guard.renew().await?;
        ensure_eq(guard.token(), token, "the token after a renewal")?;
        let inner = a.mutex(&name).owner(owner).acquire().await?;
        ensure_eq(inner.token(), token, "the token of an inner guard")?;
        let state = a.inspect(&name).await?;
        let shown: Vec<_> = state.holders.iter().map(|holder| holder.token).collect();
        ensure_eq(shown, vec![token], "the token that an operator sees")?;
    }
    Ok(())
}

async fn tokens_fit_what_is_declared(s: Stand) -> Check {
    let a = s.client().await?;
    let largest = s.capabilities().largest_token;
    ensure(
        largest <= FencingToken::MAX.get(),
        format!("the declared largest token {largest} does not fit SQL's BIGINT"),
    )?;
    for label in 0..5 {
        let guard = a.hold(&s.name(&label.to_string())).await?;
        let token = guard.token().get();
        ensure(
            token > 0 && token <= largest,
            format!("token {token} is not within 1..={largest}"),
        )?;
    }
    Ok(())
}

async fn fence_base_lifts_every_token(s: Stand) -> Check {
    let largest = s.capabilities().largest_token;
    let base = largest / 2;
    let name = s.name("n");
    let plain = s.client().await?;
    let guard = plain.hold(&name).await?;
    let mut tokens = vec![guard.token()];
    plain.give_up(guard).await?;
    let lifted = s.client_with(s.options().with_fence_base(base)).await?;
    for _ in 0..3 {
        let guard = lifted.hold(&name).await?;
        ensure(
            guard.token().get() > base,
            format!("token {} is not above the base {base}", guard.token()),
        )?;
        tokens.push(guard.token());
        lifted.give_up(guard).await?;
    }
    // A client without the base must not fall back below what has been granted.
    let guard = plain.hold(&name).await?;
    tokens.push(guard.token());
    ensure_growing(&tokens)
}

async fn real_time_order_is_token_order(s: Stand) -> Check {
    let name = s.name("n");
    let mut running = Vec::new();
    for _ in 0..4 {
        let client = s.client().await?;
        let name = name.clone();
        running.push(tokio::spawn(async move {
            for _ in 0..25 {
                let guard = client.hold(&name).await?;
                client.give_up(guard).await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in running {
        joined(task).await?;
    }
    history::check_tokens(&s.recorder().events())?;
    Ok(())
}

async fn tokens_grow_after_a_break(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let guard = a.hold(&name).await?;
        tokens.push(guard.token());
        ensure(
            b.break_hold(&name, guard.token()).await?,
            "a hold can be broken",
        )?;
        within(SOON, "the victim is told", guard.lost()).await?;
    }
    let guard = b.hold(&name).await?;
    tokens.push(guard.token());
    ensure_growing(&tokens)
}

async fn gate_refuses_the_holder_that_was_replaced(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let gate = MemoryGate::new();
    let old = a.hold_fixed(&name, s.ttl()).await?;
    gate.admit_now(&name, old.token())?;
    let new = within(s.replaced_within(s.ttl()), "replaced", b.hold(&name)).await??;
    gate.admit_now(&name, new.token())?;
    gate.admit_now(&name, new.token())?;
    ensure_kind(
        gate.admit_now(&name, old.token()),
        &[ErrorKind::Lost],
        "the write of a replaced holder",
    )?;
    Ok(())
}

async fn grant_that_is_replaced_gets_a_larger_token(s: Stand) -> Check {
    let backend = s.backend().await?;
    let (old, next) = (s.claim("n", LONG), s.claim("n", LONG));
    let grant = some(backend.try_acquire(&old).await?, "the lock is free")?;
    match backend.replace(&old, &next).await? {
        Replaced::Now(Standing::Granted(new)) => {
            ensure_growing(&[grant.token(), new.token()])?;
            ensure_eq(new.claim().nonce, next.nonce, "whose grant it is")?;
            ensure(
                backend.release(&next).await?,
                "the replaced grant can be released",
            )?;
        }
        // A backend may also say that there is no waiter to replace; then the grant stands.
        Replaced::Gone => {
            ensure(backend.release(&old).await?, "the old grant stands")?;
        }
        Replaced::Now(Standing::Queued) => {
            return Err(Failure::new(
                "a grant was replaced by a place in the queue, behind nobody",
            ));
        }
    }
    Ok(())
}

async fn tokens_grow_across_a_server_restart(s: Stand) -> Check {
    let name = s.name("n");
    let mut tokens = Vec::new();
    let a = s.client().await?;
    let guard = a.hold(&name).await?;
    tokens.push(guard.token());
    a.give_up(guard).await?;
    for _ in 0..2 {
        s.faults().kill_server().await?;
        s.faults().restart_server().await?;
        // Both one that remembers the old token and one that has never seen it.
        for client in [&a, &s.client().await?] {
            let guard = s
                .eventually("granted after the restart", SOON * 2, || async {
                    client.attempt(&name).await
                })
                .await?;
            tokens.push(guard.token());
            client.give_up(guard).await?;
        }
    }
    ensure_growing(&tokens)
}

async fn tokens_grow_through_a_backward_step_of_the_servers_clock(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let mut tokens = Vec::new();
    for step in [0, -3600, -7200, 3600, -86_400] {
        s.faults().step_clock(step).await?;
        for client in [&a, &b] {
            let guard = within(SOON, "granted whatever the clock says", client.hold(&name));
            let guard = guard.await??;
            tokens.push(guard.token());
            released_clean(client.give_up(guard).await?)?;
        }
    }
    ensure_growing(&tokens)
}

async fn tokens_grow_across_a_loss_of_data(s: Stand) -> Check {
    let name = s.name("n");
    let mut tokens = Vec::new();
    let a = s.client().await?;
    for _ in 0..3 {
        for client in [&a, &s.client().await?] {
            let guard = within(SOON, "the lock is free", client.hold(&name)).await??;
            tokens.push(guard.token());
            released_clean(client.give_up(guard).await?)?;
        }
        s.faults().wipe().await?;
    }
    ensure_growing(&tokens)
}

async fn seeded_writers_past_their_lease_lose_no_update_behind_a_fence(s: Stand) -> Check {
    run_seeded(s, Kind::Register).await
}

async fn seeded_writers_past_their_lease_lose_updates_without_a_fence(s: Stand) -> Check {
    run_unfenced(s, Kind::Register).await
}
