//! R8: dropping anything at any moment leaves nothing behind.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;

use async_trait::async_trait;
use lock_core::{Backend, Connect, Locks};

use super::prelude::*;
use super::seeded::{draws, run_seeded};
use crate::workload::Kind;

pub(super) const CASES: &[Entry] = &[
    case!("R8.01", acquire_dropped_at_every_poll_leaves_nothing),
    case!("R8.02", wait_dropped_at_every_poll_leaves_nothing),
    case!("R8.03", acquire_dropped_at_any_moment_leaves_nothing),
    case!(
        "R8.04",
        raw_acquire_dropped_at_every_poll_is_undone_by_its_release
    ),
    case!("R8.05", guard_dropped_outside_of_a_runtime_is_given_back),
    case!(
        "R8.06",
        guard_dropped_on_the_last_thread_of_a_runtime_is_given_back
    ),
    case!("R8.07", guard_dropped_while_unwinding_is_given_back),
    case!("R8.08", guard_of_an_aborted_task_is_given_back),
    case!("R8.09", dropped_release_goes_on),
    case!("R8.10", dropped_renewal_leaves_the_hold_alone),
    case!("R8.11", guard_outlives_its_client),
    case!("R8.12", client_outlives_the_runtime_it_was_opened_on),
    case!("R8.13", wait_dropped_while_it_is_granted_leaves_nothing),
    case!("R8.14", connect_dropped_at_every_poll_leaves_nothing),
    case!(
        "R8.15",
        grant_that_arrives_when_its_caller_has_gone_is_given_back,
        needs(&[Need::Fault(Fault::HoldReplies)]),
    ),
    case!(
        "R8.16",
        seeded_waits_that_end_at_random_leave_nothing,
        deadline(120)
    ),
];

/// Polls `future` at most `polls` times, each time after it asked for it; `None` if that was not
/// enough to finish it.
async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn acquire_dropped_at_every_poll_leaves_nothing(s: Stand) -> Check {
    let a = s.client().await?;
    for polls in 0..50 {
        let name = s.name(&polls.to_string());
        let finished = polled(a.mutex(&name).ttl(LONG).acquire(), polls).await;
        let granted = match finished {
            Some(guard) => {
                released_clean(guard?.release().await?)?;
                true
            }
            None => false,
        };
        s.at_rest(&name).await?;
        if granted {
            return s.until_idle(&a).await;
        }
    }
    Err(Failure::new("a free lock was not granted in fifty polls"))
}

async fn wait_dropped_at_every_poll_leaves_nothing(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    for polls in 0..6 {
        let name = s.name(&polls.to_string());
        let held = a.hold(&name).await?;
        // A wait asks to be polled when something has happened; a bounded one does for certain.
        let wait = b.mutex(&name).ttl(LONG);
        let finished = polled(wait.acquire_within(ms(300)), polls).await;
        if let Some(guard) = finished {
            ensure(guard?.is_none(), "a held lock was granted")?;
        }
        s.until_queued(&a, &name, 0).await?;
        // And one that certainly stands in the queue when it is dropped.
        let mutex = b.mutex(&name).ttl(LONG);
        let mut wait = Box::pin(async move { mutex.acquire().await });
        ensure_pending(&mut wait, "a wait for a held lock")?;
        s.until_queued(&a, &name, 1).await?;
        drop(wait);
        s.until_queued(&a, &name, 0).await?;
        ensure(a.still_held(&held), "the holder was disturbed")?;
        released_clean(a.give_up(held).await?)?;
        s.at_rest(&name).await?;
    }
    s.until_idle(&b).await
}

async fn acquire_dropped_at_any_moment_leaves_nothing(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let mut rng = draws(&s)?;
    for round in 0..60 {
        let name = s.name(&(round % 4).to_string());
        let (mine, other) = (a.mutex(&name).ttl(LONG), b.mutex(&name).ttl(LONG));
        let patience = Duration::from_micros(rng.u64(0..3000));
        // A guard that it gets in time is dropped at once.
        let doomed = async { drop(tokio::time::timeout(patience, mine.acquire()).await) };
        let lucky = async { tokio::time::timeout(SOON, other.acquire()).await };
        let ((), lucky) = tokio::join!(doomed, lucky);
        let lucky = lucky.map_err(|_| Failure::new("a dropped acquire blocks the others"))??;
        drop(lucky);
    }
    for label in 0..4 {
        s.at_rest(&s.name(&label.to_string())).await?;
    }
    s.until_idle(&a).await?;
    s.until_idle(&b).await
}

async fn raw_acquire_dropped_at_every_poll_is_undone_by_its_release(s: Stand) -> Check {
    let backend = s.backend().await?;
    for held in [false, true] {
        for polls in 0..12 {
            let label = format!("{held} {polls}");
            let holder = s.claim(&label, LONG);
            if held {
                some(backend.try_acquire(&holder).await?, "the lock is free")?;
            }
            let claim = s.claim(&label, LONG);
            let limited = tokio::time::timeout(ms(100), polled(backend.acquire(&claim), polls));
            let finished = matches!(limited.await, Ok(Some(Ok(_))));
            ensure(!(finished && held), "a held lock was granted")?;
            let had = backend.release(&claim).await?;
            ensure(had || !finished, "a granted nonce did not hold")?;
            ensure(!backend.release(&claim).await?, "the nonce came back")?;
            let state = backend.inspect(&claim.name).await?;
            ensure(state.waiters.is_empty(), "a dropped waiter is in the queue")?;
            ensure_eq(state.holders.len(), usize::from(held), "holders")?;
            if held {
                ensure(backend.release(&holder).await?, "the holder was disturbed")?;
            }
        }
    }
    Ok(())
}

async fn guard_dropped_outside_of_a_runtime_is_given_back(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    let dropping = thread::spawn(move || drop(guard));
    let joining = tokio::task::spawn_blocking(move || dropping.join().is_ok());
    let fine = within(SOON, "the drop does not block", joining).await?;
    ensure(fine.unwrap_or(false), "dropping a guard panicked")?;
    s.at_rest(&name).await?;
    s.until_idle(&a).await
}

async fn guard_dropped_on_the_last_thread_of_a_runtime_is_given_back(s: Stand) -> Check {
    let name = s.name("n");
    let program = thread::spawn({
        let (s, name) = (s.clone(), name.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let a = s.client().await?;
                let guard = a.hold(&name).await?;
                // Owned by a task that never ends: dropped when the runtime is.
                tokio::spawn(async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                });
                tokio::task::yield_now().await;
                Ok::<_, Failure>(())
            })?;
            drop(runtime);
            Ok::<_, Failure>(())
        }
    });
    let joining = tokio::task::spawn_blocking(move || program.join());
    let joined = within(SOON, "the runtime ends", joining).await?;
    joined
        .map_err(|error| Failure::new(error.to_string()))?
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    s.at_rest(&name).await
}

async fn guard_dropped_while_unwinding_is_given_back(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    let panicking = tokio::spawn(async move {
        let _guard = guard;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    let ended = within(SOON, "the panic ends the task", panicking).await?;
    ensure(
        ended.is_err_and(|error| error.is_panic()),
        "the task panicked",
    )?;
    s.at_rest(&name).await?;
    s.until_idle(&a).await
}

async fn guard_of_an_aborted_task_is_given_back(s: Stand) -> Check {
    let a = s.client().await?;
    let name = s.name("n");
    let (tell, told) = tokio::sync::oneshot::channel();
    let task = tokio::spawn({
        let (a, name) = (a.clone(), name.clone());
        async move {
            let guard = a.hold(&name).await;
            // The case may have failed meanwhile.
            let _ = tell.send(());
            std::future::pending::<()>().await;
            drop(guard);
        }
    });
    within(SOON, "the task holds", told)
        .await?
        .map_err(|_| Failure::new("the task ended"))?;
    task.abort();
    s.at_rest(&name).await?;
    s.until_idle(&a).await
}

async fn dropped_release_goes_on(s: Stand) -> Check {
    let a = s.client().await?;
    for polls in 0..4 {
        let name = s.name(&polls.to_string());
        let guard = a.hold(&name).await?;
        if let Some(released) = polled(guard.release(), polls).await {
            released_clean(released?)?;
        }
        s.at_rest(&name).await?;
    }
    s.until_idle(&a).await
}

async fn dropped_renewal_leaves_the_hold_alone(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let guard = a.hold(&name).await?;
    for polls in 0..4 {
        if let Some(renewed) = polled(guard.renew(), polls).await {
            renewed?;
        }
        ensure(a.still_held(&guard), "a dropped renewal ended the hold")?;
        ensure(b.attempt(&name).await?.is_none(), "a held lock was granted")?;
    }
    released_clean(a.give_up(guard).await?)?;
    s.at_rest(&name).await
}

async fn guard_outlives_its_client(s: Stand) -> Check {
    let b = s.client().await?;
    let name = s.name("n");
    let guard = {
        let a = s.client().await?;
        a.hold_for(&name, s.kept_ttl()).await?
    };
    let end = Clock::system().now() + s.kept_ttl() * 2;
    while Clock::system().now() < end {
        guard.check()?;
        ensure(b.attempt(&name).await?.is_none(), "a held lock was granted")?;
        tokio::time::sleep(s.ttl() / 10).await;
    }
    released_clean(guard.release().await?)?;
    s.at_rest(&name).await
}

async fn client_outlives_the_runtime_it_was_opened_on(s: Stand) -> Check {
    let name = s.name("n");
    let opening = thread::spawn({
        let s = s.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok::<_, Failure>(runtime.block_on(s.client())?)
        }
    });
    let opening = tokio::task::spawn_blocking(move || opening.join());
    let opened = within(SOON, "the client is opened", opening).await?;
    let a = opened
        .map_err(|error| Failure::new(error.to_string()))?
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let guard = within(
        SOON,
        "granted on another runtime",
        a.hold_for(&name, s.kept_ttl()),
    );
    let guard = guard.await??;
    Clock::system().sleep(s.kept_ttl() * 2).await;
    ensure(a.still_held(&guard), "lost on another runtime")?;
    released_clean(a.give_up(guard).await?)?;
    s.at_rest(&name).await
}

async fn wait_dropped_while_it_is_granted_leaves_nothing(s: Stand) -> Check {
    let (a, b) = (s.client().await?, s.client().await?);
    let name = s.name("n");
    let mut rng = draws(&s)?;
    for _ in 0..30 {
        let held = within(SOON, "free again", a.hold(&name)).await??;
        let waiting = tokio::spawn({
            let (b, name) = (b.clone(), name.clone());
            async move { drop(b.hold(&name).await) }
        });
        s.until_queued(&a, &name, 1).await?;
        // Released and dropped at once: whichever the client hears of first.
        let pause = Duration::from_micros(rng.u64(0..800));
        let (released, ()) = tokio::join!(a.give_up(held), async {
            tokio::time::sleep(pause).await;
            waiting.abort();
        });
        released_clean(released?)?;
    }
    s.at_rest(&name).await?;
    s.until_idle(&b).await
}

/// A connector that remembers, without keeping them, the backends that it has made.
#[derive(Clone, Debug)]
struct Remembering {
    inner: Arc<dyn Connect>,
    made: Arc<Mutex<Vec<Weak<dyn Backend>>>>,
}

impl Remembering {
    fn new(inner: Box<dyn Connect>) -> Self {
        Self {
            inner: inner.into(),
            made: Arc::default(),
        }
    }

    /// Whether it has made so many, and all of them are gone.
    fn all_gone(&self, count: usize) -> bool {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.len() == count && made.iter().all(|made| made.strong_count() == 0)
    }
}

#[async_trait]
impl Connect for Remembering {
    async fn connect(&self, context: lock_core::Context) -> lock_core::Result<Arc<dyn Backend>> {
        let backend = self.inner.connect(context).await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(Arc::downgrade(&backend));
        Ok(backend)
    }
}

async fn connect_dropped_at_every_poll_leaves_nothing(s: Stand) -> Check {
    // First polled by hand, without a runtime: `open` must not need one.
    let connect = Remembering::new(s.connector());
    let mut open = Box::pin(Locks::open(connect.clone(), s.options()));
    let first = open.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop((first, open));
    for polls in 1..4 {
        drop(polled(Locks::open(connect.clone(), s.options()), polls).await);
    }
    // Each goes on to connect; a client that nobody got is closed then, and its backend with it.
    let gone = || async { Ok(connect.all_gone(4).then_some(())) };
    s.eventually("every dropped client has come and gone", SOON, gone)
        .await?;
    let a = s.client().await?;
    let guard = a.hold(&s.name("n")).await?;
    released_clean(a.give_up(guard).await?)
}

async fn grant_that_arrives_when_its_caller_has_gone_is_given_back(s: Stand) -> Check {
    let (a, b) = (s.proxied_client().await?, s.client().await?);
    for tries in [false, true] {
        let name = s.name(if tries { "try" } else { "wait" });
        s.faults().hold_replies(true).await?;
        let asking = tokio::spawn({
            let (a, name) = (a.clone(), name.clone());
            async move {
                if tries {
                    drop(a.attempt(&name).await);
                } else {
                    drop(a.hold(&name).await);
                }
            }
        });
        let granted = s.until_state(&b, &name, "granted by the server", |state| {
            state.holders.len() == 1
        });
        if tries {
            // It may look first, and ask only when it has seen something: then its caller has gone before
            // it asks.
            let _ = tokio::time::timeout(ms(300), granted).await;
        } else {
            granted.await?;
        }
        asking.abort();
        // Its future is dropped before its answer comes.
        ensure(asking.await.is_err(), "a request ended without its answer")?;
        s.faults().hold_replies(false).await?;
        s.at_rest(&name).await?;
    }
    s.until_idle(&a).await
}

async fn seeded_waits_that_end_at_random_leave_nothing(s: Stand) -> Check {
    run_seeded(s, Kind::Timeouts).await
}
