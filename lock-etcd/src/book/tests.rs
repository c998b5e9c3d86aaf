use std::time::Duration;

use lock_core::{ErrorKind, Identity, Lease as Keeping, LockName, ManualClock};
use tokio::sync::mpsc;

use super::*;
use crate::key::Came;
use crate::lease::Leases;

const SECOND: Duration = Duration::from_secs(1);
/// The first watch of a client: its inbox comes before it.
const FIRST_WATCH: i64 = crate::follow::INBOX + 1;
const THEIRS: &[u8] = b"p/l/a/them/j0";

struct Fixture {
    hand: ManualClock,
    leases: Arc<Leases>,
    book: Book,
    orders: mpsc::UnboundedReceiver<Order>,
    _revoked: mpsc::UnboundedReceiver<i64>,
}

impl Fixture {
    fn new() -> Self {
        let hand = ManualClock::new();
        let (done, revoked) = mpsc::unbounded_channel();
        let (order, orders) = mpsc::unbounded_channel();
        Self {
            leases: Arc::new(Leases::new(hand.clock(), done)),
            book: Book::new(Keys::new("p", "me"), order),
            hand,
            orders,
            _revoked: revoked,
        }
    }

    fn now(&self) -> lock_core::BootInstant {
        self.hand.clock().now()
    }

    fn claim() -> Claim {
        let name = LockName::new("a").expect("a name");
        Claim::new(name, Identity::of_this_process("test"), SECOND * 10)
    }

    /// Registers a claim on a lease that has just been granted.
    fn begin(&self, claim: &Claim) {
        let lease = self.leases.shared(10).lease;
        lease.granted(self.now(), self.now(), SECOND * 10);
        self.book.begin(claim, lease, Came::Joined).expect("new");
    }

    fn ahead(&self, created: i64, holds: bool) -> Ahead {
        Ahead {
            key: THEIRS.to_vec(),
            created,
            start: b"p/l/a/them/j".to_vec(),
            came: Came::Joined,
            holds,
            seen: created + 1,
            since: self.now(),
            place: 1,
        }
    }

    /// A claim that stands in the queue right behind somebody whose key was created at 5.
    fn waiting(&self, holds: bool) -> Claim {
        let claim = Self::claim();
        self.begin(&claim);
        let ahead = self.ahead(5, holds);
        let asked = Asked::Queued { created: 6, ahead };
        self.book.asked(claim.nonce, asked, self.now());
        assert!(matches!(self.book.outcome(claim.nonce), Outcome::Queued(_)));
        claim
    }

    /// A deletion is heard of that has nothing to do with a pass.
    fn deleted(&self, id: i64, key: &[u8], revision: i64) -> Vec<Due> {
        let gone = Deleted {
            key,
            revision,
            passed: false,
        };
        self.book.deleted(id, gone, self.now())
    }

    fn granted(&self, claim: &Claim) -> Option<Grant> {
        match self.book.outcome(claim.nonce) {
            Outcome::Granted(grant) => Some(grant),
            _ => None,
        }
    }
}

#[test]
fn deletion_of_the_holder_is_the_grant_of_who_stands_behind_it() {
    let f = Fixture::new();
    let claim = f.waiting(true);
    f.book.watch_confirmed(FIRST_WATCH, 6, f.now());
    let look = f.deleted(FIRST_WATCH, THEIRS, 7);
    assert!(look.is_empty(), "nothing has to be read");
    assert_eq!(f.granted(&claim).expect("granted").token().get(), 6);
    assert!(f.granted(&claim).is_none(), "a grant is handed out once");
}

#[test]
fn deletion_of_a_waiter_is_looked_into() {
    let f = Fixture::new();
    let claim = f.waiting(false);
    let look = f.deleted(FIRST_WATCH, THEIRS, 7);
    assert_eq!(look.len(), 1);
    assert!(f.granted(&claim).is_none());
    // Somebody else is before it still.
    let ahead = Ahead {
        key: b"p/l/a/others/j0".to_vec(),
        start: b"p/l/a/others/j".to_vec(),
        ..f.ahead(3, true)
    };
    assert!(!f.book.looked(&look[0], Some(ahead), f.now()));
    assert!(f.granted(&claim).is_none());
    let look = f.deleted(FIRST_WATCH + 1, b"p/l/a/others/j0", 8);
    assert!(look.is_empty());
    assert!(f.granted(&claim).is_some());
}

#[test]
fn own_key_that_was_not_seen_for_a_while_is_looked_for_before_the_grant() {
    let f = Fixture::new();
    let claim = f.waiting(true);
    f.hand.advance(SECOND / 10);
    let look = f.deleted(FIRST_WATCH, THEIRS, 7);
    assert_eq!(look.len(), 1);
    assert!(f.granted(&claim).is_none());
    f.book.looked(&look[0], None, f.now());
    assert!(f.granted(&claim).is_some());
}

#[test]
fn deletion_of_an_earlier_life_of_the_key_means_nothing() {
    let f = Fixture::new();
    let claim = f.waiting(true);
    assert!(f.deleted(FIRST_WATCH, THEIRS, 4).is_empty());
    assert!(f.granted(&claim).is_none());
}

#[test]
fn deletion_that_overtook_the_answer_is_not_missed() {
    let f = Fixture::new();
    let first = f.waiting(true);
    f.book.watch_confirmed(FIRST_WATCH, 6, f.now());
    f.deleted(FIRST_WATCH, THEIRS, 7);
    assert!(f.granted(&first).is_some());
    // The next claim comes behind the same client, and is answered after the deletion was heard.
    let second = Fixture::claim();
    f.begin(&second);
    f.deleted(FIRST_WATCH, THEIRS, 12);
    let ahead = f.ahead(10, true);
    f.book
        .asked(second.nonce, Asked::Queued { created: 11, ahead }, f.now());
    let due = f.book.take_due(f.now());
    assert_eq!(due.len(), 1, "it looks at once");
}

#[test]
fn watch_that_begins_later_than_what_was_seen_has_its_waiters_look() {
    let mut f = Fixture::new();
    f.waiting(true);
    assert!(matches!(f.orders.try_recv(), Ok(Order::Watch { .. })));
    f.book.watch_confirmed(FIRST_WATCH, 6, f.now());
    assert!(
        f.book.take_due(f.now()).is_empty(),
        "nothing can be missing"
    );
    f.book.watch_confirmed(FIRST_WATCH, 7, f.now());
    assert_eq!(f.book.take_due(f.now()).len(), 1);
}

#[test]
fn lease_that_may_have_ended_grants_nothing_without_a_look() {
    let f = Fixture::new();
    let claim = f.waiting(true);
    f.hand.advance(SECOND * 10);
    let look = f.deleted(FIRST_WATCH, THEIRS, 7);
    assert_eq!(look.len(), 1);
    assert!(f.granted(&claim).is_none());
}

#[test]
fn claim_that_leaves_is_granted_nothing_any_more() {
    let f = Fixture::new();
    let claim = f.waiting(true);
    let leaving = f.book.leaving(claim.nonce, f.now());
    assert!(
        matches!(leaving, Leaving::Delete { granted: false, .. }),
        "{leaving:?}"
    );
    assert!(f.deleted(FIRST_WATCH, THEIRS, 7).is_empty());
    assert!(f.granted(&claim).is_none());
    f.book.left(claim.nonce);
    assert_eq!(f.book.len().0, 0);
}

#[test]
fn what_was_never_sent_needs_no_release_and_what_was_not_answered_is_buried() {
    let f = Fixture::new();
    let claim = Fixture::claim();
    assert!(matches!(
        f.book.leaving(claim.nonce, f.now()),
        Leaving::Nothing
    ));
    f.begin(&claim);
    assert!(matches!(
        f.book.leaving(claim.nonce, f.now()),
        Leaving::Later(_)
    ));
    let failed = Asked::Failed {
        error: given_up(),
        unanswered: true,
    };
    f.book.asked(claim.nonce, failed, f.now());
    assert!(matches!(
        f.book.leaving(claim.nonce, f.now()),
        Leaving::Bury { .. }
    ));
    f.book.left(claim.nonce);
    assert!(matches!(
        f.book.leaving(claim.nonce, f.now()),
        Leaving::Nothing
    ));
}

#[test]
fn keys_are_used_again_and_never_by_two_at_once() {
    let f = Fixture::new();
    let claims = [Fixture::claim(), Fixture::claim(), Fixture::claim()];
    let key = |claim: &Claim| f.book.put(claim.nonce).expect("asked for").0.key;
    f.begin(&claims[0]);
    f.begin(&claims[1]);
    assert_eq!(key(&claims[0]), b"p/l/a/me/j0");
    assert_eq!(key(&claims[1]), b"p/l/a/me/j1");
    f.book
        .asked(claims[0].nonce, Asked::Granted { created: 3 }, f.now());
    f.book.leaving(claims[0].nonce, f.now());
    f.book.left(claims[0].nonce);
    f.begin(&claims[2]);
    assert_eq!(key(&claims[2]), b"p/l/a/me/j0");
}

#[test]
fn replaced_claim_hands_on_its_place_and_its_unclaimed_grant() {
    for granted_meanwhile in [false, true] {
        let f = Fixture::new();
        let claim = f.waiting(true);
        let next = Fixture::claim();
        let lease = f.leases.shared(10).lease;
        let begun = f.book.begin_replacing(claim.nonce, &next, lease);
        assert_eq!(begun.expect("it waits").0.created, 6);
        if granted_meanwhile {
            f.deleted(FIRST_WATCH, THEIRS, 7);
        }
        f.book.replaced(claim.nonce, next.nonce, f.now());
        if !granted_meanwhile {
            assert!(f.granted(&next).is_none());
            f.deleted(FIRST_WATCH, THEIRS, 7);
        }
        assert_eq!(f.granted(&next).expect("granted").token().get(), 6);
        assert!(matches!(
            f.book.leaving(claim.nonce, f.now()),
            Leaving::Nothing
        ));
    }
}

#[test]
fn lost_lease_names_its_holders_and_has_its_waiters_look() {
    let f = Fixture::new();
    let held = Fixture::claim();
    f.begin(&held);
    f.book
        .asked(held.nonce, Asked::Granted { created: 3 }, f.now());
    assert!(f.granted(&held).is_some());
    f.waiting(false);
    let lease = f.book.held(held.nonce).expect("held").1.id;
    assert_eq!(f.book.lease_over(lease, f.now()), [held.nonce]);
    assert_eq!(f.book.take_due(f.now()).len(), 1);
    assert!(f.book.lease_over(lease + 1, f.now()).is_empty());
}

#[test]
fn nothing_is_granted_on_a_lease_that_is_over() {
    let f = Fixture::new();
    let failed = |claim: &Claim| match f.book.outcome(claim.nonce) {
        Outcome::Failed(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        _ => panic!("granted, or waiting for it"),
    };
    // Granted, and not fetched yet.
    let slow = f.waiting(true);
    f.book.watch_confirmed(FIRST_WATCH, 6, f.now());
    f.deleted(FIRST_WATCH, THEIRS, 7);
    let lease = f.leases.shared(10).lease;
    lease.end();
    assert!(f.book.lease_over(lease.id, f.now()).is_empty());
    failed(&slow);
    // Answered when the end of the lease is known already.
    let late = Fixture::claim();
    f.begin(&late);
    f.leases.shared(10).lease.end();
    let asked = Asked::Granted { created: 8 };
    f.book.asked(late.nonce, asked, f.now());
    failed(&late);
}

#[test]
fn claim_that_takes_the_place_of_one_that_has_failed_fails_as_well() {
    let f = Fixture::new();
    let (waiting, next) = (f.waiting(true), Fixture::claim());
    let lease = f.leases.shared(10).lease;
    assert!(
        f.book
            .begin_replacing(waiting.nonce, &next, lease)
            .is_some()
    );
    f.book.fail(waiting.nonce, given_up(), f.now());
    f.book.replaced(waiting.nonce, next.nonce, f.now());
    assert!(matches!(f.book.outcome(next.nonce), Outcome::Failed(_)));
}

#[test]
fn claim_that_takes_the_place_of_one_that_was_given_up_meanwhile_is_given_up_as_well() {
    let f = Fixture::new();
    let (waiting, next) = (f.waiting(true), Fixture::claim());
    let lease = f.leases.shared(10).lease;
    assert!(
        f.book
            .begin_replacing(waiting.nonce, &next, lease)
            .is_some()
    );
    assert!(matches!(
        f.book.leaving(waiting.nonce, f.now()),
        Leaving::Delete { .. }
    ));
    f.book.left(waiting.nonce);
    f.book.replaced(waiting.nonce, next.nonce, f.now());
    assert!(matches!(
        f.book.leaving(next.nonce, f.now()),
        Leaving::Nothing
    ));
}

#[test]
fn fixed_claim_that_waited_is_granted_provisionally() {
    let f = Fixture::new();
    let claim = Fixture::claim().with_lease(Keeping::Fixed);
    f.begin(&claim);
    let ahead = f.ahead(5, true);
    f.book
        .asked(claim.nonce, Asked::Queued { created: 6, ahead }, f.now());
    f.deleted(FIRST_WATCH, THEIRS, 7);
    assert!(f.granted(&claim).expect("granted").is_provisional());
}

#[test]
fn pass_tells_that_the_one_before_had_held() {
    let f = Fixture::new();
    let claim = f.waiting(false);
    let gone = Deleted {
        key: THEIRS,
        revision: 7,
        passed: true,
    };
    assert!(f.book.deleted(FIRST_WATCH, gone, f.now()).is_empty());
    assert!(f.granted(&claim).is_some());
}
