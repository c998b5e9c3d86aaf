use super::*;

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn now() -> Instant {
    Instant::now()
}

fn pipe(kinds: &[Kind], arrived: Instant) -> Pipe {
    let mut pipe = Pipe::default();
    for &kind in kinds {
        pipe.push(Packet {
            bytes: b"x".to_vec(),
            kind,
            arrived,
            sent: 0,
        });
    }
    pipe
}

#[test]
fn nothing_flows_in_a_black_hole_not_even_the_end() {
    let now = now();
    let mut rules = Rules {
        black_hole: true,
        ..Rules::default()
    };
    for kind in [Kind::Command, Kind::Raw, Kind::End] {
        assert_eq!(
            rules.step_up(&mut pipe(&[kind], now), now),
            Step::Wait(None)
        );
    }
    for kind in [Kind::Reply, Kind::Push, Kind::End] {
        let step = rules.step_down(&mut pipe(&[kind], now), now);
        assert_eq!(step, Step::Wait(None));
    }
}

#[test]
fn packets_fall_due_after_the_delay() {
    let now = now();
    let delay = Duration::from_secs(1);
    let mut rules = Rules {
        delay,
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Command], now);
    assert_eq!(rules.step_up(&mut pipe, now), Step::Wait(Some(now + delay)));
    assert_eq!(rules.step_up(&mut pipe, now + delay), Step::Send);
}

#[test]
fn only_the_first_match_is_held_and_passes_once_let_go() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|message| message == b"x")),
        ..Rules::default()
    };
    let mut held = pipe(&[Kind::Command, Kind::Command], now);
    assert_eq!(rules.step_up(&mut held, now), Step::Wait(None));
    assert!(held.is_held());
    assert_eq!(held.waiting(), 2);
    // The retry on another connection.
    assert_eq!(
        rules.step_up(&mut pipe(&[Kind::Command], now), now),
        Step::Send
    );
    // A new predicate does not catch what was let go, but may catch what stands behind it.
    rules.hold = Some(Box::new(|message| message == b"x"));
    held.let_go();
    assert_eq!(rules.step_up(&mut held, now), Step::Send);
    held.pop();
    assert_eq!(rules.step_up(&mut held, now), Step::Wait(None));
}

#[test]
fn connection_that_lost_a_reply_stays_silent_but_may_end() {
    let now = now();
    let mut rules = Rules {
        replies: Replies::Drop,
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Reply, Kind::Reply, Kind::End], now);
    assert_eq!(rules.step_down(&mut pipe, now), Step::Discard);
    pipe.pop();
    rules.replies = Replies::Pass;
    assert_eq!(rules.step_down(&mut pipe, now), Step::Discard);
    pipe.pop();
    assert_eq!(rules.step_down(&mut pipe, now), Step::End);
}

#[test]
fn dropping_pushes_spares_replies() {
    let now = now();
    let rules = Rules {
        drop_pushes: true,
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Push, Kind::Reply], now);
    assert_eq!(rules.step_down(&mut pipe, now), Step::Discard);
    pipe.pop();
    assert_eq!(rules.step_down(&mut pipe, now), Step::Send);
}
