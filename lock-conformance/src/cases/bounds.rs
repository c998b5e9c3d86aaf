//! R9: nothing hangs, nothing guesses.

use super::prelude::*;
use super::seeded::run_seeded;
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!("R9.01", busy_is_an_answer_and_not_an_error),
    case!("R9.02", unusable_ttls_are_refused_and_send_nothing),
    case!("R9.03", closed_client_refuses_new_work),
    case!("R9.04", shutdown_sends_waiters_away),
    case!("R9.05", shutdown_drains_what_was_given_back),
    case!(
        "R9.06",
        shutdown_waits_for_guards_no_longer_than_it_was_told
    ),
    case!(
        "R9.07",
        unreachable_server_is_unavailable_in_time,
        needs(&[Need::Fault(Fault::Kill)]),
    ),
    case!(
        "R9.08",
        stopped_server_is_answered_for_in_time,
        needs(&[Need::Fault(Fault::Pause)]),
    ),
    case!(
        "R9.09",
        wrong_credentials_are_denied,
        needs(&[Need::Fault(Fault::WrongCredentials)]),
    ),
    case!(
        "R9.10",
        reply_lost_after_the_grant_leaves_no_holder,
        needs(&[Need::Fault(Fault::DropReplies)]),
    ),
    case!(
        "R9.11",
        reply_lost_after_the_enqueue_leaves_no_waiter,
        needs(&[Need::Fault(Fault::DropReplies)]),
    ),
    case!(
        "R9.12",
        unanswered_release_says_when_the_lock_is_free,
        needs(&[TTL, Need::Fault(Fault::Pause)]),
    ),
    case!(
        "R9.13",
        client_recovers_from_a_killed_server,
        needs(&[Need::Fault(Fault::Kill)]),
    ),
    case!(
        "R9.14",
        client_recovers_from_a_black_hole,
        needs(&[Need::Fault(Fault::BlackHole)]),
    ),
    case!(
        "R9.15",
        forgotten_scripts_are_no_error_at_any_time,
        needs(&[Need::Fault(Fault::FlushScripts)]),
    ),
    case!(
        "R9.16",
        queued_wait_ends_when_an_outage_lasts_too_long,
        needs(&[Need::Fault(Fault::Kill)]),
    ),
    case!(
        "R9.17",
        bounded_wait_without_an_answer_is_not_busy,
        needs(&[Need::Fault(Fault::BlackHole)]),
    ),
    case!(
        "R9.18",
        shutdown_ends_in_time_although_nobody_answers,
        needs(&[Need::Fault(Fault::Pause)]),
    ),
    case!(
        "R9.19",
        release_repeated_after_a_lost_reply_is_clean,
        needs(&[Need::Fault(Fault::DropReplies)]),
    ),
    case!(
        "R9.20",
        seeded_tries_are_answered_or_refused_and_leave_nothing,
        deadline(120)
    ),
];

/// What is said of a request that went nowhere, or nobody knows where.
const NO_ANSWER: &[ErrorKind] = &[ErrorKind::Unavailable, ErrorKind::Indeterminate];

/// The latest that an operation may end when nobody answers it.
fn bounded(s: &Stand) -> Duration {
    s.pace().op_timeout + s.slack() + secs(1)
}

/// Stops the server and lets it go on afterwards, whatever `work` comes to.
async fn while_stopped<T>(
    s: &Stand,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    s.faults().pause_server().await?;
    let outcome = work.await;
    s.faults().resume_server().await?;
    outcome
}

async fn busy_is_an_answer_and_not_an_error(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    ensure(b.attempt(&name).await?.is_none(), "a try of a held lock")?;
    let waited = within(SOON, "an end of the wait", b.hold_within(&name, ms(500)));
    ensure(waited.await??.is_none(), "a bounded wait for a held lock")?;
    released_clean(a.give_up(held).await?)
}

async fn unusable_ttls_are_refused_and_send_nothing(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    for lease in [Lease::Kept, Lease::Fixed] {
        let range = s.capabilities().ttl_of(lease);
        let mut refused = vec![Duration::ZERO];
        if let Some(range) = range {
            refused.extend(range.max.checked_add(range.step.max(ms(1))));
            refused.push(range.min / 2);
            refused.push(range.min + range.step / 2);
        }
        let accepts = |ttl: Duration| {
            !ttl.is_zero() && range.is_none_or(|range| range.refusal(ttl).is_none())
        };
        refused.retain(|ttl| !accepts(*ttl));
        for ttl in refused {
            let what = format!("a {lease:?} TTL of {ttl:?}");
            let mutex = match lease {
                Lease::Kept => a.mutex(&name).ttl(ttl),
                Lease::Fixed => a.mutex(&name).ttl(ttl).fixed(),
            };
            ensure_kind(mutex.try_acquire().await, &[ErrorKind::Invalid], &what)?;
            ensure_kind(mutex.acquire().await, &[ErrorKind::Invalid], &what)?;
            let bounded = mutex.acquire_within(ms(10)).await;
            ensure_kind(bounded, &[ErrorKind::Invalid], &what)?;
        }
    }
    s.at_rest(&name).await
}

async fn closed_client_refuses_new_work(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let report = within(SOON, "shutdown of an idle client", a.shutdown(SOON)).await??;
    ensure(
        report.is_clean(),
        format!("an idle client's report: {report:?}"),
    )?;
    let closed = &[ErrorKind::Closed];
    ensure_kind(a.attempt(&name).await, closed, "a try")?;
    ensure_kind(a.hold(&name).await, closed, "a wait")?;
    ensure_kind(a.hold_within(&name, ms(10)).await, closed, "a bounded wait")?;
    ensure_kind(a.inspect(&name).await, closed, "a look")?;
    ensure_kind(a.shutdown(SOON).await, closed, "a second shutdown")?;
    s.at_rest(&name).await
}

async fn shutdown_sends_waiters_away(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (b, name) = (b.clone(), name.clone());
            tokio::spawn(async move { b.hold(&name).await })
        })
        .collect();
    s.until_queued(&a, &name, 1).await?;
    let report = within(SOON, "shutdown", b.shutdown(SOON)).await??;
    ensure(
        report.is_clean(),
        format!("what it left behind: {report:?}"),
    )?;
    for task in waiting {
        let answer = within(SOON, "every waiter is sent away", task).await?;
        let answer = answer.map_err(|error| Failure::new(error.to_string()))?;
        ensure_kind(answer, &[ErrorKind::Closed], "what a waiter is told")?;
    }
    s.until_queued(&a, &name, 0).await?;
    ensure(a.still_held(&held), "another client was disturbed")?;
    released_clean(a.give_up(held).await?)?;
    s.at_rest(&name).await
}

async fn shutdown_drains_what_was_given_back(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let mut names = Vec::new();
    for label in 0..30 {
        let name = s.name(&label.to_string());
        drop(a.hold(&name).await?);
        names.push(name);
    }
    let report = within(SOON, "shutdown", a.shutdown(SOON)).await??;
    ensure(
        report.is_clean(),
        format!("what it left behind: {report:?}"),
    )?;
    // From the moment it has returned everything is free: no second look.
    for name in &names {
        let guard = b.attempt(name).await?;
        drop(some(
            guard,
            "what was given back before a shutdown is free after it",
        )?);
    }
    Ok(())
}

async fn shutdown_waits_for_guards_no_longer_than_it_was_told(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    let (report, took) = timed(a.shutdown(ms(300))).await;
    let report = report?;
    ensure_eq(report.still_held, 1, "locks that were still held")?;
    ensure(
        took >= ms(300),
        format!("it did not wait for guards: {took:?}"),
    )?;
    ensure(took <= bounded(&s) + ms(300), format!("it took {took:?}"))?;
    ensure_kind(
        guard.check(),
        &[ErrorKind::Lost],
        "a guard of a closed client",
    )?;
    ensure_kind(
        guard.renew().await,
        NOT_RENEWED,
        "renewing with a closed client",
    )?;
    let (released, took) = timed(guard.release()).await;
    ensure(took <= bounded(&s), "a release with a closed client hangs")?;
    ensure(
        !matches!(released, Ok(Released::Clean)),
        "a release with a closed client says that it was clean",
    )
}

const NOT_RENEWED: &[ErrorKind] = &[ErrorKind::Lost, ErrorKind::Closed];

async fn unreachable_server_is_unavailable_in_time(s: Stand) -> Check {
    let a = s.client().await?;
    let guard = a.hold(&s.name("warm")).await?;
    a.give_up(guard).await?;
    s.faults().kill_server().await?;
    let (opened, took) = timed(s.client()).await;
    ensure_kind(opened.map(drop), &[ErrorKind::Unavailable], "connecting")?;
    ensure(took <= bounded(&s), format!("connecting took {took:?}"))?;
    for round in 0..3 {
        let name = s.name(&round.to_string());
        let (tried, took) = timed(a.attempt(&name)).await;
        ensure_kind(tried, NO_ANSWER, "a try")?;
        ensure(took <= bounded(&s), format!("a try took {took:?}"))?;
        let (waited, took) = timed(a.hold(&name)).await;
        ensure_kind(waited, NO_ANSWER, "a wait that was never queued")?;
        ensure(took <= bounded(&s), format!("a wait took {took:?}"))?;
    }
    Ok(())
}

async fn stopped_server_is_answered_for_in_time(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    // It ends meanwhile, and is cleaned up when its TTL is over, which is long before the end.
    let held = a.hold_for(&s.name("held"), s.kept_ttl()).await?;
    while_stopped(&s, async {
        let (opened, took) = timed(s.client()).await;
        ensure_kind(opened.map(drop), &[ErrorKind::Unavailable], "connecting")?;
        ensure(took <= bounded(&s), format!("connecting took {took:?}"))?;
        let (tried, took) = timed(a.attempt(&name)).await;
        ensure_kind(tried, NO_ANSWER, "a try")?;
        ensure(took <= bounded(&s), format!("a try took {took:?}"))?;
        let (looked, took) = timed(a.inspect(&name)).await;
        ensure_kind(looked, NO_ANSWER, "a look")?;
        ensure(took <= bounded(&s), format!("a look took {took:?}"))?;
        let (asked, took) = timed(a.hold(&name)).await;
        ensure_kind(asked, NO_ANSWER, "a wait that never reached the server")?;
        ensure(took <= bounded(&s), format!("a wait took {took:?}"))?;
        let (renewed, took) = timed(held.renew()).await;
        ensure(renewed.is_err(), "a renewal that nobody answered is good")?;
        ensure(took <= bounded(&s), format!("a renewal took {took:?}"))?;
        if s.capabilities().list {
            let (listed, took) = timed(a.list("", Cursor::default())).await;
            ensure_kind(listed, NO_ANSWER, "a list")?;
            ensure(took <= bounded(&s), format!("a list took {took:?}"))?;
        }
        if s.capabilities().break_hold {
            let (broken, took) = timed(a.break_hold(held.name(), held.token())).await;
            ensure_kind(broken, NO_ANSWER, "a break")?;
            ensure(took <= bounded(&s), format!("a break took {took:?}"))?;
        }
        Ok(())
    })
    .await?;
    drop(held);
    // Whatever was sent is executed now; the client undoes it.
    s.until_idle(&a).await?;
    s.at_rest(&name).await
}

async fn wrong_credentials_are_denied(s: Stand) -> Check {
    let connect = s.faults().wrong_credentials()?;
    let (opened, took) = timed(lock_core::Locks::open(connect, s.options())).await;
    let error = ensure_kind(opened.map(drop), &[ErrorKind::Denied], "connecting")?;
    ensure(
        !error.is_retryable(),
        "a denial is said to be worth a retry",
    )?;
    ensure(took <= bounded(&s), format!("it took {took:?}"))
}

async fn reply_lost_after_the_grant_leaves_no_holder(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    s.faults().drop_replies(true).await?;
    let asking = tokio::spawn({
        let (a, name) = (a.clone(), name.clone());
        async move { a.attempt(&name).await }
    });
    s.until_state(&b, &name, "granted by the server", |state| {
        state.holders.len() == 1
    })
    .await?;
    let (answer, took) = timed(asking).await;
    let answer = answer.map_err(|error| Failure::new(error.to_string()))?;
    ensure_kind(
        answer,
        &[ErrorKind::Indeterminate],
        "a grant that nobody heard of",
    )?;
    ensure(took <= bounded(&s), format!("the verdict took {took:?}"))?;
    s.faults().drop_replies(false).await?;
    // By the client's own cleanup: the TTL is a minute.
    s.at_rest(&name).await?;
    s.until_idle(&a).await?;
    let guard = some(a.attempt(&name).await?, "the client itself can go on")?;
    released_clean(a.give_up(guard).await?)
}

async fn reply_lost_after_the_enqueue_leaves_no_waiter(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.proxied_client().await?);
    let name = s.name("n");
    let held = a.hold(&name).await?;
    s.faults().drop_replies(true).await?;
    let asking = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { b.hold(&name).await }
    });
    s.until_queued(&a, &name, 1).await?;
    let answer = within(bounded(&s) + SOON, "a verdict", asking).await?;
    let answer = answer.map_err(|error| Failure::new(error.to_string()))?;
    ensure_kind(answer, NO_ANSWER, "a place that nobody heard of")?;
    s.faults().drop_replies(false).await?;
    s.until_queued(&a, &name, 0).await?;
    released_clean(a.give_up(held).await?)?;
    s.at_rest(&name).await
}

async fn unanswered_release_says_when_the_lock_is_free(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let clock = Clock::system();
    // A lease that the outage does not outlast.
    let ttl = s.fixed((s.ttl() + bounded(&s) * 2).max(SOON));
    let guard = a.hold_fixed(&name, ttl).await?;
    let free_by = while_stopped(&s, async {
        let (released, took) = timed(a.give_up(guard)).await;
        ensure(
            took <= bounded(&s),
            format!("an unanswered release took {took:?}"),
        )?;
        match released? {
            Released::Unknown { free_by } => Ok(free_by),
            other => Err(Failure::new(format!("an unanswered release: {other:?}"))),
        }
    })
    .await?;
    let guard = within(SOON + ttl, "granted in the end", b.hold(&name)).await??;
    // The background release may have been faster, never later.
    ensure(
        clock.now() <= free_by + s.slack() + s.capabilities().expiry_slack + secs(2),
        "the lock was still taken after the time that the release named",
    )?;
    released_clean(b.give_up(guard).await?)
}

async fn client_recovers_from_a_killed_server(s: Stand) -> Check {
    let a = s.client().await?;
    for round in 0..2 {
        let name = s.name(&round.to_string());
        s.faults().kill_server().await?;
        ensure_kind(a.attempt(&name).await, NO_ANSWER, "a try of a dead server")?;
        s.faults().restart_server().await?;
        let guard = s
            .eventually("granted after the restart", SOON, || a.attempt(&name))
            .await?;
        released_clean(a.give_up(guard).await?)?;
        s.until_idle(&a).await?;
    }
    Ok(())
}

async fn client_recovers_from_a_black_hole(s: Stand) -> Check {
    let a = s.proxied_client().await?;
    let name = s.name("n");
    let guard = a.hold(&s.name("warm")).await?;
    released_clean(a.give_up(guard).await?)?;
    s.faults().black_hole(true).await?;
    let (tried, took) = timed(a.attempt(&name)).await;
    ensure_kind(tried, NO_ANSWER, "a try into a black hole")?;
    ensure(took <= bounded(&s), format!("it took {took:?}"))?;
    s.faults().black_hole(false).await?;
    let guard = s
        .eventually("granted after the outage", SOON, || a.attempt(&name))
        .await?;
    released_clean(a.give_up(guard).await?)?;
    s.until_idle(&a).await?;
    s.at_rest(&name).await
}

async fn forgotten_scripts_are_no_error_at_any_time(s: Stand) -> Check {
    let name = s.name("n");
    let clients = [s.client().await?, s.client().await?, s.client().await?];
    let mut running = Vec::new();
    // Several tasks of a client pass the lock on, and take each other's place.
    for client in clients.iter().cycle().take(clients.len() * 3) {
        let (client, name) = (client.clone(), name.clone());
        running.push(tokio::spawn(async move {
            for _ in 0..14 {
                let guard = client.hold(&name).await?;
                guard.renew().await?;
                released_clean(client.give_up(guard).await?)?;
            }
            Ok::<_, Failure>(())
        }));
    }
    while !running.iter().all(tokio::task::JoinHandle::is_finished) {
        s.faults().flush_scripts().await?;
        tokio::task::yield_now().await;
    }
    for task in running {
        joined(task).await?;
    }
    history::check_all(&s.recorder().events())?;
    s.at_rest(&name).await
}

async fn queued_wait_ends_when_an_outage_lasts_too_long(s: Stand) -> Check {
    let limit = secs(2);
    let b = s.client_with(s.options().with_outage_limit(limit)).await?;
    let a = s.client().await?;
    let name = s.name("n");
    let _held = a.hold(&name).await?;
    let waiting = tokio::spawn({
        let (b, name) = (b.clone(), name.clone());
        async move { b.hold(&name).await }
    });
    s.until_queued(&a, &name, 1).await?;
    s.until_heard(&b, &name).await?;
    s.faults().kill_server().await?;
    let (answer, took) = timed(within(limit + bounded(&s) + SOON, "a verdict", waiting)).await;
    let answer = answer?.map_err(|error| Failure::new(error.to_string()))?;
    ensure_kind(
        answer,
        &[ErrorKind::Unavailable],
        "a wait through a long outage",
    )?;
    ensure(
        took + s.slack() >= limit,
        format!("given up after {took:?}, before the outage limit of {limit:?}"),
    )
}

async fn bounded_wait_without_an_answer_is_not_busy(s: Stand) -> Check {
    let a = s.proxied_client().await?;
    let name = s.name("n");
    s.faults().black_hole(true).await?;
    let wait = ms(200);
    let (answer, took) = timed(a.hold_within(&name, wait)).await;
    ensure_kind(answer, NO_ANSWER, "a bounded wait into a black hole")?;
    ensure(
        took <= wait + s.slack() + secs(1),
        format!("a wait of {wait:?} took {took:?}"),
    )?;
    s.faults().black_hole(false).await?;
    s.at_rest(&name).await
}

async fn shutdown_ends_in_time_although_nobody_answers(s: Stand) -> Check {
    let a = s.client().await?;
    for label in 0..5 {
        drop(a.hold(&s.name(&label.to_string())).await?);
    }
    let kept = a.hold(&s.name("kept")).await?;
    s.until_state(&a, &s.name("4"), "given back", |state| {
        state.holders.is_empty()
    })
    .await?;
    while_stopped(&s, async {
        drop(kept);
        let limit = ms(500);
        let (report, took) = timed(a.shutdown(limit)).await;
        let report = report?;
        ensure(
            !report.is_clean(),
            "a release without an answer counts as done",
        )?;
        ensure(
            took <= limit + bounded(&s) + secs(1),
            format!("a shutdown within {limit:?} took {took:?}"),
        )
    })
    .await
}

async fn release_repeated_after_a_lost_reply_is_clean(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    s.faults().drop_replies(true).await?;
    let releasing = tokio::spawn({
        let a = a.clone();
        async move { a.give_up(guard).await }
    });
    s.until_state(&b, &name, "released by the server", |state| {
        state.holders.is_empty()
    })
    .await?;
    s.faults().drop_replies(false).await?;
    s.faults().cut().await?;
    let released = within(bounded(&s) + SOON, "an answer", releasing).await?;
    let released = released.map_err(|error| Failure::new(error.to_string()))??;
    // Executed once, asked twice: the second answer, "not yours", is no loss.
    ensure(
        matches!(released, Released::Clean | Released::Unknown { .. }),
        format!("a release whose reply was lost: {released:?}"),
    )?;
    s.until_idle(&a).await?;
    s.at_rest(&name).await
}

async fn seeded_tries_are_answered_or_refused_and_leave_nothing(s: Stand) -> Check {
    run_seeded(s, Kind::Tries).await
}
