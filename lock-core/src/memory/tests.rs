//! The rules one by one. `model.rs` drives random schedules through them.

mod model;

use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::clock::ManualClock;
use crate::grant::{Standing, Validity};
use crate::owner::{Identity, Nonce};

const TTL: Duration = Duration::from_secs(10);

/// A store, its clients and the hand that moves their clock.
struct World {
    hand: ManualClock,
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        Self {
            hand: ManualClock::new(),
            store: MemoryStore::new(),
        }
    }

    fn context(&self) -> Context {
        let mut context = Context::new(Identity::of_this_process("test"));
        context.clock = self.hand.clock();
        context
    }

    fn client(&self) -> Arc<dyn Backend> {
        ready(self.store.connect(self.context())).expect("connects")
    }

    fn remembered(&self) -> usize {
        self.store.table().remembered()
    }
}

/// What a call answers that does not wait.
fn ready<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("answers at once")
}

fn name(text: &str) -> LockName {
    LockName::new(text).expect("a good name")
}

fn claim_of(text: &str) -> Claim {
    Claim::new(name(text), Identity::of_this_process("test"), TTL)
}

fn claim() -> Claim {
    claim_of("a")
}

fn hold(client: &Arc<dyn Backend>, claim: &Claim) -> Grant {
    ready(client.try_acquire(claim))
        .expect("no error")
        .expect("free")
}

/// Puts a waiter into the queue, and lets its future fall.
fn enqueue(client: &Arc<dyn Backend>, claim: &Claim) {
    assert!(client.acquire(claim).now_or_never().is_none(), "it waits");
    assert_eq!(claim.progress.reach(), Reach::Queued);
}

fn holder(client: &Arc<dyn Backend>) -> Option<Nonce> {
    let state = ready(client.inspect(&name("a"))).expect("looks");
    state.holders.first().map(|holder| holder.nonce)
}

fn queue(client: &Arc<dyn Backend>) -> Vec<Nonce> {
    let state = ready(client.inspect(&name("a"))).expect("looks");
    state.waiters.iter().map(|waiter| waiter.nonce).collect()
}

fn release(client: &Arc<dyn Backend>, claim: &Claim) -> bool {
    ready(client.release(claim)).expect("releases")
}

#[tokio::test]
async fn waiters_are_served_in_order_and_tokens_grow() {
    let world = World::new();
    let client = world.client();
    let claims = [claim(), claim(), claim(), claim()];
    let mut last = hold(&client, &claims[0]).token();
    let mut waits: Vec<_> = claims[1..].iter().map(|c| client.acquire(c)).collect();
    for wait in &mut waits {
        assert!(futures_util::poll!(wait).is_pending());
    }
    for (holder, wait) in claims.iter().zip(&mut waits) {
        assert!(release(&client, holder));
        let grant = wait.now_or_never().expect("its turn").expect("granted");
        assert!(grant.token() > last);
        last = grant.token();
    }
}

#[tokio::test]
async fn hand_off_grants_the_whole_ttl_from_its_instant() {
    let world = World::new();
    let client = world.client();
    let (first, second) = (claim(), claim());
    hold(&client, &first);
    enqueue(&client, &second);
    world.hand.advance(Duration::from_secs(3));
    release(&client, &first);
    let at = world.hand.clock().now();
    world.hand.advance(Duration::from_secs(1));
    let grant = ready(client.acquire(&second)).expect("granted");
    let later = at + Duration::from_secs(1);
    assert_eq!(grant.validity(), Validity::new(at, later, TTL));
    assert!(!grant.is_provisional());
}

#[tokio::test]
async fn waiter_is_woken_exactly_when_the_lease_in_front_ends() {
    let world = World::new();
    let (dead, alive) = (world.client(), world.client());
    hold(&dead, &claim());
    let next = claim();
    let wait = tokio::spawn(async move { alive.acquire(&next).await });
    tokio::task::yield_now().await;
    world.hand.advance(TTL - Duration::from_nanos(1));
    tokio::task::yield_now().await;
    assert!(!wait.is_finished());
    world.hand.advance(Duration::from_nanos(1));
    let grant = wait.await.expect("no panic").expect("granted");
    let now = world.hand.clock().now();
    assert_eq!(grant.validity(), Validity::new(now, now, TTL));
}

#[tokio::test]
async fn waiter_behind_a_dead_one_with_a_short_ttl_is_woken_at_its_end() {
    let world = World::new();
    let (dead, alive) = (world.client(), world.client());
    let first = claim();
    hold(&dead, &first);
    let mut short = claim();
    short.ttl = Duration::from_secs(1);
    enqueue(&dead, &short);
    let next = claim();
    let wait = tokio::spawn(async move { alive.acquire(&next).await });
    tokio::task::yield_now().await;
    release(&dead, &first);
    tokio::task::yield_now().await;
    world.hand.advance(Duration::from_secs(1));
    wait.await.expect("no panic").expect("granted");
}

#[tokio::test]
async fn renewed_lease_keeps_its_waiter_waiting_and_its_token() {
    let world = World::new();
    let client = world.client();
    let (first, second) = (claim(), claim());
    let grant = hold(&client, &first);
    enqueue(&client, &second);
    for _ in 0..5 {
        world.hand.advance(TTL * 2 / 3);
        let now = world.hand.clock().now();
        let renewals = ready(client.renew(&[&grant]));
        assert_eq!(
            *renewals[0].as_ref().expect("answers"),
            Renewal::Extended(Validity::new(now, now, TTL))
        );
    }
    assert_eq!(hold(&client, &first).token(), grant.token());
    assert_eq!(queue(&client), [second.nonce]);
}

#[test]
fn renewal_after_the_end_is_gone_before_anybody_noticed_and_stays_gone() {
    let world = World::new();
    let client = world.client();
    let grant = hold(&client, &claim());
    world.hand.advance(TTL);
    for _ in 0..2 {
        let renewals = ready(client.renew(&[&grant]));
        assert_eq!(*renewals[0].as_ref().expect("answers"), Renewal::Gone);
    }
    assert_eq!(world.remembered(), 0);
}

#[test]
fn each_grant_of_a_batch_is_judged_alone() {
    let world = World::new();
    let client = world.client();
    let (old, young) = (hold(&client, &claim_of("a")), claim_of("b"));
    world.hand.advance(TTL / 2);
    let young = hold(&client, &young);
    world.hand.advance(TTL / 2);
    let renewals = ready(client.renew(&[&old, &young]));
    assert_eq!(*renewals[0].as_ref().expect("answers"), Renewal::Gone);
    assert!(matches!(renewals[1], Ok(Renewal::Extended(_))));
}

#[test]
fn late_release_does_not_free_the_successor() {
    let world = World::new();
    let client = world.client();
    let (first, second) = (claim(), claim());
    hold(&client, &first);
    world.hand.advance(TTL);
    hold(&client, &second);
    assert!(!release(&client, &first));
    assert_eq!(holder(&client), Some(second.nonce));
}

#[test]
fn release_answers_once_that_it_held() {
    let world = World::new();
    let client = world.client();
    let held = claim();
    hold(&client, &held);
    assert!(release(&client, &held));
    assert!(!release(&client, &held));
}

#[test]
fn try_is_refused_while_somebody_holds_and_is_answered_again_for_its_own_hold() {
    let world = World::new();
    let (one, other) = (world.client(), world.client());
    let (first, second) = (claim(), claim());
    let grant = hold(&one, &first);
    assert!(ready(other.try_acquire(&second)).expect("busy").is_none());
    assert_eq!(hold(&one, &first).token(), grant.token());
    release(&one, &first);
    hold(&other, &second);
}

#[test]
fn replaced_waiter_leaves_its_place_to_the_next() {
    let world = World::new();
    let client = world.client();
    let (first, second, third, next) = (claim(), claim(), claim(), claim());
    hold(&client, &first);
    enqueue(&client, &second);
    enqueue(&client, &third);
    for _ in 0..2 {
        let replaced = ready(client.replace(&second, &next)).expect("replaces");
        assert!(matches!(replaced, Replaced::Now(Standing::Queued)));
        assert_eq!(queue(&client), [next.nonce, third.nonce]);
    }
    release(&client, &first);
    ready(client.acquire(&next)).expect("attached");
    assert!(ready(client.acquire(&second)).is_err());
}

#[test]
fn replacing_a_waiter_that_was_granted_gives_the_next_a_grant_of_its_own() {
    let world = World::new();
    let client = world.client();
    let (granted, behind, next) = (claim(), claim(), claim());
    let before = hold(&client, &granted).token();
    enqueue(&client, &behind);
    let replaced = ready(client.replace(&granted, &next)).expect("replaces");
    let Replaced::Now(Standing::Granted(grant)) = replaced else {
        panic!("{replaced:?}");
    };
    assert!(grant.token() > before);
    assert_eq!(grant.claim().nonce, next.nonce);
    assert_eq!(queue(&client), [behind.nonce]);
    assert!(!release(&client, &granted));
}

#[test]
fn replacing_nobody_puts_nobody_anywhere() {
    let world = World::new();
    let client = world.client();
    let (gone, next) = (claim(), claim());
    let replaced = ready(client.replace(&gone, &next)).expect("answers");
    assert!(matches!(replaced, Replaced::Gone));
    assert_eq!(world.remembered(), 0);
    hold(&client, &claim());
    let replaced = ready(client.replace(&gone, &next)).expect("answers");
    assert!(matches!(replaced, Replaced::Gone));
    assert!(queue(&client).is_empty());
}

#[test]
fn pass_to_an_empty_queue_grants_at_once() {
    let world = World::new();
    let client = world.client();
    let (held, next) = (claim(), claim());
    let before = hold(&client, &held).token();
    let passed = ready(client.pass(&held, &next)).expect("passes");
    assert!(passed.released);
    let Standing::Granted(grant) = passed.next else {
        panic!("{passed:?}");
    };
    assert!(grant.token() > before);
    assert_eq!(holder(&client), Some(next.nonce));
}

#[test]
fn pass_goes_behind_those_who_wait_and_acquire_attaches() {
    let world = World::new();
    let (client, other) = (world.client(), world.client());
    let (held, waiting, next) = (claim(), claim(), claim());
    hold(&client, &held);
    enqueue(&other, &waiting);
    for released in [true, false] {
        let passed = ready(client.pass(&held, &next)).expect("passes");
        assert_eq!(passed.released, released);
        assert!(matches!(passed.next, Standing::Queued));
        assert_eq!(holder(&client), Some(waiting.nonce));
        assert_eq!(queue(&client), [next.nonce]);
    }
    enqueue(&client, &next);
    assert_eq!(queue(&client), [next.nonce]);
    release(&other, &waiting);
    ready(client.acquire(&next)).expect("granted");
}

#[test]
fn dropped_acquire_that_is_released_leaves_nothing() {
    let world = World::new();
    let client = world.client();
    let (first, second, third) = (claim(), claim(), claim());
    hold(&client, &first);
    enqueue(&client, &second);
    enqueue(&client, &third);
    assert!(!release(&client, &second));
    assert_eq!(queue(&client), [third.nonce]);
    release(&client, &first);
    // Dropped before it could hear of its grant.
    assert!(release(&client, &third));
    assert_eq!(world.remembered(), 0);
}

#[test]
fn released_nonce_never_wins_whenever_it_was_released() {
    let world = World::new();
    let client = world.client();
    let (unborn, held, waiting) = (claim(), claim(), claim());
    let late = client.acquire(&unborn);
    release(&client, &unborn);
    hold(&client, &held);
    let waits = client.acquire(&waiting);
    enqueue(&client, &waiting);
    release(&client, &waiting);
    release(&client, &held);
    for refused in [ready(late), ready(waits), ready(client.acquire(&held))] {
        assert_eq!(refused.expect_err("spent").kind(), ErrorKind::Lost);
    }
    assert!(ready(client.try_acquire(&held)).is_err());
    let next = claim();
    hold(&client, &next);
    assert!(ready(client.pass(&next, &held)).is_err());
    assert!(ready(client.replace(&next, &waiting)).is_err());
    assert_eq!(holder(&client), Some(next.nonce));
}

#[test]
fn waiter_that_slept_through_its_whole_lease_queues_again() {
    let world = World::new();
    let (asleep, other) = (world.client(), world.client());
    let mut events = asleep.events();
    let (first, late, second) = (claim(), claim(), claim());
    hold(&other, &first);
    enqueue(&asleep, &late);
    release(&other, &first);
    assert_eq!(holder(&other), Some(late.nonce));
    world.hand.advance(TTL);
    hold(&other, &second);
    enqueue(&asleep, &late);
    // It never knew of that lease, so nobody tells it that it has ended.
    assert!(events.next().now_or_never().is_none());
    release(&other, &second);
    ready(asleep.acquire(&late)).expect("granted");
}

#[test]
fn victim_of_a_break_is_told_and_the_next_waiter_granted() {
    let world = World::new();
    let (victim, operator) = (world.client(), world.client());
    let mut events = victim.events();
    let (held, next) = (claim(), claim());
    let token = hold(&victim, &held).token();
    enqueue(&operator, &next);
    let wrong = FencingToken::new(token.get() + 1).expect("a token");
    assert!(!ready(operator.break_hold(&name("a"), wrong)).expect("answers"));
    assert!(ready(operator.break_hold(&name("a"), token)).expect("answers"));
    assert!(!ready(operator.break_hold(&name("a"), token)).expect("answers"));
    assert_eq!(
        ready(events.next()),
        Some(Event::Broken { nonce: held.nonce })
    );
    assert!(ready(operator.acquire(&next)).expect("granted").token() > token);
}

#[test]
fn holder_is_told_when_anybody_notices_that_its_lease_has_ended() {
    let world = World::new();
    let (holder, other) = (world.client(), world.client());
    let mut events = holder.events();
    let held = claim();
    hold(&holder, &held);
    world.hand.advance(TTL);
    ready(other.inspect(&name("elsewhere"))).expect("looks");
    assert_eq!(
        ready(events.next()),
        Some(Event::Gone { nonce: held.nonce })
    );
}

#[test]
fn closed_client_leaves_its_places_and_keeps_its_holds_until_they_end() {
    let world = World::new();
    let (leaving, staying) = (world.client(), world.client());
    let (held, elsewhere, waiting) = (claim(), claim_of("b"), claim_of("b"));
    hold(&leaving, &held);
    hold(&staying, &elsewhere);
    enqueue(&leaving, &waiting);
    ready(leaving.close()).expect("closes");
    let state = ready(staying.inspect(&name("b"))).expect("looks");
    assert!(state.waiters.is_empty());
    assert!(ready(leaving.acquire(&waiting)).is_err());
    assert_eq!(holder(&staying), Some(held.nonce));
    world.hand.advance(TTL);
    assert_eq!(holder(&staying), None);
}

#[test]
fn vanished_client_does_not_wait_any_more() {
    let world = World::new();
    let (vanishing, staying) = (world.client(), world.client());
    hold(&staying, &claim());
    enqueue(&vanishing, &claim());
    drop(vanishing);
    assert!(queue(&staying).is_empty());
}

#[test]
fn idle_names_leave_no_state_and_tombstones_stay_few() {
    let world = World::new();
    let client = world.client();
    for round in 0..10_000 {
        let held = claim_of(&format!("name/{round}"));
        hold(&client, &held);
        if round % 2 == 0 {
            release(&client, &held);
        } else {
            // A dead client's, ended by whoever uses the store next.
            world.hand.advance(TTL);
        }
    }
    world.hand.advance(TTL);
    assert_eq!(holder(&client), None);
    assert_eq!(world.remembered(), 0);
    assert!(world.store.table().tombstones() <= 128);
}

#[test]
fn look_shows_holder_queue_ages_and_token() {
    let world = World::new();
    let client = world.client();
    let token = hold(&client, &claim()).token();
    world.hand.advance(Duration::from_secs(1));
    enqueue(&client, &claim());
    world.hand.advance(Duration::from_secs(2));
    let state = ready(client.inspect(&name("a"))).expect("looks");
    assert_eq!(state.last_token, Some(token));
    assert_eq!(state.holders[0].token, token);
    assert_eq!(state.holders[0].age, Duration::from_secs(3));
    assert_eq!(state.holders[0].remaining, Some(Duration::from_secs(7)));
    assert_eq!(state.waiters[0].age, Duration::from_secs(2));
}

#[test]
fn listing_pages_through_every_name_with_the_prefix_once() {
    let world = World::new();
    let client = world.client();
    for number in 0..600 {
        hold(&client, &claim_of(&format!("list/{number:03}")));
        hold(&client, &claim_of(&format!("other/{number:03}")));
    }
    let (mut names, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(at) = cursor {
        let page = ready(client.list("list/", at)).expect("lists");
        names.extend(page.names);
        cursor = page.next;
    }
    assert_eq!(names.len(), 600);
    assert!(names.is_sorted());
}

#[test]
fn what_is_not_served_is_refused_and_changes_nothing() {
    let world = World::new();
    let client = world.client();
    let refusals = [
        (claim().with_mode(Mode::Shared), ErrorKind::Unsupported),
        (
            claim().with_mode(Mode::Permit { of: 3 }),
            ErrorKind::Unsupported,
        ),
        (
            Claim::new(name("a"), Identity::of_this_process(""), Duration::ZERO),
            ErrorKind::Invalid,
        ),
    ];
    for (claim, kind) in refusals {
        let refused = ready(client.acquire(&claim)).expect_err("refused");
        assert_eq!(refused.kind(), kind);
        let refused = ready(client.try_acquire(&claim)).expect_err("refused");
        assert_eq!(refused.kind(), kind);
        assert_eq!(claim.progress.reach(), Reach::Unsent);
    }
    assert_eq!(world.remembered(), 0);
}

#[test]
fn fence_base_lifts_the_tokens_of_every_client_after_it() {
    let world = World::new();
    let plain = world.client();
    let mut context = world.context();
    context.fence_base = 1_000;
    let lifted = ready(world.store.connect(context)).expect("connects");
    assert!(hold(&plain, &claim_of("a")).token().get() < 1_000);
    assert!(hold(&lifted, &claim_of("b")).token().get() > 1_000);
    assert!(hold(&plain, &claim_of("c")).token().get() > 1_000);

    let mut context = world.context();
    context.fence_base = u64::MAX;
    let refused = ready(world.store.connect(context)).expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[test]
fn memory_url_is_bare() {
    let registry = MemoryStore::register(Registry::new());
    for good in ["memory://", "memory:///", "memory://?ttl=5s"] {
        let (_, _options) = registry.read(good).expect(good);
    }
    for bad in [
        "memory://host",
        "memory:///path",
        "memory://u:p@host",
        "memory://?x=1",
    ] {
        let error = registry.read(bad).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
    }
}
