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
            Ruling::of([&mut rules]).step_up(&mut pipe(&[kind], now), now),
            Step::Wait(None)
        );
    }
    for kind in [Kind::Reply, Kind::Push, Kind::End] {
        let step = Ruling::of([&mut rules]).step_down(&mut pipe(&[kind], now), now);
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
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe, now),
        Step::Wait(Some(now + delay))
    );
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe, now + delay),
        Step::Send
    );
}

#[test]
fn only_the_first_match_is_held_and_passes_once_let_go() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|message| message.bytes == b"x")),
        ..Rules::default()
    };
    let mut held = pipe(&[Kind::Command, Kind::Command], now);
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut held, now),
        Step::Wait(None)
    );
    assert!(held.is_held());
    assert_eq!(held.held(), 2);
    // The retry on another connection.
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe(&[Kind::Command], now), now),
        Step::Send
    );
    // A new predicate does not catch what was let go, but may catch what stands behind it.
    rules.hold = Some(Box::new(|message| message.bytes == b"x"));
    held.let_go();
    assert_eq!(Ruling::of([&mut rules]).step_up(&mut held, now), Step::Send);
    held.pop();
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut held, now),
        Step::Wait(None)
    );
}

#[test]
fn connection_that_lost_a_reply_stays_silent_but_may_end() {
    let now = now();
    let mut rules = Rules {
        replies: Replies::Drop,
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Reply, Kind::Reply, Kind::End], now);
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut pipe, now),
        Step::Discard
    );
    pipe.pop();
    rules.replies = Replies::Pass;
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut pipe, now),
        Step::Discard
    );
    pipe.pop();
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut pipe, now),
        Step::End
    );
}

#[test]
fn dropping_pushes_spares_replies() {
    let now = now();
    let mut rules = Rules {
        drop_pushes: true,
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Push, Kind::Reply], now);
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut pipe, now),
        Step::Discard
    );
    pipe.pop();
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut pipe, now),
        Step::Send
    );
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
        match Ruling::of([&mut *rules]).step_up(pipe, now) {
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
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe, now),
        Step::Wait(None)
    );
    pipe.let_go();
    for _ in 0..2 {
        assert_eq!(Ruling::of([&mut rules]).step_up(&mut pipe, now), Step::Send);
        pipe.asked();
        pipe.pop();
    }
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe, now),
        Step::Wait(None)
    );
    pipe.answered(0);
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe, now),
        Step::Wait(None)
    );
    pipe.answered(0);
    assert_eq!(Ruling::of([&mut rules]).step_up(&mut pipe, now), Step::End);
}

#[test]
fn only_what_a_client_asks_is_held() {
    let now = now();
    let mut rules = Rules {
        hold: Some(Box::new(|_| true)),
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Upkeep, Kind::Command], now);
    assert_eq!(Ruling::of([&mut rules]).step_up(&mut pipe, now), Step::Send);
    pipe.pop();
    assert_eq!(
        Ruling::of([&mut rules]).step_up(&mut pipe, now),
        Step::Wait(None)
    );
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
        lost.push(Ruling::of([&mut rules]).step_down(&mut pipe, now) == Step::Discard);
        pipe.pop();
        // What has begun to be lost is lost.
        rules.drop_pushes = false;
    }
    assert_eq!(lost, [true, false, false, true, false, false]);
}

fn drop_next(request: Option<u64>, reply: Option<u64>, push: Option<u64>) -> Rules {
    Rules {
        drop_next: DropNext {
            request,
            reply,
            push,
        },
        ..Rules::default()
    }
}

#[test]
fn nth_request_is_lost_and_all_behind_it_but_not_the_end() {
    let now = now();
    let mut rules = drop_next(Some(2), None, None);
    let kinds = [
        Kind::Upkeep,
        Kind::Command,
        Kind::Command,
        Kind::Command,
        Kind::End,
    ];
    let mut pipe = pipe(&kinds, now);
    let mut steps = Vec::new();
    while pipe.first().is_some() {
        // A socket that takes nothing is asked again: that does not count twice.
        let step = Ruling::of([&mut rules]).step_up(&mut pipe, now);
        assert_eq!(Ruling::of([&mut rules]).step_up(&mut pipe, now), step);
        steps.push(step);
        pipe.pop();
    }
    use Step::{Discard, End, Send};
    assert_eq!(steps, [Send, Send, Discard, Discard, End]);
}

#[test]
fn lost_request_takes_its_own_stream_with_it_until_the_client_gives_it_up() {
    let now = now();
    let mut rules = drop_next(Some(1), None, None);
    let mut pipe = Pipe::default();
    let packets = on_stream(&[Kind::Command, Kind::Rest], 1, now)
        .chain(on_stream(&[Kind::Command, Kind::Rest], 3, now))
        .chain(on_stream(&[Kind::Command, Kind::Cancel], 1, now));
    packets.for_each(|packet| pipe.push(packet));
    let mut lost = Vec::new();
    while pipe.first().is_some() {
        lost.push(Ruling::of([&mut rules]).step_up(&mut pipe, now) == Step::Discard);
        pipe.pop();
    }
    assert_eq!(lost, [true, true, false, false, true, false]);
}

#[test]
fn nth_reply_silences_and_nth_push_is_lost_alone() {
    let now = now();
    let kinds = [Kind::Push, Kind::Reply, Kind::Push, Kind::Reply, Kind::Push];
    let lost = |mut rules: Rules| {
        let mut pipe = pipe(&kinds, now);
        kinds.map(|_| {
            let step = Ruling::of([&mut rules]).step_down(&mut pipe, now);
            pipe.pop();
            step == Step::Discard
        })
    };
    let reply = lost(drop_next(None, Some(2), None));
    assert_eq!(reply, [false, false, false, true, true]);
    let push = lost(drop_next(None, None, Some(2)));
    assert_eq!(push, [false, false, true, false, false]);
}

#[test]
fn half_open_connection_carries_everything_but_its_end() {
    let now = now();
    let mut rules = Rules {
        half_open: true,
        ..Rules::default()
    };
    let mut up = pipe(&[Kind::Command, Kind::End], now);
    let mut down = pipe(&[Kind::Reply, Kind::End], now);
    assert_eq!(Ruling::of([&mut rules]).step_up(&mut up, now), Step::Send);
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut down, now),
        Step::Send
    );
    up.pop();
    down.pop();
    let wait = Step::Wait(None);
    assert_eq!(Ruling::of([&mut rules]).step_up(&mut up, now), wait);
    assert_eq!(Ruling::of([&mut rules]).step_down(&mut down, now), wait);
    rules.half_open = false;
    assert_eq!(Ruling::of([&mut rules]).step_up(&mut up, now), Step::End);
    assert_eq!(
        Ruling::of([&mut rules]).step_down(&mut down, now),
        Step::End
    );
}

#[test]
fn what_one_of_several_rules_forbids_is_forbidden() {
    let now = now();
    let mut all = Rules {
        replies: Replies::Hold,
        ..Rules::default()
    };
    let mut own = Rules {
        delay: Duration::from_secs(1),
        ..Rules::default()
    };
    let mut pipe = pipe(&[Kind::Reply], now);
    let mut step = |all: &mut Rules, own: &mut Rules| {
        Ruling::of([&mut *all, &mut *own]).step_down(&mut pipe, now)
    };
    assert_eq!(step(&mut all, &mut own), Step::Wait(None));
    all.replies = Replies::Pass;
    let due = now + Duration::from_secs(1);
    assert_eq!(step(&mut all, &mut own), Step::Wait(Some(due)));
    own.delay = Duration::ZERO;
    assert_eq!(step(&mut all, &mut own), Step::Send);
    own.replies = Replies::Drop;
    assert_eq!(step(&mut all, &mut own), Step::Discard);
}
