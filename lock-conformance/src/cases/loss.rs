//! R4: a holder is told of its loss, before anybody else is granted the lock.

use std::thread;

use super::compaction::holder_is_told_of_a_break_after_a_compaction;
use super::halfway::connection_that_only_the_holder_believes_in_makes_no_second_holder;
use super::prelude::*;
use super::seeded::run_seeded;
use super::sessions::holder_is_told_that_its_session_was_ended;
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!("R4.01", loss_is_told_before_the_next_grant, needs(&[TTL])),
    case!(
        "R4.02",
        any_number_of_tasks_can_wait_for_the_loss,
        needs(&[TTL])
    ),
    case!("R4.03", release_resolves_the_loss_as_released),
    case!("R4.04", victim_of_a_break_is_told, needs(&[BREAK])),
    case!(
        "R4.05",
        break_with_another_token_changes_nothing,
        needs(&[BREAK])
    ),
    case!(
        "R4.06",
        run_stops_its_work_when_the_lock_is_lost,
        needs(&[TTL])
    ),
    case!(
        "R4.07",
        run_hands_over_what_finished_after_the_loss,
        needs(&[TTL])
    ),
    case!("R4.08", run_answers_its_work_and_keeps_the_lock),
    case!("R4.09", lost_guard_cannot_be_renewed, needs(&[TTL])),
    case!(
        "R4.10",
        forgotten_guard_ends_at_the_longest_hold,
        needs(&[TTL])
    ),
    case!(
        "R4.11",
        guard_is_kept_alive_while_the_programs_runtime_is_blocked,
        needs(&[TTL]),
    ),
    case!(
        "R4.12",
        holder_learns_of_its_loss_while_the_server_is_stopped,
        needs(&[TTL, Need::Fault(Fault::Pause)]),
    ),
    case!(
        "R4.13",
        holder_learns_of_its_loss_on_a_connection_without_answers,
        needs(&[TTL, Need::Fault(Fault::BlackHole)]),
    ),
    case!(
        "R4.14",
        holder_is_told_that_the_server_has_forgotten_it,
        needs(&[TTL, Need::Fault(Fault::Wipe)]),
    ),
    case!(
        "R4.15",
        seeded_holders_that_are_stopped_learn_of_their_loss,
        needs(&[TTL]),
        deadline(120)
    ),
    case!(
        "R4.20",
        holder_is_told_that_its_session_was_ended,
        needs(&[TTL, Need::Fault(Fault::KillSession)]),
    ),
    case!(
        "R4.21",
        holder_is_told_of_a_break_after_a_compaction,
        needs(&[
            BREAK,
            Need::Fault(Fault::Compact),
            Need::Fault(Fault::Cut),
            Need::Fault(Fault::BlackHole)
        ]),
    ),
    case!(
        "R4.22",
        connection_that_only_the_holder_believes_in_makes_no_second_holder,
        needs(&[TTL, Need::Fault(Fault::HalfOpen)]),
    ),
];

async fn loss_is_told_before_the_next_grant(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    for _ in 0..3 {
        let old = a.hold_fixed(&name, s.ttl()).await?;
        let mut lost = Box::pin(old.lost());
        ensure_pending(&mut lost, "lost() of a fresh guard")?;
        let wait = s.replaced_within(s.ttl());
        let new = within(wait, "an expired holder is replaced", b.hold(&name)).await??;
        // This is the moment after the next grant: everything must have been told already.
        ensure(
            !a.still_held(&old),
            "a replaced guard still checks as valid",
        )?;
        ensure(
            (&mut lost).now_or_never().is_some(),
            "lost() has not resolved although the next holder was granted",
        )?;
        b.give_up(new).await?;
    }
    history::check_validity(&s.recorder().events())?;
    Ok(())
}

async fn any_number_of_tasks_can_wait_for_the_loss(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold_fixed(&s.name("n"), s.ttl()).await?;
    let waiting: Vec<_> = (0..50).map(|_| tokio::spawn(guard.lost())).collect();
    for task in waiting {
        let reason = within(s.ttl() + SOON, "every waiter is told", task).await?;
        let reason = reason.map_err(|error| Failure::new(error.to_string()))?;
        ensure_eq(reason, LossReason::Expired, "what each is told")?;
    }
    Ok(())
}

async fn release_resolves_the_loss_as_released(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    let (before, other) = (tokio::spawn(guard.lost()), guard.lost());
    a.give_up(guard).await?;
    let told = within(SOON, "told of the release", before).await?;
    let told = told.map_err(|error| Failure::new(error.to_string()))?;
    ensure_eq(told, LossReason::Released, "what a release says")?;
    ensure_eq(other.await, LossReason::Released, "what it says afterwards")
}

async fn victim_of_a_break_is_told(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    ensure(b.break_hold(&name, guard.token()).await?, "it was broken")?;
    let reason = within(SOON, "the victim is told", guard.lost()).await?;
    ensure(
        matches!(reason, LossReason::Broken | LossReason::NotHeld),
        format!("what the victim is told: {reason:?}"),
    )?;
    ensure_kind(guard.check(), &[ErrorKind::Lost], "check of a broken lock")?;
    let new = some(b.attempt(&name).await?, "a broken lock is free")?;
    let late = a.give_up(guard).await?;
    ensure(
        matches!(late, Released::WasLost(_)),
        format!("the victim's release: {late:?}"),
    )?;
    ensure(
        b.still_held(&new),
        "the victim's release freed its successor",
    )?;
    ensure(
        a.attempt(&name).await?.is_none(),
        "the victim's release freed its successor",
    )
}

async fn break_with_another_token_changes_nothing(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let old = a.hold(&name).await?;
    let stale = old.token();
    a.give_up(old).await?;
    let guard = a.hold(&name).await?;
    ensure(
        !b.break_hold(&name, stale).await?,
        "a stale token broke a hold",
    )?;
    ensure(a.still_held(&guard), "the holder still holds")?;
    ensure(b.attempt(&name).await?.is_none(), "the lock was granted")?;
    a.give_up(guard).await?;
    ensure(!b.break_hold(&name, stale).await?, "a free lock was broken")
}

async fn run_stops_its_work_when_the_lock_is_lost(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold_fixed(&s.name("n"), s.ttl()).await?;
    let outcome = within(
        s.ttl() + SOON,
        "run ends with the lease",
        guard.run(std::future::pending::<()>()),
    )
    .await?;
    let error = outcome.err();
    let error = some(error, "work that never ends was reported as done")?;
    ensure_eq(error.reason, LossReason::Expired, "why run ended")?;
    ensure(error.output.is_none(), "an output out of nowhere")
}

async fn run_hands_over_what_finished_after_the_loss(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold_fixed(&s.name("n"), s.ttl()).await?;
    let (clock, end) = (Clock::system(), Clock::system().now() + s.ttl() * 2);
    // Work that blocks its thread past the lease: it cannot be stopped, and it does finish.
    let outcome = guard
        .run(async {
            while clock.now() < end {
                thread::sleep(ms(10));
            }
            42
        })
        .await;
    let error = some(outcome.err(), "the loss was not noticed")?;
    ensure_eq(error.output, Some(42), "what the work had come to")?;
    let again = guard.run(async { 1 }).await;
    let error = some(again.err(), "run on a lost lock")?;
    ensure_eq(error.output, None, "work was started on a lost lock")
}

async fn run_answers_its_work_and_keeps_the_lock(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    let output = guard.run(async { "done" }).await;
    ensure_eq(output.ok(), Some("done"), "what run answers")?;
    ensure(b.attempt(&name).await?.is_none(), "run released the lock")?;
    released_clean(a.give_up(guard).await?)
}

async fn lost_guard_cannot_be_renewed(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold_fixed(&name, s.ttl()).await?;
    within(s.ttl() + SOON, "the lease ends", guard.lost()).await?;
    ensure_kind(
        guard.renew().await,
        &[ErrorKind::Lost],
        "renewing what is lost",
    )?;
    let new = within(s.replaced_within(s.ttl()), "free for others", b.hold(&name)).await??;
    ensure_kind(
        guard.renew().await,
        &[ErrorKind::Lost],
        "renewing what is lost",
    )?;
    ensure(b.still_held(&new), "the new holder was disturbed")
}

async fn forgotten_guard_ends_at_the_longest_hold(s: Stand) -> Check {
    let longest = s.kept_ttl() * 2;
    let a = s.client_with(s.options().with_max_hold(longest)).await?;
    let b = s.client().await?;
    let name = s.name("n");
    let clock = Clock::system();
    let began = clock.now();
    let forgotten = a.hold_for(&name, s.kept_ttl()).await?;
    let wait = longest + s.replaced_within(s.kept_ttl()) + SOON;
    let _new = within(wait, "a forgotten lock is replaced", b.hold(&name)).await??;
    ensure(
        clock.now() + s.kept_ttl() >= began + longest,
        "the lock was lost long before its longest hold",
    )?;
    ensure_kind(forgotten.check(), &[ErrorKind::Lost], "the forgotten guard")?;
    Ok(())
}

async fn guard_is_kept_alive_while_the_programs_runtime_is_blocked(s: Stand) -> Check {
    let b = s.client().await?;
    let name = s.name("n");
    let blocked = s.kept_ttl() * 3;
    let (tell, told) = tokio::sync::oneshot::channel();
    let program = thread::spawn({
        let (s, name) = (s.clone(), name.clone());
        move || {
            // A program with one thread, and that one computes and never awaits.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let a = s.client().await?;
                let guard = a.hold_for(&name, s.kept_ttl()).await?;
                let token = guard.token();
                // The case may have failed meanwhile.
                let _ = tell.send(());
                thread::sleep(blocked);
                ensure(a.still_held(&guard), "lost while the program was busy")?;
                ensure_eq(guard.token(), token, "the token after being busy")?;
                released_clean(a.give_up(guard).await?)
            })
        }
    });
    within(SOON, "the program holds the lock", told)
        .await?
        .map_err(|_| Failure::new("the program did not get the lock"))?;
    let end = Clock::system().now() + (blocked - s.kept_ttl() / 2);
    while Clock::system().now() < end {
        ensure(
            b.attempt(&name).await?.is_none(),
            "the lock of a program that is busy was granted to another",
        )?;
        tokio::time::sleep(ms(20)).await;
    }
    tokio::task::spawn_blocking(move || program.join())
        .await
        .map_err(|error| Failure::new(error.to_string()))?
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn holder_learns_of_its_loss_while_the_server_is_stopped(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold_for(&name, s.ttl()).await?;
    s.faults().pause_server().await?;
    let told = within(
        s.ttl() + SOON,
        "told of the loss by its own clock",
        guard.lost(),
    )
    .await;
    let resumed = s.faults().resume_server().await;
    ensure_eq(told?, LossReason::Expired, "why it was lost")?;
    resumed?;
    ensure_kind(guard.check(), &[ErrorKind::Lost], "check after the loss")?;
    let wait = s.replaced_within(s.ttl()) + SOON;
    let new = within(wait, "the next holder is granted", b.hold(&name)).await??;
    ensure_growing(&[guard.token(), new.token()])?;
    ensure(b.still_held(&new), "the new holder holds")
}

async fn holder_learns_of_its_loss_on_a_connection_without_answers(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    let old = a.hold_for(&name, s.ttl()).await?;
    s.faults().black_hole(true).await?;
    let wait = s.replaced_within(s.ttl()) + SOON;
    let new = within(wait, "a holder that is cut off is replaced", b.hold(&name)).await??;
    ensure(
        !a.still_held(&old),
        "a holder that is cut off believes in its lock after the next grant",
    )?;
    ensure(
        old.lost().now_or_never().is_some(),
        "lost() has not resolved although the next holder was granted",
    )?;
    s.faults().black_hole(false).await?;
    let late = within(SOON, "a release after the outage", a.give_up(old)).await??;
    ensure(
        matches!(late, Released::WasLost(_)),
        format!("the release of a lost lock: {late:?}"),
    )?;
    ensure(b.still_held(&new), "the late release freed the successor")?;
    let third = s.client().await?;
    ensure(
        third.attempt(&name).await?.is_none(),
        "the late release freed the successor",
    )
}

async fn holder_is_told_that_the_server_has_forgotten_it(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let guard = a.hold_for(&name, s.ttl() * 2).await?;
    s.faults().wipe().await?;
    let reason = within(s.ttl() * 2 + SOON, "the holder is told", guard.lost()).await?;
    ensure_eq(reason, LossReason::NotHeld, "why it was lost")?;
    let late = a.give_up(guard).await?;
    ensure(
        matches!(late, Released::WasLost(_)),
        format!("the release of what the server forgot: {late:?}"),
    )?;
    s.at_rest(&name).await
}

async fn seeded_holders_that_are_stopped_learn_of_their_loss(s: Stand) -> Check {
    run_seeded(s, Kind::Paused).await
}
