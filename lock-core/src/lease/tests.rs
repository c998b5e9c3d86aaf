use super::*;
use proptest::prelude::*;

const START: BootInstant = BootInstant::from_origin(Duration::from_secs(1000));
const TTL: Duration = Duration::from_secs(10);

fn at(ms: u64) -> BootInstant {
    START + Duration::from_millis(ms)
}

fn granted(ms: u64) -> Validity {
    Validity::new(at(ms), at(ms), TTL)
}

fn kept() -> LeaseState {
    LeaseState::new(granted(0), true, None, START, Duration::ZERO)
}

#[test]
fn kept_lease_is_renewed_after_a_third_of_what_is_left() {
    let lease = kept();
    assert_eq!(
        lease.renew_at(),
        Some(START + Duration::from_millis(9_895) / 3)
    );
}

#[test]
fn jitter_only_lengthens_and_is_bounded_by_a_tenth() {
    let lease = LeaseState::new(granted(0), true, None, START, Duration::MAX);
    let third = Duration::from_millis(9_895) / 3;
    assert_eq!(lease.renew_at(), Some(START + third + third / 10));
}

#[test]
fn fixed_lease_is_never_renewed_and_ends() {
    let mut lease = LeaseState::new(granted(0), false, None, START, Duration::ZERO);
    lease.apply(LeaseEvent::Verify, at(1), false, Duration::ZERO);
    assert_eq!(lease.renew_at(), None);
    assert_eq!(lease.due(), Some(at(9_895)));
    lease.apply(LeaseEvent::Tick, at(9_894), false, Duration::ZERO);
    assert_eq!(lease.ended(), None);
    lease.apply(LeaseEvent::Tick, at(9_895), false, Duration::ZERO);
    assert_eq!(lease.ended(), Some(LossReason::Expired));
    assert_eq!(lease.due(), None);
}

#[test]
fn extension_after_the_local_deadline_does_not_revive() {
    let mut lease = kept();
    lease.apply(
        LeaseEvent::Renewed(granted(9_900)),
        at(9_900),
        true,
        Duration::ZERO,
    );
    assert_eq!(lease.ended(), Some(LossReason::Expired));
    lease.apply(
        LeaseEvent::Renewed(granted(9_950)),
        at(9_950),
        true,
        Duration::ZERO,
    );
    assert_eq!(lease.ended(), Some(LossReason::Expired));
}

#[test]
fn failed_renewal_never_ends_a_hold_and_is_repeated_within_the_validity() {
    let mut lease = kept();
    let mut now = START;
    let mut tries = 0;
    while let Some(due) = lease.renew_at().filter(|due| *due < at(9_895)) {
        now = due;
        lease.renewal_started();
        lease.apply(LeaseEvent::RenewalFailed, now, true, Duration::ZERO);
        assert_eq!(lease.ended(), None);
        tries += 1;
    }
    assert!(tries > 5, "{tries} tries up to {now:?}");
}

#[test]
fn kept_lease_ends_when_it_has_been_held_for_the_longest_time() {
    let mut lease = LeaseState::new(granted(0), true, Some(at(5_000)), START, Duration::ZERO);
    let first = lease.renew_at().expect("before the limit");
    lease.apply(
        LeaseEvent::Renewed(granted(3_400)),
        first,
        true,
        Duration::ZERO,
    );
    assert_eq!(lease.renew_at(), None);
    let end = lease.validity().expires_at();
    lease.apply(LeaseEvent::Tick, end, true, Duration::ZERO);
    assert_eq!(lease.ended(), Some(LossReason::MaxHold));
}

#[test]
fn lease_without_an_end_of_its_own_ends_with_the_longest_hold() {
    let mut lease = LeaseState::new(
        Validity::unlimited(),
        true,
        Some(at(5_000)),
        START,
        Duration::ZERO,
    );
    lease.apply(
        LeaseEvent::Renewed(Validity::unlimited()),
        at(4_999),
        true,
        Duration::ZERO,
    );
    assert_eq!(lease.validity().expires_at(), at(5_000));
    lease.apply(LeaseEvent::Tick, at(5_000), true, Duration::ZERO);
    assert_eq!(lease.ended(), Some(LossReason::MaxHold));
    assert_eq!(lease.validity().free_by(), at(5_000));
}

#[test]
fn first_reason_stays() {
    let mut lease = kept();
    lease.apply(
        LeaseEvent::End(LossReason::Broken),
        at(1),
        true,
        Duration::ZERO,
    );
    lease.apply(
        LeaseEvent::End(LossReason::Released),
        at(2),
        true,
        Duration::ZERO,
    );
    assert_eq!(lease.ended(), Some(LossReason::Broken));
}

fn any_event() -> impl Strategy<Value = (u64, u8)> {
    (0_u64..4_000, 0_u8..5)
}

proptest! {
    #[test]
    fn never_valid_past_the_last_validity_and_never_revived(
        events in prop::collection::vec(any_event(), 1..40),
        is_kept: bool,
    ) {
        let mut lease = LeaseState::new(granted(0), is_kept, None, START, Duration::ZERO);
        let mut ms = 0;
        let mut ended = None;
        for (step, kind) in events {
            ms += step;
            let before = lease.validity().expires_at();
            let event = match kind {
                0 => LeaseEvent::Tick,
                1 => LeaseEvent::Renewed(granted(ms)),
                2 => LeaseEvent::RenewalFailed,
                3 => LeaseEvent::Verify,
                _ => { lease.renewal_started(); LeaseEvent::Tick }
            };
            lease.apply(event, at(ms), is_kept, Duration::ZERO);
            if at(ms) >= before {
                prop_assert!(lease.ended().is_some());
            }
            if ended.is_some() {
                prop_assert_eq!(lease.ended(), ended);
            }
            ended = lease.ended();
            if let Some(due) = lease.due() {
                prop_assert!(due <= lease.validity().expires_at());
            }
        }
    }
}
