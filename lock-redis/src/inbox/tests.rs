use lock_core::{Identity, LockName, ManualClock};

use super::*;

const CLAIM: Duration = Duration::from_secs(2);

fn claim() -> Claim {
    let name = LockName::new("a").expect("a name");
    Claim::new(name, Identity::of_this_process("t"), CLAIM * 5)
}

fn at(now: BootInstant, ms: u64) -> BootInstant {
    now + Duration::from_millis(ms)
}

fn hand_off(claim: &Claim, token: u64, server_ms: u64) -> HandOff {
    HandOff {
        nonce: claim.nonce,
        token: FencingToken::new(token).expect("a token"),
        lease: CLAIM,
        server: Duration::from_millis(server_ms),
    }
}

fn reference(connection: u64, sent: BootInstant, server_ms: u64) -> Reference {
    Reference {
        connection,
        sent,
        server: Duration::from_millis(server_ms),
    }
}

fn outcome(inbox: &Inbox, claim: &Claim, now: BootInstant) -> Option<Grant> {
    match inbox.outcome(claim.nonce, now) {
        Outcome::Ready(result) => Some(result.expect("granted")),
        Outcome::NotYet(_) => None,
    }
}

/// A claim that was asked for at `t0` and answered with "queued", on connection 1.
fn queued() -> (Inbox, Claim, ManualClock, BootInstant) {
    let hand = ManualClock::new();
    let (inbox, claim, t0) = (Inbox::default(), claim(), hand.clock().now());
    inbox.sending(&claim, t0);
    inbox.answered(claim.nonce);
    inbox.queued(claim.nonce, reference(1, t0, 1_000), at(t0, 500));
    (inbox, claim, hand, t0)
}

#[test]
fn messages_are_read_and_others_are_not() {
    let claim = claim();
    let text = format!("granted\t{}\t77\t2000000\t1500", claim.nonce);
    let hand_off = HandOff {
        nonce: claim.nonce,
        token: FencingToken::new(77).expect("a token"),
        lease: CLAIM,
        server: Duration::from_micros(1500),
    };
    assert_eq!(Push::parse(&text), Some(Push::Granted(hand_off)));
    let text = format!("broken\t{}\t77", claim.nonce);
    assert_eq!(Push::parse(&text), Some(Push::Broken(claim.nonce)));
    for bad in [
        "",
        "granted",
        "granted\tx\t1\t1\t1",
        "broken\t",
        "other\t1",
        &format!("granted\t{}\t0\t1\t1", claim.nonce),
        &format!("granted\t{}\t1\t-1\t1", claim.nonce),
    ] {
        assert_eq!(Push::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn pushed_lease_is_counted_from_the_last_answered_request_not_from_its_arrival() {
    let (inbox, claim, _, t0) = queued();
    // Granted 300 ms after the enqueue on the server's clock; here 900 ms later.
    inbox.pushed(1, at(t0, 900), hand_off(&claim, 7, 1_300));
    let grant = outcome(&inbox, &claim, at(t0, 900)).expect("granted");
    // 300 ms less the 1 % that the server's clock may run fast.
    let since = at(t0, 297);
    assert_eq!(grant.validity(), Validity::new(since, at(t0, 900), CLAIM));
    assert!(grant.is_provisional());
}

#[test]
fn pushed_lease_is_never_counted_from_after_its_arrival() {
    let (inbox, claim, _, t0) = queued();
    // The server's clock was stepped forward by a minute in between.
    inbox.pushed(1, at(t0, 100), hand_off(&claim, 7, 61_000));
    let grant = outcome(&inbox, &claim, at(t0, 100)).expect("granted");
    assert_eq!(
        grant.validity(),
        Validity::new(at(t0, 100), at(t0, 100), CLAIM)
    );
}

#[test]
fn references_die_with_their_connection() {
    let (inbox, claim, _, t0) = queued();
    inbox.pushed(2, at(t0, 900), hand_off(&claim, 7, 1_800));
    let grant = outcome(&inbox, &claim, at(t0, 900)).expect("granted");
    assert_eq!(
        grant.validity(),
        Validity::new(t0, at(t0, 900), CLAIM),
        "from the enqueue"
    );
}

#[test]
fn push_that_may_be_over_is_asked_about_and_neither_used_nor_lost() {
    let (inbox, claim, _, t0) = queued();
    // It lay in a buffer for three seconds.
    inbox.pushed(1, at(t0, 3_100), hand_off(&claim, 7, 1_100));
    assert!(outcome(&inbox, &claim, at(t0, 3_100)).is_none());
    let due = inbox.take_due(at(t0, 3_100));
    assert_eq!(due.len(), 1, "its place is renewed at once");
    // Then the server says how things are.
    let validity = Validity::new(at(t0, 3_100), at(t0, 3_110), CLAIM);
    let token = FencingToken::new(7).expect("a token");
    inbox.granted(
        Grant::new(&claim, token, validity).provisional(),
        at(t0, 3_110),
    );
    assert!(outcome(&inbox, &claim, at(t0, 3_110)).is_some());
}

#[test]
fn grant_that_ends_before_anybody_takes_it_is_asked_about() {
    let (inbox, claim, _, t0) = queued();
    inbox.pushed(1, at(t0, 150), hand_off(&claim, 7, 1_100));
    // The process is paused here.
    assert!(outcome(&inbox, &claim, at(t0, 9_000)).is_none());
    assert_eq!(inbox.take_due(at(t0, 9_000)).len(), 1);
}

#[test]
fn push_before_the_answer_of_its_own_enqueue_is_adopted() {
    let (inbox, claim, t0) = (Inbox::default(), claim(), ManualClock::new().clock().now());
    inbox.sending(&claim, t0);
    inbox.pushed(1, at(t0, 3), hand_off(&claim, 7, 1_000));
    inbox.answered(claim.nonce);
    // The answer says "queued", which is out of date.
    inbox.queued(claim.nonce, reference(1, t0, 999), at(t0, 500));
    let grant = outcome(&inbox, &claim, at(t0, 4)).expect("granted");
    assert_eq!(grant.validity(), Validity::new(t0, at(t0, 3), CLAIM));
    assert_eq!(inbox.len(), 0);
}

#[test]
fn push_for_a_claim_that_is_not_registered_or_leaves_is_not_adopted() {
    let (inbox, claim, _, t0) = queued();
    let stranger = self::claim();
    inbox.pushed(1, t0, hand_off(&stranger, 7, 1_000));
    assert_eq!(inbox.len(), 1);
    inbox.leaving(claim.nonce, t0);
    inbox.pushed(1, t0, hand_off(&claim, 8, 1_000));
    assert!(matches!(
        inbox.outcome(claim.nonce, t0),
        Outcome::Ready(Err(_))
    ));
    assert_eq!(inbox.seen(), 8, "a token is remembered all the same");
}

#[test]
fn nonce_is_buried_exactly_when_a_request_of_it_went_unanswered() {
    let (inbox, claim, _, t0) = queued();
    assert!(!inbox.leaving(claim.nonce, t0));
    inbox.left(claim.nonce);

    let (inbox, claim, _, t0) = queued();
    assert!(inbox.sending_again(claim.nonce));
    assert!(inbox.leaving(claim.nonce, t0));
    // The release was not answered either: the next attempt has to bury as well.
    assert!(inbox.leaving(claim.nonce, t0));
    inbox.answered(claim.nonce);
    inbox.left(claim.nonce);
    assert_eq!(inbox.len(), 0);
}

#[test]
fn claim_that_leaves_does_not_join_the_queue_again() {
    let (inbox, claim, _, t0) = queued();
    inbox.leaving(claim.nonce, t0);
    assert!(!inbox.sending_again(claim.nonce));
    assert!(inbox.take_due(at(t0, 9_000)).is_empty());
    inbox.verify_all(t0);
    assert!(inbox.take_due(at(t0, 9_000)).is_empty());
}

#[test]
fn what_was_never_answered_is_forgotten_when_no_copy_can_be_under_way() {
    let (inbox, waiting, _, t0) = queued();
    let lost = claim();
    inbox.sending(&lost, t0);
    inbox.taken(lost.nonce, t0);
    let leaving = claim();
    inbox.sending(&leaving, t0);
    inbox.leaving(leaving.nonce, t0);
    let new = claim();
    inbox.sending(&new, t0 + TOMBSTONE / 2);
    assert_eq!(inbox.len(), 4);
    inbox.sending(&new, t0 + TOMBSTONE);
    assert_eq!(inbox.len(), 2);
    assert!(inbox.expects(waiting.nonce), "a waiter is never forgotten");
}

#[test]
fn taken_grant_leaves_no_record_unless_a_copy_may_be_under_way() {
    let (inbox, claim, _, t0) = queued();
    inbox.pushed(1, t0, hand_off(&claim, 7, 1_000));
    outcome(&inbox, &claim, t0).expect("granted");
    assert_eq!(inbox.len(), 0);

    let (inbox, claim, _, t0) = queued();
    assert!(inbox.sending_again(claim.nonce));
    inbox.pushed(1, t0, hand_off(&claim, 7, 1_000));
    outcome(&inbox, &claim, t0).expect("granted");
    assert!(inbox.leaving(claim.nonce, t0), "the release buries");
}

#[test]
fn places_are_due_once_and_again_after_a_new_connection() {
    let (inbox, claim, _, t0) = queued();
    assert_eq!(inbox.next_due(), Some(at(t0, 500)));
    assert!(inbox.take_due(at(t0, 499)).is_empty());
    assert_eq!(inbox.take_due(at(t0, 500)).len(), 1);
    assert_eq!(inbox.next_due(), None, "its renewal is under way");
    inbox.retry(claim.nonce, at(t0, 700));
    inbox.verify_all(at(t0, 600));
    inbox.retry(claim.nonce, at(t0, 700));
    assert_eq!(
        inbox.next_due(),
        Some(at(t0, 600)),
        "the earlier one counts"
    );
    inbox.adrift();
    assert_eq!(claim.progress.reach(), Reach::Adrift);
    inbox.queued(claim.nonce, reference(2, t0, 1_000), at(t0, 900));
    assert_eq!(claim.progress.reach(), Reach::Queued);
}

#[test]
fn larger_token_of_a_second_answer_wins() {
    let (inbox, claim, _, t0) = queued();
    let grant = |token| {
        let validity = Validity::new(t0, t0, CLAIM);
        Grant::new(&claim, FencingToken::new(token).expect("a token"), validity)
    };
    inbox.granted(grant(9), t0);
    inbox.granted(grant(8), t0);
    inbox.granted(grant(10), t0);
    assert_eq!(
        outcome(&inbox, &claim, t0).expect("granted").token().get(),
        10
    );
}

#[test]
fn answer_that_took_longer_than_the_lease_is_handed_on_to_be_renewed() {
    let (inbox, claim, _, t0) = queued();
    let late = at(t0, 5_000);
    let token = FencingToken::new(7).expect("a token");
    inbox.granted(
        Grant::new(&claim, token, Validity::new(t0, late, CLAIM)),
        late,
    );
    let grant = outcome(&inbox, &claim, late).expect("handed on");
    assert!(grant.validity().expires_at() < late);
    assert_eq!(inbox.next_due(), None, "nobody asks again meanwhile");
}

#[test]
fn claim_that_is_asked_for_again_after_a_lost_answer_can_be_granted() {
    let (inbox, claim, t0) = (Inbox::default(), claim(), ManualClock::new().clock().now());
    inbox.sending(&claim, t0);
    inbox.taken(claim.nonce, t0);
    assert!(!inbox.expects(claim.nonce));
    inbox.sending(&claim, at(t0, 10));
    inbox.answered(claim.nonce);
    inbox.pushed(1, at(t0, 20), hand_off(&claim, 7, 1_000));
    outcome(&inbox, &claim, at(t0, 20)).expect("granted");
    assert!(
        inbox.leaving(claim.nonce, t0),
        "the first request is still unanswered"
    );
}
