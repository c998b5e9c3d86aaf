use super::*;

fn at(secs: u64) -> BootInstant {
    BootInstant::from_origin(Duration::from_secs(secs))
}

fn watching(follow: &mut Follow, start: &[u8]) -> i64 {
    let (_, order) = follow.begin(start, b"a/0", 5, at(0));
    let Some(Order::Watch { id, .. }) = order else {
        panic!("a new watch: {order:?}");
    };
    assert_eq!(follow.confirmed(id).as_deref(), Some(start));
    id
}

#[test]
fn second_follower_of_one_client_needs_no_second_watch() {
    let mut follow = Follow::default();
    watching(&mut follow, b"a/");
    follow.end(b"a/", at(1));
    let again = follow.begin(b"a/", b"a/1", 9, at(2));
    assert_eq!(again, (Following::Watching, None));
    assert_eq!(follow.len(), 1);
}

#[test]
fn deletion_that_was_heard_before_its_follower_came_is_not_missed() {
    let mut follow = Follow::default();
    let id = watching(&mut follow, b"a/");
    follow.deleted(id, b"a/0", 12);
    let (found, _) = follow.begin(b"a/", b"a/0", 11, at(0));
    assert_eq!(found, Following::Gone);
    let (found, _) = follow.begin(b"a/", b"a/0", 13, at(0));
    assert_eq!(
        found,
        Following::Watching,
        "that was the key's earlier life"
    );
    let (found, _) = follow.begin(b"a/", b"a/1", 11, at(0));
    assert_eq!(found, Following::Watching, "that was another key");
}

#[test]
fn watch_that_is_not_confirmed_promises_nothing() {
    let mut follow = Follow::default();
    let (found, order) = follow.begin(b"a/", b"a/0", 5, at(0));
    assert_eq!(found, Following::NotYet);
    assert!(order.is_some());
    assert_eq!(
        follow.begin(b"a/", b"a/0", 5, at(0)),
        (Following::NotYet, None)
    );
}

#[test]
fn new_stream_confirms_everything_anew_under_new_ids() {
    let mut follow = Follow::default();
    let old = watching(&mut follow, b"a/");
    follow.deleted(old, b"a/0", 12);
    let orders = follow.begin_again();
    let [Order::Watch { id, start }] = &orders[..] else {
        panic!("{orders:?}");
    };
    assert_ne!(*id, old);
    assert_eq!(start, b"a/");
    assert_eq!(follow.confirmed(old), None, "of the stream that has ended");
    assert_eq!(follow.begin(b"a/", b"a/0", 11, at(0)).0, Following::NotYet);
}

#[test]
fn refused_watch_is_asked_for_again() {
    let mut follow = Follow::default();
    let old = watching(&mut follow, b"a/");
    assert!(matches!(follow.refused(old), Some(Order::Watch { id, .. }) if id != old));
    assert_eq!(follow.refused(old), None);
    assert_eq!(follow.begin(b"a/", b"a/0", 5, at(0)).0, Following::NotYet);
}

#[test]
fn idle_watches_end_after_a_while_and_followed_ones_do_not() {
    let mut follow = Follow::default();
    let id = watching(&mut follow, b"a/");
    watching(&mut follow, b"b/");
    follow.end(b"a/", at(1));
    assert_eq!(follow.end_idle(at(2)), (vec![], Some(at(1) + LINGER)));
    let (orders, next) = follow.end_idle(at(1) + LINGER);
    assert_eq!(orders, [Order::Cancel { id }]);
    assert_eq!(next, None);
    assert_eq!(follow.len(), 1);
}

#[test]
fn the_longest_idle_make_room_when_there_are_too_many() {
    let mut follow = Follow::default();
    for n in 0..=MOST_IDLE {
        let start = format!("{n}/").into_bytes();
        watching(&mut follow, &start);
        follow.end(&start, at(n as u64));
    }
    let before = follow.len();
    follow.end_idle(at(0));
    assert_eq!(follow.len(), before - 1);
    assert_eq!(follow.begin(b"0/", b"0/c", 1, at(0)).0, Following::NotYet);
}

#[test]
fn watch_that_tells_in_vain_is_given_up_and_one_that_is_followed_is_not() {
    let mut follow = Follow::default();
    let id = watching(&mut follow, b"a/");
    for revision in 6..16 {
        assert_eq!(follow.deleted(id, b"a/0", revision), None);
    }
    follow.end(b"a/", at(1));
    assert_eq!(
        follow.deleted(id, b"a/0", 16),
        None,
        "it may be followed soon"
    );
    let cancelled = follow.deleted(id, b"a/0", 17);
    assert_eq!(cancelled, Some(Order::Cancel { id }));
    assert_eq!(follow.len(), 0);
}
