use super::*;

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn now() -> Instant {
    Instant::now()
}

fn pipe(kinds: &[Kind], arrived: Instant) -> Pipe {
    let mut pipe = Pipe::default();
    for &kind in kinds {
        pipe.push(Packet::new(Message::new(b"x".to_vec(), kind), arrived));
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
        hold: Some(Box::new(|message| message.bytes == b"x")),
        ..Rules::default()
    };
    let mut held = pipe(&[Kind::Command, Kind::Command], now);
    assert_eq!(rules.step_up(&mut held, now), Step::Wait(None));
    assert!(held.is_held());
    assert_eq!(held.held(), 2);
    // The retry on another connection.
    assert_eq!(
        rules.step_up(&mut pipe(&[Kind::Command], now), now),
        Step::Send
    );
    // A new predicate does not catch what was let go, but may catch what stands behind it.
    rules.hold = Some(Box::new(|message| message.bytes == b"x"));
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

/// Packets of one stream.
fn on_stream(kinds: &[Kind], stream: u32, arrived: Instant) -> impl Iterator<Item = Packet> {
    let message = move |kind| Message::new(b"x".to_vec(), kind).on_stream(stream);
    kinds
        .iter()
        .map(move |&kind| Packet::new(message(kind), arrived))
}

/// Takes steps until there is nothing to do; gives the streams of what was sent, and the last step.
fn run_up(rules: &mut Rules, pipe: &mut Pipe, now: Instant) -> (Vec<(u32, Kind)>, Step) {
    let mut sent = Vec::new();
    loop {
        match rules.step_up(pipe, now) {
            Step::Send => sent.extend(pipe.pop().map(|p| (p.message.stream, p.message.kind))),
            Step::Set => pipe.set_first(),
            step => return (sent, step),
        }
    }
}

#[test]
fn held_stream_lets_the_others_pass_and_follows_in_order() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|message| message.stream == 3)),
        ..Rules::default()
    };
    let mut pipe = Pipe::default();
    for stream in [1, 3, 5, 3] {
        on_stream(&[Kind::Command, Kind::Upkeep], stream, now).for_each(|p| pipe.push(p));
    }
    let (sent, step) = run_up(&mut rules, &mut pipe, now);
    let passed = [1, 5].map(|stream| [(stream, Kind::Command), (stream, Kind::Upkeep)]);
    assert_eq!((sent, step), (passed.concat(), Step::Wait(None)));
    assert_eq!((pipe.is_held(), pipe.held()), (true, 2));

    pipe.let_go();
    let (sent, _) = run_up(&mut rules, &mut pipe, now);
    assert_eq!(sent, [(3, Kind::Command), (3, Kind::Upkeep)].repeat(2));
}

#[test]
fn cancellation_and_end_wait_for_the_answer_to_what_was_held() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|_| true)),
        ..Rules::default()
    };
    let mut pipe = Pipe::default();
    on_stream(&[Kind::Command, Kind::Cancel], 1, now).for_each(|p| pipe.push(p));
    pipe.push(Packet::new(Message::new(Vec::new(), Kind::End), now));
    let wait = (Vec::new(), Step::Wait(None));
    assert_eq!(run_up(&mut rules, &mut pipe, now), wait);
    pipe.let_go();
    let command = (vec![(1, Kind::Command)], Step::Wait(None));
    assert_eq!(run_up(&mut rules, &mut pipe, now), command);
    // An answer on another stream is none on this one.
    pipe.answered(3);
    assert_eq!(run_up(&mut rules, &mut pipe, now), wait);
    pipe.answered(1);
    let cancel = (vec![(1, Kind::Cancel)], Step::End);
    assert_eq!(run_up(&mut rules, &mut pipe, now), cancel);
}

#[test]
fn end_waits_for_the_answers_to_a_late_copy_and_what_was_behind_it() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|_| true)),
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Command, Kind::Command, Kind::End], now);
    assert_eq!(rules.step_up(&mut pipe, now), Step::Wait(None));
    pipe.let_go();
    for _ in 0..2 {
        assert_eq!(rules.step_up(&mut pipe, now), Step::Send);
        pipe.asked();
        pipe.pop();
    }
    assert_eq!(rules.step_up(&mut pipe, now), Step::Wait(None));
    pipe.answered(0);
    assert_eq!(rules.step_up(&mut pipe, now), Step::Wait(None));
    pipe.answered(0);
    assert_eq!(rules.step_up(&mut pipe, now), Step::End);
}

#[test]
fn only_what_a_client_asks_is_held() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|_| true)),
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Upkeep, Kind::Command], now);
    assert_eq!(rules.step_up(&mut pipe, now), Step::Send);
    pipe.pop();
    assert_eq!(rules.step_up(&mut pipe, now), Step::Wait(None));
}

#[test]
fn lost_push_takes_its_rest_with_it_whatever_stands_between() {
    let now = now();
    let mut rules = Rules {
        drop_pushes: true,
        ..Rules::default()
    };
    let mut pipe = Pipe::default();
    let packets = on_stream(&[Kind::Push], 1, now)
        .chain(on_stream(&[Kind::Reply, Kind::Rest], 3, now))
        .chain(on_stream(&[Kind::Rest, Kind::Reply, Kind::Rest], 1, now));
    packets.for_each(|packet| pipe.push(packet));
    let mut lost = Vec::new();
    while pipe.first().is_some() {
        lost.push(rules.step_down(&mut pipe, now) == Step::Discard);
        pipe.pop();
        // What has begun to be lost is lost.
        rules.drop_pushes = false;
    }
    assert_eq!(lost, [true, false, false, true, false, false]);
}
