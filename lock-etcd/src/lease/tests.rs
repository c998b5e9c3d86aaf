use lock_core::ManualClock;

use super::*;

struct Fixture {
    hand: ManualClock,
    clock: Clock,
    leases: Arc<Leases>,
    revoked: mpsc::UnboundedReceiver<i64>,
}

fn fixture() -> Fixture {
    let hand = ManualClock::new();
    let clock = hand.clock();
    let (done, revoked) = mpsc::unbounded_channel();
    Fixture {
        leases: Arc::new(Leases::new(clock.clone(), done)),
        hand,
        clock,
        revoked,
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn kept_claims_of_one_ttl_share_a_lease_and_others_do_not() {
    let f = fixture();
    let (a, b, c) = (
        f.leases.shared(10),
        f.leases.shared(10),
        f.leases.shared(20),
    );
    assert!(a.new && !b.new && c.new);
    assert_eq!(a.lease.id, b.lease.id);
    assert_ne!(a.lease.id, c.lease.id);
    assert_ne!(f.leases.own(10).lease.id, a.lease.id);
}

#[test]
fn lease_that_is_over_is_not_given_to_anybody() {
    let f = fixture();
    let old = f.leases.shared(10);
    assert!(old.lease.end());
    assert!(!old.lease.end(), "news only once");
    let new = f.leases.shared(10);
    assert!(new.new);
    assert_ne!(new.lease.id, old.lease.id);
}

#[test]
fn fixed_lease_is_revoked_when_its_claim_is_done_with_it() {
    let mut f = fixture();
    let own = f.leases.own(10);
    let id = own.lease.id;
    assert!(f.revoked.try_recv().is_err());
    drop(own);
    assert_eq!(f.revoked.try_recv(), Ok(id));
}

#[test]
fn idle_lease_is_ended_and_one_in_use_is_not() {
    let mut f = fixture();
    let used = f.leases.shared(10);
    let idle = f.leases.shared(20);
    let id = idle.lease.id;
    drop(idle);
    let due = f.leases.end_idle(SECOND * 5).expect("one is idle");
    assert_eq!(due, f.clock.now() + SECOND * 5);
    f.hand.advance(SECOND * 5);
    assert_eq!(f.leases.end_idle(SECOND * 5), None);
    assert_eq!(f.revoked.try_recv(), Ok(id));
    assert!(f.revoked.try_recv().is_err());
    assert!(!used.lease.is_over());
    assert!(f.leases.shared(20).new);
}

#[test]
fn idle_lease_is_ended_before_it_ends_by_itself() {
    let f = fixture();
    drop(f.leases.shared(3));
    let due = f.leases.end_idle(SECOND * 60).expect("idle");
    assert_eq!(due, f.clock.now() + SECOND * 2);
}

#[test]
fn keep_alive_counts_only_within_one_term() {
    let f = fixture();
    let lease = f.leases.shared(10).lease;
    let sent = f.clock.now();
    lease.granted(sent, sent, SECOND * 10);
    let first = lease.validity().expect("granted").expires_at();
    f.hand.advance(SECOND);
    let later = Extension {
        sent: f.clock.now(),
        received: f.clock.now(),
        term: 7,
    };
    assert!(!lease.extended(later, 8), "a new leader may not know of it");
    assert_eq!(lease.validity().expect("granted").expires_at(), first);
    assert!(lease.extended(later, 7));
    assert_eq!(
        lease.validity().expect("granted").expires_at(),
        first + SECOND
    );
}

#[test]
fn extension_that_was_overtaken_shortens_nothing() {
    let f = fixture();
    let lease = f.leases.shared(10).lease;
    let old = f.clock.now();
    f.hand.advance(SECOND);
    let new = f.clock.now();
    lease.granted(new, new, SECOND * 10);
    let before = lease.validity();
    let late = Extension {
        sent: old,
        received: new,
        term: 1,
    };
    assert!(lease.extended(late, 1));
    assert_eq!(lease.validity(), before);
}

#[test]
fn ttl_is_what_the_server_granted() {
    let f = fixture();
    let lease = f.leases.shared(1).lease;
    let now = f.clock.now();
    assert!(!lease.is_valid(now), "not before it is granted");
    lease.granted(now, now, SECOND * 2);
    f.hand.advance(SECOND);
    assert!(lease.is_valid(f.clock.now()));
    f.hand.advance(SECOND);
    assert!(!lease.is_valid(f.clock.now()));
}

#[test]
fn generation_never_falls() {
    let f = fixture();
    let lease = f.leases.shared(1).lease;
    lease.adopt(3);
    lease.adopt(2);
    assert_eq!(lease.generation(), 3);
}

#[test]
fn lease_that_may_have_ended_is_left_to_its_users_and_revoked_after_them() {
    let mut f = fixture();
    let old = f.leases.shared(10).lease;
    let id = old.id;
    let now = f.clock.now();
    old.granted(now, now, SECOND * 10);
    f.hand.advance(SECOND * 10);
    let new = f.leases.shared(10);
    assert!(new.new);
    assert!(!old.is_over(), "the server may have kept it");
    assert!(f.revoked.try_recv().is_err());
    drop(old);
    assert_eq!(f.revoked.try_recv(), Ok(id));
    drop(new);
    assert!(f.revoked.try_recv().is_err(), "that one is shared on");
}
