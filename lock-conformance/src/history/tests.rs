use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn event(at: u64, who: &str, what: What) -> Event {
    Event {
        at: ms(at),
        who: who.to_owned(),
        name: "n".to_owned(),
        what,
    }
}

fn granted(asked: u64, at: u64, who: &str, token: u64) -> Event {
    let asked = ms(asked);
    event(at, who, What::Granted { asked, token })
}

fn releasing(at: u64, who: &str, token: u64) -> Event {
    event(at, who, What::Releasing { token })
}

fn lost(at: u64, who: &str, token: u64) -> Event {
    let why = "expired".to_owned();
    event(at, who, What::Lost { token, why })
}

fn checked(began: u64, at: u64, token: u64, valid: bool) -> Event {
    let began = ms(began);
    event(
        at,
        "a",
        What::Checked {
            began,
            token,
            valid,
        },
    )
}

fn wrote(at: u64, token: u64, value: u64, accepted: bool) -> Event {
    event(
        at,
        "resource",
        What::Wrote {
            token,
            value,
            accepted,
        },
    )
}

fn violated(result: Result<(), Violation>) -> &'static str {
    result.expect_err("a bad history").property
}

#[test]
fn orderly_history_passes_every_check() {
    let history = [
        granted(0, 10, "a", 1),
        checked(11, 12, 1, true),
        releasing(20, "a", 1),
        granted(5, 25, "b", 2),
        lost(40, "b", 2),
        granted(30, 45, "c", 3),
        releasing(50, "c", 3),
    ];
    assert_eq!(check_all(&history), Ok(()));
}

#[test]
fn concurrent_requests_may_be_granted_in_any_order() {
    // The second was asked for before the first returned: nothing says which came first.
    let history = [granted(0, 10, "a", 2), granted(9, 20, "b", 1)];
    assert_eq!(check_tokens(&history), Ok(()));
}

#[test]
fn later_grant_with_a_smaller_token_is_found() {
    let history = [granted(0, 10, "a", 2), granted(11, 20, "b", 1)];
    assert_eq!(violated(check_tokens(&history)), "P1");
}

#[test]
fn later_grant_is_compared_with_the_highest_before_it_not_only_the_last() {
    let history = [
        granted(0, 10, "a", 9),
        granted(0, 11, "b", 3),
        granted(12, 20, "c", 5),
    ];
    assert_eq!(violated(check_tokens(&history)), "P1");
}

#[test]
fn token_granted_twice_is_found_even_among_concurrent_requests() {
    let history = [granted(0, 10, "a", 1), granted(0, 10, "b", 1)];
    assert_eq!(violated(check_tokens(&history)), "P1");
}

#[test]
fn tokens_of_different_names_do_not_compare() {
    let mut other = granted(11, 20, "b", 1);
    other.name = "other".to_owned();
    assert_eq!(check_tokens(&[granted(0, 10, "a", 2), other]), Ok(()));
}

#[test]
fn overlapping_holds_are_found() {
    let history = [
        granted(0, 10, "a", 1),
        granted(0, 15, "b", 2),
        releasing(20, "a", 1),
        releasing(30, "b", 2),
    ];
    assert_eq!(violated(check_exclusion(&history)), "R1");
}

#[test]
fn hold_ends_where_its_loss_was_told() {
    let history = [
        granted(0, 10, "a", 1),
        lost(14, "a", 1),
        granted(0, 15, "b", 2),
        releasing(20, "a", 1),
        releasing(30, "b", 2),
    ];
    assert_eq!(check_exclusion(&history), Ok(()));
}

#[test]
fn check_that_says_valid_after_the_next_grant_is_found() {
    let history = [
        granted(0, 10, "a", 1),
        granted(0, 20, "b", 2),
        checked(21, 22, 1, true),
    ];
    assert_eq!(violated(check_validity(&history)), "P3");
    let history = [
        granted(0, 10, "a", 1),
        granted(0, 20, "b", 2),
        checked(21, 22, 1, false),
    ];
    assert_eq!(check_validity(&history), Ok(()));
}

#[test]
fn check_that_began_before_the_next_grant_may_say_valid() {
    let history = [
        granted(0, 10, "a", 1),
        granted(0, 20, "b", 2),
        checked(19, 22, 1, true),
    ];
    assert_eq!(check_validity(&history), Ok(()));
}

#[test]
fn loss_told_after_the_next_grant_is_found() {
    let history = [
        granted(0, 10, "a", 1),
        granted(0, 20, "b", 2),
        lost(21, "a", 1),
    ];
    assert_eq!(violated(check_loss_before_grant(&history)), "P9");
}

#[test]
fn resource_that_counts_on_is_exact() {
    let history = [
        wrote(1, 1, 1, true),
        wrote(2, 1, 2, true),
        wrote(3, 1, 9, false),
        wrote(4, 3, 3, true),
    ];
    assert_eq!(check_resource(&history), Ok(()));
    assert_eq!(lost_updates(&history), 0);
}

#[test]
fn older_token_that_was_accepted_is_found() {
    let history = [wrote(1, 2, 1, true), wrote(2, 1, 2, true)];
    assert_eq!(violated(check_resource(&history)), "P2");
}

#[test]
fn lost_update_is_found_and_counted() {
    let history = [
        wrote(1, 1, 1, true),
        wrote(2, 2, 2, true),
        wrote(3, 3, 2, true),
    ];
    assert_eq!(violated(check_resource(&history)), "P2");
    assert_eq!(lost_updates(&history), 1);
}

#[test]
fn excerpt_shows_the_end_in_the_order_of_time() {
    let recorder = Recorder::new();
    recorder.add(releasing(20, "b", 1));
    recorder.add(granted(0, 10, "a", 1));
    recorder.add(releasing(5, "early", 0));
    let text = recorder.excerpt(2);
    assert!(text.contains("1 earlier"), "{text}");
    assert!(!text.contains("early  "), "{text}");
    let granted = text.find("granted 1").expect("shown");
    assert!(granted < text.find("releasing 1").expect("shown"), "{text}");
}
