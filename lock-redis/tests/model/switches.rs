//! Each rule is needed: without it, something breaks. Where and how little of each fault it takes is
//! part of what these tests say.

use crate::action::{Scope, Setup};
use crate::explore::explore;
use crate::properties::Property;
use crate::rules::{Rule, Rules};
use crate::scenes::{empty, held, one_waits, orphaned, place_lost, queued};
use crate::state::State;

/// No way to a violation is longer than this.
const DEPTH: usize = 12;

/// Without `rule`, `property` breaks; with it, nothing does on ways of the same length.
fn check(rule: Rule, property: Property, start: &State, scope: &Scope) {
    let found = explore(start, &Setup::with(Rules::without(rule)), scope, DEPTH)
        .expect_err("nothing breaks without this rule");
    assert_eq!(found.property, property, "{found}");
    if let Err(found) = explore(start, &Setup::with(Rules::ALL), scope, found.depth) {
        panic!("{found}");
    }
}

/// Nothing happens but what users do.
const CALM: Scope = Scope {
    ticks: 0,
    ..Scope::CALM
};
const TIME: Scope = Scope::CALM;
const CANCEL: Scope = Scope { cancels: 1, ..CALM };
const DISCARD: Scope = Scope {
    discards: 1,
    ..CALM
};
const RESTART: Scope = Scope {
    restarts: 1,
    ..TIME
};
const CRASH: Scope = Scope { crashes: 1, ..CALM };

macro_rules! needed {
    ($($test:ident: $rule:ident, else $property:ident, from $start:expr, with $scope:expr;)*) => {
        $(
            #[test]
            fn $test() {
                check(Rule::$rule, Property::$property, &$start, &$scope);
            }
        )*

        #[test]
        fn every_rule_has_its_test() {
            let tested = [$(Rule::$rule),*];
            for rule in Rule::ALL {
                assert!(tested.contains(rule), "{rule:?}");
            }
        }
    };
}

needed! {
    release_that_promotes_first_promotes_its_own_caller:
        CallerLeavesBeforePromotion, else NoGhosts, from orphaned(2), with CANCEL;
    free_lock_given_to_who_asks_overtakes_the_queue:
        QueueOwnsFreeLock, else InTurn, from orphaned(3), with CALM;
    late_copy_wins_when_its_nonce_was_not_buried:
        UnansweredIsBuried, else NoGhosts, from empty(1), with DISCARD;
    late_copy_of_a_dropped_request_wins_when_it_was_forgotten:
        DroppedIsUnanswered, else NoGhosts, from empty(1), with Scope { cancels: 1, ..DISCARD };
    late_copy_wins_when_scripts_ignore_tombstones:
        TombstonesAreRespected, else NoGhosts, from empty(1), with DISCARD;
    pass_sent_twice_brings_its_second_half_back:
        OnlyReleaseHalfIsRepeated, else NoGhosts, from held(1), with Scope { passes: true, ..DISCARD };
    replacing_by_two_scripts_loses_the_place:
        ReplaceIsOneScript, else InTurn, from queued(3), with CANCEL;
    replaced_nonce_comes_back_when_it_was_not_buried:
        ReplaceBuriesTheOld, else NoGhosts, from place_lost(), with Scope { asks: 2, ..CANCEL };
    grant_of_a_cancelled_nonce_is_gone_when_it_is_used:
        CancelledIsNotAdopted, else Validity, from queued(2), with CANCEL;
    late_copy_of_an_unregistered_nonce_wins:
        RegisteredBeforeSent, else NoGhosts, from empty(1), with DISCARD;
    push_counted_from_its_arrival_is_believed_for_too_long:
        PushCountsFromReference, else Validity, from queued(2), with TIME;
    reference_of_another_server_says_nothing:
        ReferencesDieWithConnection, else Validity, from queued(2), with Scope { asks: 1, ..RESTART };
    answer_counted_from_its_arrival_is_believed_for_too_long:
        AnswerCountsFromSending, else Validity, from empty(1), with TIME;
    overdue_grant_is_handed_out:
        OverdueIsNotUsed, else HandedOutInTime, from queued(2), with TIME;
    overdue_grant_that_is_dropped_strands_its_waiter:
        OverdueIsAskedAbout, else Progress, from queued(2), with TIME;
    clock_set_back_keeps_a_dead_holder:
        HolderIsClamped, else Progress, from queued(2), with Scope { steps: 1, ..CRASH };
    clock_set_back_keeps_a_dead_waiter_in_front:
        WaiterIsClamped, else NoDeadInFront, from queued(3), with Scope { steps: 1, ..CRASH };
    hand_off_of_a_whole_ttl_to_a_dead_waiter_costs_a_ttl:
        HandOffGrantsClaimWindow, else Progress, from queued(3), with Scope { discards: 1, ..CRASH };
    place_renewal_that_cannot_say_granted_strands_the_lock:
        PlaceReportsGrant, else Progress, from queued(2), with Scope { losses: 1, ..CALM };
    waiter_that_does_not_ask_on_a_new_connection_misses_its_turn:
        PlacesAreRenewedOnConnect, else Progress, from queued(2), with DISCARD;
    dead_holder_that_nobody_notices_keeps_the_lock:
        PlaceNoticesExpiry, else Progress, from queued(2), with CRASH;
    two_grants_at_one_time_get_the_same_token:
        TokenAboveLast, else TokensGrow, from held(2), with CALM;
    tokens_begin_again_with_a_lost_counter:
        TokenFromTime, else TokensGrow, from held(2), with RESTART;
    tokens_go_back_with_a_lost_counter_and_a_slow_clock:
        TokenAboveSeen, else TokensGrowForEach, from held(1), with RESTART;
    late_renewal_takes_a_free_lock:
        RenewalNeverRecreates, else NoGhosts, from held(1), with DISCARD;
    slow_renewal_revives_a_lease_that_has_ended:
        RenewalNeverRevives, else NoRevival, from held(1), with TIME;
    release_of_a_waiter_frees_the_holder:
        ReleaseIsByNonce, else Validity, from one_waits(), with CANCEL;
}
